"""Links by the standard library's OpenSSL: keys in files, or no key at all."""
