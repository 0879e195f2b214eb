"""A device's identity and the CAs that it trusts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from birthmark.device_transports.errors import CertificateKeyMismatchError, ChainOrderError, ServerUntrustedError
from birthmark.errors import about
from birthmark.keys.file_key import FileKey
from birthmark.keys.key_handle import KeyHandle
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.pki.certificates import Certificate, pem_bundle


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A certificate chain, leaf first, with its private key in a file."""

    chain: tuple[Certificate, ...]
    key: FileKey
    passphrase: Pin | None = None


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """A chain, leaf first, and its private key in a token, which must stay open while `Links` are used."""

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
    """Trusted CA certificates as PEM; None means the system's trust store.

    Certificates must be valid at the time `at`; None means the machine's clock.
    """

    pem: str | None = None
    at: datetime | None = None

    def at_time(self, timestamp: datetime) -> "ServerTrust":
        """Return the same trust, evaluated at a time other than the machine's clock."""
        return replace(self, at=timestamp)

    @classmethod
    def of(cls, files: Iterable[Path]) -> "ServerTrust":
        """Return trust in exactly the certificates of these files. Raise `OSError` or `CertificateInvalidError`."""
        return cls("".join(map(_pem_in, files)))

    @property
    def roots(self) -> str | None:
        """CAs as PEM; None for the system's. Raise `ServerUntrustedError` if there are none.

        Libraries treat an empty text as no text, and would then trust the system's CAs.
        """
        if self.pem is not None and "-----BEGIN " not in self.pem:
            raise ServerUntrustedError(host="any server", port="any", reason="no CA was specified")
        return self.pem

    def plus(self, files: Iterable[Path]) -> "ServerTrust":
        """Return the trust with the CAs of these files added. Raise `OSError` or `CertificateInvalidError`."""
        present = (path for path in _SYSTEM_BUNDLES if path.exists())
        system = next((path.read_bytes() for path in present), b"") if self.pem is None else b""
        roots = system.decode("ascii", "ignore") if self.pem is None else self.pem  # comments may have CA names
        return ServerTrust(roots.rstrip() + "\n" + (ServerTrust.of(files).pem or ""))

    def including(self, pem: str) -> "ServerTrust":
        """Return the trust with these CAs added, unless it is the system's."""
        return self if self.pem is None else replace(self, pem=self.pem.rstrip() + "\n" + pem)

    @classmethod
    def default(cls, environment: Mapping[str, str]) -> "ServerTrust":
        """Return trust in SSL_CERT_FILE if set, otherwise in the system's CAs.

        Raise `OSError` or `CertificateInvalidError`.
        """
        named = environment.get("SSL_CERT_FILE")
        return cls.of([Path(named)]) if named else cls()
