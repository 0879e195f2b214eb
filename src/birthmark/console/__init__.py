"""The operator's side of a running server: a REST interface (and later web pages) on loopback, behind a token.

`api` is the server's half, `client` what the command line uses.
"""
