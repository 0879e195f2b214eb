"""Adapters of the ports in `birthmark.device_transports` for thousands of connections in one process.

A connection is a TLS socket and a callback, without transport or task. One TLS context serves all devices, each with
its own certificate, and nothing is stored after the handshake. Measurements: docs/adr/0031.
"""
