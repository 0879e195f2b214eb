"""Where private keys live: in a file, or behind PKCS#11 in a token. A key handle signs; it is never read.

Not here: what a chip's objects mean (elements), TLS with these keys (links), CAs (ca).
"""

from birthmark.keys.file_key import FileKey
from birthmark.keys.handles import KeyHandle
from birthmark.keys.pin import Pin
from birthmark.keys.private_key import as_private_key
from birthmark.keys.scheme import Scheme, default_scheme
from birthmark.keys.token import Token, TokenInfo, list_tokens
from birthmark.keys.token_key import TokenKey
from birthmark.keys.uri import Pkcs11Uri, parse_pkcs11_uri

__all__ = [
    "FileKey",
    "KeyHandle",
    "Pin",
    "Pkcs11Uri",
    "Scheme",
    "Token",
    "TokenInfo",
    "TokenKey",
    "as_private_key",
    "default_scheme",
    "list_tokens",
    "parse_pkcs11_uri",
]
