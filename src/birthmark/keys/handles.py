"""Key handles: what signs, whatever holds the key.

`open_key` takes what users write (a path or a `pkcs11:` URI) and gives a `FileKey` or a `TokenKey`. A reference key
is refused: it is a name, not a key.
"""

from base64 import b64decode
from pathlib import Path
from typing import Protocol

from asn1crypto import core, pem

from birthmark.keys.file_key import FileKey, read_key_file
from birthmark.keys.library import find_softhsm
from birthmark.keys.pin import Pin
from birthmark.keys.scheme import PublicKey, Scheme
from birthmark.keys.token import Token
from birthmark.keys.token_key import TokenKey
from birthmark.keys.uri import SCHEME, Pkcs11Uri, parse_pkcs11_uri


class KeyHandle(Protocol):
    """A private key somewhere. Safe to share between threads; close it when done."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        """Return the signature of `data`. Raise `KeyUnsupportedError`, or `UnavailableError` when the token fails."""
        ...

    def describe(self) -> str:
        """Say where the key lives, as text for people and logs."""
        ...

    def close(self) -> None:
        """Let go of the key; closing twice is harmless."""
        ...


def open_key(
    reference: str | Path, *, module: Path | None = None, pin: Pin | None = None, passphrase: Pin | None = None
) -> KeyHandle:
    """Open what users write: a path, or a `pkcs11:` URI, or a file that holds one. `module` defaults to SoftHSM."""
    text = str(reference)
    if text.startswith(SCHEME):
        return _open_uri(parse_pkcs11_uri(text), module, pin)
    path = Path(text.removeprefix("file://"))
    content, _mode = read_key_file(path)
    if (uri := uri_in(content)) is not None:
        return _open_uri(parse_pkcs11_uri(uri), module, pin)
    return FileKey.load(path, passphrase)


def uri_in(content: bytes) -> str | None:
    """Return the URI that a file holds as text or as pkcs11-provider's PEM block; None for other files."""
    if content.startswith(SCHEME.encode()):
        return content.decode("ascii", "replace").strip()
    if b"-----BEGIN PKCS#11 PROVIDER URI-----" not in content:
        return None
    body = content.split(b"-----BEGIN PKCS#11 PROVIDER URI-----", 1)[1].split(b"-----END", 1)[0]
    try:
        return str(core.SequenceOf.load(b64decode(body), spec=core.Any)[1].parse(core.UTF8String).native)
    except (ValueError, TypeError, IndexError):
        return None


def _open_uri(uri: Pkcs11Uri, module: Path | None, pin: Pin | None) -> TokenKey:
    if pin is None and uri.pin_source is not None:
        pin = Pin.from_file(uri.pin_source)
    library = uri.module_path or module or find_softhsm()
    token = Token.open(library, label=uri.token, serial=uri.serial, slot_id=uri.slot_id, pin=pin)
    try:
        return TokenKey.find(token, label=uri.object, key_id=uri.id)
    except BaseException:
        token.close()
        raise


def render_uri_pem(uri: Pkcs11Uri) -> str:
    """Return the PEM block in which pkcs11-provider and `element exec` find the URI; it holds no secret."""
    body = core.SequenceOf([core.VisibleString("PKCS#11 Provider URI v1.0"), core.UTF8String(str(uri))], spec=core.Any)
    return bytes(pem.armor("PKCS#11 PROVIDER URI", body.dump())).decode()
