"""Clients of the operator API: its connection, saved sign-ins, the trusted server, and environment variables."""
