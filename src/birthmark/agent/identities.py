"""The device's certificate and key on disk: the one in use, and the one that is being proven.

A renewal is written under the temporary id. When it is proven, the key moves first and the certificate after it; what
an interruption leaves is told by which certificate fits which key, and finished at the next start.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.agent.config.model import Preloaded
from birthmark.agent.files import DEVICE_ID, TEMPORARY, Places, move_file, write_file
from birthmark.agent.keys import HeldKey, KeyStore
from birthmark.errors import BirthmarkError, NotFoundError
from birthmark.keys.errors import KeyFileMissingError
from birthmark.links.identity import Identity, identity_of
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.text import reason_of


class CertificateMissingError(NotFoundError):
    """A certificate cannot be read."""

    code = "agent.certificate_missing"
    cause = "The certificate {path} cannot be read: {reason}."
    fix = (
        'Put the file there, or correct its path. For a Birthmark server: `eval "$(birthmark env)"` sets '
        'SSL_CERT_FILE, and `birthmark env --format aziot --registration-id "$(hostname)"` prints a configuration '
        "whose files are there."
    )
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class HeldIdentity:
    """A chain, leaf first, with its key."""

    chain: tuple[Certificate, ...]
    key: HeldKey

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    def for_links(self) -> Identity:
        """Return what proves the device. Raise `CertificateKeyMismatchError`."""
        return identity_of(self.key.handle, self.chain, pin=self.key.pin)


def fits(certificate: Certificate, key: HeldKey) -> bool:
    """Say whether the certificate carries the key's public half."""
    spki = key.handle.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.spki_der == spki


@dataclass(frozen=True, slots=True)
class IdentityStore:
    """The files of one device identity."""

    places: Places
    keys: KeyStore

    def current(self) -> HeldIdentity | None:
        """Return the identity in use; None when there is none, or certificate and key do not belong together."""
        self._finish_move()
        return self._load(DEVICE_ID)

    def pending(self) -> HeldIdentity | None:
        """Return a renewal that was issued and not yet proven."""
        return self._load(TEMPORARY) or self._load(TEMPORARY, DEVICE_ID)

    def preloaded(self, given: Preloaded) -> HeldIdentity:
        """Return an identity that the configuration names."""
        try:
            with given.certificate.open("rb") as file:
                chain = parse_bundle(file.read(MAX_BUNDLE_BYTES + 1))
        except OSError as error:
            raise CertificateMissingError(path=given.certificate, reason=reason_of(error)) from error
        return HeldIdentity(chain, self.keys.open_at(given.key))

    def save(self, certificate_id: str, chain: tuple[Certificate, ...]) -> None:
        write_file(self.places.certificate(certificate_id), "".join(one.pem() for one in chain).encode())

    def commit(self) -> None:
        """Let the proven renewal take the place of the old identity."""
        if self.keys.exists(TEMPORARY):
            self.keys.move(TEMPORARY, DEVICE_ID)
        move_file(self.places.certificate(TEMPORARY), self.places.certificate(DEVICE_ID))

    def drop_pending(self) -> None:
        self.places.certificate(TEMPORARY).unlink(missing_ok=True)
        if not self.keys.is_preloaded(TEMPORARY):
            self.keys.remove(TEMPORARY)

    def _finish_move(self) -> None:
        """A key that moved without its certificate: let the certificate follow."""
        certificate, key = self._certificate(TEMPORARY), self._key(DEVICE_ID)
        old = self._certificate(DEVICE_ID)
        if certificate is None or key is None or not fits(certificate[0], key):
            return
        if old is None or not fits(old[0], key):
            move_file(self.places.certificate(TEMPORARY), self.places.certificate(DEVICE_ID))

    def _load(self, certificate_id: str, key_id: str | None = None) -> HeldIdentity | None:
        chain, key = self._certificate(certificate_id), self._key(key_id or certificate_id)
        if chain is None or key is None or not fits(chain[0], key):
            return None
        return HeldIdentity(chain, key)

    def _certificate(self, certificate_id: str) -> tuple[Certificate, ...] | None:
        """Return a chain of ours; one that cannot be read counts as none, and is issued again."""
        path = self.places.certificate(certificate_id)
        with contextlib.suppress(OSError, BirthmarkError), path.open("rb") as file:
            return parse_bundle(file.read(MAX_BUNDLE_BYTES + 1))
        return None

    def _key(self, key_id: str) -> HeldKey | None:
        if not self.keys.exists(key_id):
            return None
        with contextlib.suppress(KeyFileMissingError):  # removed this very moment
            return self.keys.open(key_id)
        return None
