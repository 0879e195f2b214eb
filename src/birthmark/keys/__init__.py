"""Where private keys live: in a file, or behind PKCS#11 in a token. A key handle signs; it is never read.

Not here: what a chip's objects mean (elements), TLS with these keys (links), CAs (ca).
"""
