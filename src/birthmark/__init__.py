"""Birthmark: hardware-backed X.509 identity for IoT devices, from the birth certificate to renewal."""

__version__ = "0.3.0"
