"""Private keys in files or PKCS#11 tokens. A key handle signs; the key itself is never read.

Other packages cover the objects of a secure element (elements), TLS with these keys (links), and CAs (ca).
"""
