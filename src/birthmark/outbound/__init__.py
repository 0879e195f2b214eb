"""Outbound calls: permitted addresses, signing, timeouts, and response size limits.

A name is resolved and checked when a connection is made, and the checked address is used, which prevents DNS rebinding.
Redirects are not followed, and proxies are not used.
"""
