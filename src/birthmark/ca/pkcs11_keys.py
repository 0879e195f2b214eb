"""CA keys in a PKCS#11 token: generated there, for signing only, not extractable.

The key file in the CA's directory has its URI (in pkcs11-provider's PEM form) with the library and the PIN file. The
token is opened for signing, and reopened after a failure. A server starts without it, rejects operations that need it,
and resumes when it is available. The PKCS#11 library is also loaded on demand, because most servers have no token.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.key_handle import PublicKey, Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import Pkcs11Uri, parse_pkcs11_uri
from birthmark.keys.pkcs11_uri_files import render_uri_pem, uri_in
from birthmark.pki.issuance import SigningKey
from birthmark.supervised_tasks import run_in_thread

if TYPE_CHECKING:
    from birthmark.keys.pkcs11_key import TokenKey
    from birthmark.keys.pkcs11_token import Pkcs11Token

T = TypeVar("T")


class TokenAwayError(UnavailableError):
    """The token with the CA's key does not respond."""

    code = "ca.token_away"
    cause = "The key '{label}' in the token '{token}' cannot sign: {reason}."
    fix = (
        "Reconnect the token; no restart is needed. To show the tokens that the library detects: `birthmark chip ls "
        "--module {module}`."
    )
    label: str
    module: Path
    reason: str
    token: str


@dataclass(slots=True)
class TokenSigner:
    """A key in a token, opened on demand."""

    uri: Pkcs11Uri
    public_key: PublicKey
    _open: "TokenKey | None" = field(default=None, init=False, repr=False)

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        """Sign data in the token. Raise `TokenAwayError`."""
        from birthmark.keys.pkcs11_library_lifecycle import LOCK, stop_library  # noqa: PLC0415 - see module

        with LOCK:
            try:
                return self._key().sign(data, scheme)
            except BirthmarkError:
                self.close()
                stop_library()  # only a restarted library sees a returned token
            try:
                return self._key().sign(data, scheme)
            except BirthmarkError as error:
                self.close()
                raise self._away(error.explain_cause().rstrip(".")) from error

    def _key(self) -> "TokenKey":
        from birthmark.keys.pkcs11_key import TokenKey  # noqa: PLC0415 - see module

        if self._open is None:
            key = TokenKey.find(_opened(self.uri), label=self.uri.object)
            if key.public_key != self.public_key:
                key.close()
                raise self._away("it is another key than the CA's certificate has")
            self._open = key
        return self._open

    def describe(self) -> str:
        return str(replace(self.uri, pin_source=None))

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _away(self, reason: str) -> TokenAwayError:
        module = self.uri.module_path or Path("?")
        return TokenAwayError(label=self.uri.object or "?", token=self.uri.token or "?", module=module, reason=reason)


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Token in which a CA's keys are generated."""

    module: Path
    token: str
    pin_file: Path

    @classmethod
    def of(cls, token: str, pin_file: Path, module: Path | None) -> "TokenPlace":
        from birthmark.keys.pkcs11_library_lifecycle import find_softhsm  # noqa: PLC0415 - see module

        return cls((module or find_softhsm()).resolve(), token, pin_file.expanduser().absolute())

    def make(self, label: str) -> SigningKey:
        """Generate a P-256 key that never leaves the token. Raise the errors of opening a token."""
        from birthmark.keys.pkcs11_key import generate_signing_key  # noqa: PLC0415 - see module

        uri = Pkcs11Uri(
            token=self.token, object=label, type="private", module_path=self.module, pin_source=self.pin_file
        )
        with _opened(uri) as token:
            return _key(uri, generate_signing_key(token, label))


def place_of(key: SigningKey) -> TokenPlace | None:
    """Return the token that holds a key; None for a key in a file."""
    signer = _signer(key)
    if signer is None:
        return None
    uri = signer.uri
    return TokenPlace(uri.module_path or Path(), uri.token or "", uri.pin_source or Path())


async def run_signing(key: SigningKey, sign: Callable[[], T]) -> T:
    """Run a signing call; with a key in a token, run it outside the event loop."""
    return sign() if place_of(key) is None else await run_in_thread(sign)


def render(key: SigningKey) -> bytes | None:
    """Return the file content that refers to a token key; None for a key that is in a file."""
    signer = _signer(key)
    return None if signer is None else render_uri_pem(signer.uri).encode()


def parse(content: bytes, public_key: PublicKey) -> SigningKey | None:
    """Return the token key that a file refers to, or None; the token is not opened yet.

    Raise `UriInvalidError`.
    """
    text = uri_in(content)
    return None if text is None else _key(parse_pkcs11_uri(text), public_key)


def _key(uri: Pkcs11Uri, public_key: PublicKey) -> SigningKey:
    return as_private_key(TokenSigner(uri, public_key))


def _signer(key: SigningKey) -> TokenSigner | None:
    handle = getattr(key, "_handle", None)
    return handle if isinstance(handle, TokenSigner) else None


def _opened(uri: Pkcs11Uri) -> "Pkcs11Token":
    from birthmark.keys.pkcs11_token import Pkcs11Token  # noqa: PLC0415 - see module

    pin = None if uri.pin_source is None else Pin.from_file(uri.pin_source)
    return Pkcs11Token.open(cast("Path", uri.module_path), label=uri.token, pin=pin)
