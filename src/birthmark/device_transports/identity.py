"""Who a device shows itself to be, and whom it believes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from birthmark.device_transports.errors import CertificateKeyMismatchError, ChainOrderError, ServerUntrustedError
from birthmark.errors import about
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.private_key import KeyHandle
from birthmark.pki.certificates import Certificate, pem_bundle


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A chain, leaf first, and its private key in a file."""

    chain: tuple[Certificate, ...]
    key: FileKey
    passphrase: Pin | None = None


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """A chain, leaf first, and its private key in a token, which must stay open while links are used."""

    chain: tuple[Certificate, ...]
    key: TokenKey
    pin: Pin | None = None


Identity: TypeAlias = FileIdentity | TokenIdentity


def identity_of(
    key: KeyHandle, chain: tuple[Certificate, ...], *, pin: Pin | None = None, passphrase: Pin | None = None
) -> Identity:
    """Return the identity of a key and its chain. Raise `CertificateKeyMismatchError`."""
    if chain[0].public_key() != key.public_key:
        if (leaf := next((one for one in chain if one.public_key() == key.public_key), None)) is not None:
            told = {"subject": chain[0].subject_text, "leaf": leaf.subject_text, "where": key.describe()}
            raise ChainOrderError(**told)
        raise CertificateKeyMismatchError(subject=chain[0].subject_text, where=key.describe())
    if isinstance(key, TokenKey):
        return TokenIdentity(chain, key, pin)
    if isinstance(key, FileKey):
        return FileIdentity(chain, key, passphrase)
    raise TypeError(f"no transport for {type(key).__name__}")


def _pem_in(path: Path) -> str:
    with about(path):
        return pem_bundle(path.read_bytes())


_SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


@dataclass(frozen=True, slots=True)
class ServerTrust:
    """The CAs whose servers are believed, as PEM; None means the system's own.

    Certificates must be valid at the time `at`; None means the machine's clock.
    """

    pem: str | None = None
    at: datetime | None = None

    def dated(self, at: datetime) -> "ServerTrust":
        """Trust the same CAs at another time than the machine's clock shows."""
        return replace(self, at=at)

    @classmethod
    def of(cls, files: Iterable[Path]) -> "ServerTrust":
        """Trust exactly these files' certificates. Raise `OSError` or `CertificateInvalidError`."""
        return cls("".join(map(_pem_in, files)))

    @property
    def roots(self) -> str | None:
        """The CAs as PEM; None for the system's. Raise `ServerUntrustedError` when there are none at all.

        Libraries take an empty text for no text, and would believe everybody whom the system believes.
        """
        if self.pem is not None and "-----BEGIN " not in self.pem:
            raise ServerUntrustedError(host="any server", port="any", reason="no CA was specified")
        return self.pem

    def plus(self, files: Iterable[Path]) -> "ServerTrust":
        """Trust these files' CAs too. Raise `OSError` or `CertificateInvalidError`."""
        present = (path for path in _SYSTEM_BUNDLES if path.exists())
        system = next((path.read_bytes() for path in present), b"") if self.pem is None else b""
        roots = system.decode("ascii", "ignore") if self.pem is None else self.pem  # comments may name a CA otherwise
        return ServerTrust(roots.rstrip() + "\n" + (ServerTrust.of(files).pem or ""))

    def including(self, pem: str) -> "ServerTrust":
        """Trust these CAs too, where it is not the system's that are trusted."""
        return self if self.pem is None else replace(self, pem=self.pem.rstrip() + "\n" + pem)

    @classmethod
    def default(cls, environment: Mapping[str, str]) -> "ServerTrust":
        """Trust SSL_CERT_FILE where it is set, else the system's CAs.

        Raise `OSError` or `CertificateInvalidError`.
        """
        named = environment.get("SSL_CERT_FILE")
        return cls.of([Path(named)]) if named else cls()
