"""Key handles: what signs, whatever holds the key. And key files that name a key in a token by its URI."""

from base64 import b64decode
from typing import Protocol

from asn1crypto import core, pem

from birthmark.keys.scheme import PublicKey, Scheme
from birthmark.keys.uri import MAX_URI_CHARS, Pkcs11Uri, find_pkcs11_uri


class KeyHandle(Protocol):
    """A private key somewhere. Safe to share between threads; close it when done."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        """Return the signature of `data`. Raise `KeyUnsupportedError`, or `UnavailableError` when the token fails."""

    def describe(self) -> str:
        """Say where the key lives, as text for people and logs."""

    def close(self) -> None:
        """Let go of the key; closing twice is harmless."""


def uri_in(content: bytes) -> str | None:
    """Return the URI that a file holds as text or as pkcs11-provider's PEM block; None for other files."""
    if (uri := find_pkcs11_uri(content[: 2 * MAX_URI_CHARS].decode("ascii", "replace"))) is not None:
        return uri
    if b"-----BEGIN PKCS#11 PROVIDER URI-----" not in content:
        return None
    body = content.split(b"-----BEGIN PKCS#11 PROVIDER URI-----", 1)[1].split(b"-----END", 1)[0]
    try:
        return str(core.SequenceOf.load(b64decode(body), spec=core.Any)[1].parse(core.UTF8String).native)
    except (ValueError, TypeError, IndexError):
        return None


def render_uri_pem(uri: Pkcs11Uri) -> str:
    """Return the PEM block in which pkcs11-provider and `chip exec` find the URI; it holds no secret."""
    body = core.SequenceOf([core.VisibleString("PKCS#11 Provider URI v1.0"), core.UTF8String(str(uri))], spec=core.Any)
    return bytes(pem.armor("PKCS#11 PROVIDER URI", body.dump())).decode()
