"""Adapters of the ports in `birthmark.device_transports` for thousands of connections in one process.

A connection here is a TLS socket and a callback, no transport and no task; one TLS context serves all devices, each
shows its own certificate, and nothing is kept of a handshake that is over. Numbers: docs/adr/0031.
"""
