"""The operator's side of a running server: a REST interface (and later web pages) on loopback, behind a token.

Each room of the server has its table of endpoints here (ADR 15), `openapi` draws them all, and `client` is what the
command line uses.
"""
