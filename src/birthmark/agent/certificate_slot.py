"""Certificate slot on disk: the active certificate and key, and the next pair until it is proven.

The next pair is stored under the temporary ID (`device-id-temp`). Once it is proven, the key moves first, then the
certificate. After an interruption, the state follows from which certificate matches which key. Reading therefore
changes nothing; `recover`, called by the lock holder, completes or removes partial work.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.agent.key_store import HeldKey, KeyStore
from birthmark.agent.state_directory import AgentPaths, move_file, next_of, remove_file, write_file
from birthmark.device_transports.identity_and_trust import Identity, identity_of
from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.pki.csr import parse_csr

MAX_REQUEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HeldIdentity:
    """A certificate chain, leaf first, with its key."""

    chain: tuple[Certificate, ...]
    key: HeldKey

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    @property
    def mark(self) -> str:
        """Identifier in the state: the leaf's thumbprint."""
        return self.leaf.thumbprint.hex()

    def for_links(self) -> Identity:
        """Return the identity for connections. Raise `CertificateKeyMismatchError`."""
        return identity_of(self.key.handle, self.chain, pin=self.key.pin)


def fits(certificate: Certificate, key: HeldKey) -> bool:
    """Return whether the certificate contains the key's public key."""
    return certificate.spki_der == _spki(key)


@dataclass(frozen=True, slots=True)
class Slot:
    """Files of one managed certificate, by its aziot ID."""

    id: str
    places: AgentPaths
    keys: KeyStore

    def current(self) -> HeldIdentity | None:
        """Return the active pair; None if it is missing or certificate and key do not match."""
        return self._load(self.id, self.id) or self._load(next_of(self.id), self.id)

    def pending(self) -> HeldIdentity | None:
        """Return the issued pair that is not proven yet."""
        if (found := self._load(next_of(self.id), next_of(self.id))) is not None:
            return found
        is_settled = self._load(self.id, self.id) is not None
        return self._load(next_of(self.id), self.id) if is_settled else None

    def waiting(self) -> tuple[HeldKey, bytes] | None:
        """Return the key and CSR that await approval; they are resubmitted unchanged."""
        with contextlib.suppress(OSError, BirthmarkError), self.places.request(self.id).open("rb") as file:
            request = file.read(MAX_REQUEST_BYTES)
            wanted = parse_csr(request).spki_der
            for key_id in (next_of(self.id), self.id):
                if (key := self.keys.find(key_id)) is not None and _spki(key) == wanted:
                    return key, request
        return None

    def keep_request(self, request: bytes) -> None:
        write_file(self.places.request(self.id), request)

    def save(self, chain: tuple[Certificate, ...]) -> None:
        """Save the next certificate; it is not used before `commit`."""
        pem = "".join(one.pem() for one in chain).encode()
        write_file(self.places.certificate(next_of(self.id)), pem)
        remove_file(self.places.request(self.id))

    def commit(self) -> None:
        """Replace the active pair with the next one."""
        following = next_of(self.id)
        remove_file(self.places.request(self.id))  # answered; otherwise repeated, with a key in use
        if self.keys.exists(following):
            self.keys.move(following, self.id)
        move_file(self.places.certificate(following), self.places.certificate(self.id))
        self.keys.sweep(self.id)

    def drop_pending(self) -> None:
        """Discard the next pair, its certificate first, which is useless without the key."""
        following = next_of(self.id)
        remove_file(self.places.request(self.id))
        remove_file(self.places.certificate(following))
        self.keys.remove(following)
        self.keys.sweep(self.id)

    def file_of(self, identity: HeldIdentity) -> Path:
        """Return the file of a certificate in this slot: the active one or the next."""
        current = self._certificate(self.id)
        is_current = current is not None and current[0] == identity.leaf
        return self.places.certificate(self.id if is_current else next_of(self.id))

    def recover(self) -> None:
        """Complete an interrupted operation and remove unused files. Raise if that fails."""
        following = next_of(self.id)
        for path in (self.places.certificate(self.id), self.places.key(self.id)):
            if not path.exists():
                remove_file(path)  # left by an interrupted write
        if self._load(self.id, self.id) is None and self._load(following, self.id) is not None:
            move_file(self.places.certificate(following), self.places.certificate(self.id))
        if self.pending() is None and self.waiting() is None and self._has_leftovers():
            self.drop_pending()
        self.keys.sweep(self.id)

    def _has_leftovers(self) -> bool:
        following = next_of(self.id)
        places = (self.places.certificate(following), self.places.key(following), self.places.request(self.id))
        return any(path.exists() or path.with_name(f".{path.name}.new").exists() for path in places)

    def _load(self, certificate_id: str, key_id: str) -> HeldIdentity | None:
        chain = self._certificate(certificate_id)
        key = None if chain is None else self.keys.find(key_id)
        if chain is None or key is None or not fits(chain[0], key):
            return None
        return HeldIdentity(chain, key)

    def _certificate(self, certificate_id: str) -> tuple[Certificate, ...] | None:
        """Return a stored chain; None if it is unreadable, so that it is issued again."""
        path = self.places.certificate(certificate_id)
        with contextlib.suppress(OSError, BirthmarkError), path.open("rb") as file:
            return parse_bundle(file.read(MAX_BUNDLE_BYTES + 1))
        return None


def _spki(key: HeldKey) -> bytes:
    return key.handle.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
