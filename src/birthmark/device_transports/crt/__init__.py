"""Links by awscrt: the private key stays in a PKCS#11 token, any library's.

awscrt speaks TLS 1.2 with keys in tokens, finds the key by its label alone, and logs in with a PIN that must not be
empty; tokens that need none take any. It opens a session of its own for each context and connection.
"""
