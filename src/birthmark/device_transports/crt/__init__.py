"""Transports by awscrt: the private key stays in a PKCS#11 token, with any library.

awscrt uses TLS 1.2 with keys in tokens, finds the key by its label only, and logs in with a PIN that must not be empty.
A token without a PIN accepts any. awscrt opens a separate session for each context and connection.
"""
