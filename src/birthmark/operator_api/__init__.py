"""Operator API of a running server: a REST interface on loopback (later also web pages), token required.

Each component of the server has its table of endpoints here (ADR 15). `openapi` describes all of them, and the command
line uses `client`.
"""
