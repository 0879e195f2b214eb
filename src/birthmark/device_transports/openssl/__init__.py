"""Links over the standard library's OpenSSL: with keys in files, or without a key."""
