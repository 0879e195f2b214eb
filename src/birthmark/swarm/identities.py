"""Keys and certificates of the devices: one PEM file each, reused between runs.

Files have mode 0600, in a directory of mode 0700. A file has key and chain, leaf first. `.origin` records their origin,
so that a run with another CA does not reuse them. New certificates are signed by a CA (`CaMaker`), or requested from an
EST server (by `run`, which uses the network).
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509 import CertificateSigningRequestBuilder

from birthmark import atomic_files
from birthmark.clock_and_entropy import Entropy
from birthmark.device_transports.errors import CertificateKeyMismatchError
from birthmark.errors import about
from birthmark.flock import take
from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.errors import PassphraseWrongError
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.issuance import LeafIssuer, issue, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.swarm.errors import DirectoryForeignError, DirectoryInUseError, DirectoryOpenError
from birthmark.swarm.model import Origin
from birthmark.swarm.scenario.model import Identities
from birthmark.text_file_encodings import plain_text

_ORIGIN, _REVOKED, _LOCK = ".origin", ".revoked", ".lock"
_PATIENCE = 3
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_TAG_BYTES = 3
CA_CERT, CA_KEY = "ca.pem", "ca.key"
_CA_LIFE = timedelta(days=3650)
_OWN_CA = "Birthmark swarm"
_EXPIRED = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class IdentityDirectory:
    """Directory of the devices' identities."""

    directory: Path

    def path_of(self, name: str) -> Path:
        """Return the file of a device's key and chain."""
        return self.directory / f"{name}.pem"

    def open(self, identities: Identities, entropy: Entropy) -> str:
        """Create the directory, or verify that it has the same origin; return its tag.

        Raise `DirectoryForeignError`, `DirectoryOpenError`. The tag is part of its devices' names: a target that knows
        a name with another directory's key rejects the key of this directory.
        """
        if identities.origin is Origin.FILES:
            return ""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.directory.stat()
        if status.st_mode & _OTHERS_WRITE or status.st_uid not in {0, os.geteuid()}:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise DirectoryOpenError(directory=self.directory, mode=mode, owner=status.st_uid)
        wanted = identities.origin.value
        note = self.directory / _ORIGIN
        if not note.exists():
            made = {"origin": wanted, "tag": entropy.token(_TAG_BYTES).hex()}
            atomic_files.put(note, (json.dumps(made) + "\n").encode(), 0o600)
        found = _json_of(note)
        if found.get("origin") != wanted:
            told = str(found.get("origin", "something else"))
            raise DirectoryForeignError(directory=self.directory, found=told, wanted=wanted)
        return str(found["tag"])

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Lock this directory against other runs, which would disconnect its devices. Raise `DirectoryInUseError`."""
        descriptor = take(self.directory / _LOCK, _PATIENCE)
        if descriptor is None:
            raise DirectoryInUseError(directory=self.directory)
        try:
            yield
        finally:
            os.close(descriptor)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the names without an identity file."""
        present = {entry.name for entry in os.scandir(self.directory)} if self.directory.exists() else set()
        return [name for name in names if f"{name}.pem" not in present]

    def find_unusable(self, names: Sequence[str], now: datetime) -> list[str]:
        """Return the names whose certificate has expired or was revoked in an earlier run."""
        revoked = _json_of(self.directory / _REVOKED)
        return [name for name in names if name in revoked or self.leaf_of(name).not_after <= now]

    def note_revoked(self, names: Sequence[str]) -> None:
        """Record the devices whose certificates are revoked; those with a newer certificate are excluded."""
        atomic_files.put(self.directory / _REVOKED, (json.dumps(dict.fromkeys(names, True)) + "\n").encode(), 0o600)

    def put(self, name: str, key: ec.EllipticCurvePrivateKey, chain: tuple[Certificate, ...]) -> None:
        """Write a device's key and chain, and replace existing ones."""
        atomic_files.put(self.path_of(name), (pem_of(key) + "".join(one.pem() for one in chain)).encode(), 0o600)

    def key_of(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return a device's key."""
        found = load_pem_private_key(plain_text(self.path_of(name).read_bytes()), None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.path_of(name)} contains no EC key")
        return found

    def leaf_of(self, name: str) -> Certificate:
        """Return a device's certificate."""
        return parse_bundle(self.path_of(name).read_bytes())[0]


@dataclass(frozen=True, slots=True)
class CaFactory:
    """Signs device certificates with a local CA."""

    issuer: LeafIssuer
    above: tuple[Certificate, ...]
    """Certificates that devices present after their own: the issuer, unless it is a root."""
    entropy: Entropy
    lifetime: timedelta

    @classmethod
    def of(cls, identities: Identities, entropy: Entropy, now: datetime) -> "CaFactory":
        """Return the user's CA, or the directory's CA, which the first use creates."""
        cert_file, key_file = ca_file(identities), identities.ca_key or identities.directory / CA_KEY
        if identities.ca_cert is None and not cert_file.exists():
            key = new_key()
            serial = new_serial(entropy)
            begun = now - _EXPIRED - _EXPIRED  # leaves time for expired certificates
            made = self_signed(
                certificate_profiles.ROOT, name_of(_OWN_CA), key, serial=serial, now=begun, lifetime=_CA_LIFE
            )
            atomic_files.put(key_file, pem_of(key).encode(), 0o600)
            atomic_files.put(cert_file, made.pem().encode(), 0o600)
        word = None if identities.passphrase_file is None else Pin.from_file(identities.passphrase_file)
        with about(cert_file):
            chain = parse_bundle(cert_file.read_bytes())
        held = _opened(key_file, word)
        own = next((one for one in chain if one.public_key() == held.public_key), None)
        if own is None:
            raise _no_pair(chain[0], cert_file, key_file)
        above = tuple(one for one in dict.fromkeys((own, *chain)) if not one.is_self_signed)
        return cls(LeafIssuer(own, as_private_key(held)), above, entropy, timedelta(seconds=identities.lifetime_s))

    def make(self, name: str, now: datetime, *, is_expired: bool = False) -> "tuple[Key, tuple[Certificate, ...]]":
        """Return a new key and its chain; an expired certificate was valid for a time within its CA's validity."""
        key = new_key()
        begun = max(now - _EXPIRED, self.issuer.certificate.not_before) if is_expired else now
        leaf = issue(
            certificate_profiles.DEVICE,
            name_of(name),
            key.public_key(),
            issuer=self.issuer,
            serial=new_serial(self.entropy),
            now=begun,
            lifetime=(now - begun) / 2 if is_expired else self.lifetime,
        )
        return key, (leaf, *self.above)


def ca_file(identities: Identities) -> Path:
    """Return the certificate file of the local CA."""
    return identities.ca_cert or identities.directory / CA_CERT


def _opened(key_file: Path, word: Pin | None) -> FileKey:
    """Return the key. Raise `PassphraseWrongError`, or `PinFileError` if white space in the file may be the cause."""
    try:
        return FileKey.load(key_file, word)
    except PassphraseWrongError as error:
        if word is not None:
            word.check_blanks()
        error.quote(
            fix=(
                "Write its passphrase to a file, for you alone: `(umask 077; set -C; cat > ca.passphrase)`, then type "
                "it, Enter and Ctrl-D. Then name that file with `--ca-passphrase-file ca.passphrase`."
            )
        )
        raise


def _no_pair(first: Certificate, cert_file: Path, key_file: Path) -> CertificateKeyMismatchError:
    error = CertificateKeyMismatchError(subject=first.subject_text, where=f"file {key_file}")
    error.quote(
        cause=f"No certificate in {cert_file} carries the public half of the key in {key_file}.",
        fix=(
            f"Give the key that this certificate was issued for. See both: `openssl x509 -in {quote(str(cert_file))} "
            f"-noout -subject -pubkey` and `openssl pkey -in {quote(str(key_file))} -pubout`."
        ),
    )
    return error


Key = ec.EllipticCurvePrivateKey


def _json_of(path: Path) -> dict[str, Any]:
    """Return the content of a JSON note; empty if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def new_key() -> Key:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def csr_of(name: str, key: Key) -> bytes:
    """Return a CSR in DER for a name, signed by the key."""
    request = CertificateSigningRequestBuilder(subject_name=name_of(name)).sign(key, SHA256())
    return request.public_bytes(Encoding.DER)


def pem_of(key: Key) -> str:
    """Return the key as PKCS#8 in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
