"""A managed certificate and its key on disk: the pair in use, and the next one until it is proven.

The next pair is written under the temporary id (`device-id-temp`). When it is proven, the key moves first and the
certificate after it; what an interruption leaves is told by which certificate fits which key. So looking never changes
anything, and `recover`, called by whoever holds the lock, finishes or takes away what was left half done.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.agent.keys import HeldKey, KeyStore
from birthmark.agent.paths import AgentPaths, move_file, next_of, remove_file, write_file
from birthmark.device_transports.identity import Identity, identity_of
from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.pki.csr import parse_csr

MAX_REQUEST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HeldIdentity:
    """A chain, leaf first, with its key."""

    chain: tuple[Certificate, ...]
    key: HeldKey

    @property
    def leaf(self) -> Certificate:
        return self.chain[0]

    @property
    def mark(self) -> str:
        """What the state remembers of it: the leaf's thumbprint."""
        return self.leaf.thumbprint.hex()

    def for_links(self) -> Identity:
        """Return what proves the device. Raise `CertificateKeyMismatchError`."""
        return identity_of(self.key.handle, self.chain, pin=self.key.pin)


def fits(certificate: Certificate, key: HeldKey) -> bool:
    """Say whether the certificate carries the key's public half."""
    return certificate.spki_der == _spki(key)


@dataclass(frozen=True, slots=True)
class Slot:
    """The files of one managed certificate, by aziot's id of it."""

    id: str
    places: AgentPaths
    keys: KeyStore

    def current(self) -> HeldIdentity | None:
        """Return the pair in use; None when there is none, or certificate and key do not belong together."""
        return self._load(self.id, self.id) or self._load(next_of(self.id), self.id)

    def pending(self) -> HeldIdentity | None:
        """Return what was issued and not yet proven."""
        if (found := self._load(next_of(self.id), next_of(self.id))) is not None:
            return found
        is_settled = self._load(self.id, self.id) is not None
        return self._load(next_of(self.id), self.id) if is_settled else None

    def waiting(self) -> tuple[HeldKey, bytes] | None:
        """Return the key and request that somebody has to approve, which is asked again as it was."""
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
        """Write down the next certificate; nothing is in use of it before `commit`."""
        pem = "".join(one.pem() for one in chain).encode()
        write_file(self.places.certificate(next_of(self.id)), pem)
        remove_file(self.places.request(self.id))

    def commit(self) -> None:
        """Let the next pair take the place of the old one."""
        following = next_of(self.id)
        remove_file(self.places.request(self.id))  # answered; else it would be asked again, by a key in use
        if self.keys.exists(following):
            self.keys.move(following, self.id)
        move_file(self.places.certificate(following), self.places.certificate(self.id))
        self.keys.sweep(self.id)

    def drop_pending(self) -> None:
        """Give up the next pair: first its certificate, which alone would be nobody's."""
        following = next_of(self.id)
        remove_file(self.places.request(self.id))
        remove_file(self.places.certificate(following))
        self.keys.remove(following)
        self.keys.sweep(self.id)

    def file_of(self, held: HeldIdentity) -> Path:
        """Return the file in which a certificate of this slot stands: the one in use, or the next one's."""
        current = self._certificate(self.id)
        is_current = current is not None and current[0] == held.leaf
        return self.places.certificate(self.id if is_current else next_of(self.id))

    def recover(self) -> None:
        """Finish what an interruption left, and take away what nobody will ever use. Raise when it cannot be done."""
        following = next_of(self.id)
        for path in (self.places.certificate(self.id), self.places.key(self.id)):
            if not path.exists():
                remove_file(path)  # what a first write left beside it
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
        """Return a chain of ours; one that cannot be read counts as none, and is issued again."""
        path = self.places.certificate(certificate_id)
        with contextlib.suppress(OSError, BirthmarkError), path.open("rb") as file:
            return parse_bundle(file.read(MAX_BUNDLE_BYTES + 1))
        return None


def _spki(key: HeldKey) -> bytes:
    return key.handle.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
