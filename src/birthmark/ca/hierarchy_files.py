"""Files of a hierarchy; a CA that is created later is valid once its certificate exists."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from birthmark import atomic_files, flock
from birthmark.ca.key_files import (
    SecretUnreadableError,
    is_in_file,
    key_pem,
    read_key,
    read_owned,
    read_pair,
    write_key,
)
from birthmark.ca.passphrase_sources import BESIDE, Passphrase
from birthmark.ca.pkcs11_keys import TokenPlace, place_of
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import InvalidRequestError, UnavailableError
from birthmark.keys.key_handle import PublicKey
from birthmark.pki.certificate_profiles import EDGE_ISSUING_CA, ISSUING_CA, CertificateProfile, Purpose
from birthmark.pki.certificates import Certificate, parse_pem
from birthmark.pki.issuance import LeafIssuer, SigningKey, issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.revocation_urls import DistributionPoints

BELOW: Mapping[Purpose, tuple[str, CertificateProfile]] = {
    Purpose.DEVICES: ("Issuing CA", ISSUING_CA),
    Purpose.EST: ("EST CA", ISSUING_CA),
    Purpose.EDGE: ("Edge CA", EDGE_ISSUING_CA),
    Purpose.SERVERS: ("Servers CA", ISSUING_CA),
}
"""Subordinate CAs: name and profile of each."""
ROOT_LIST = "root.crl"
MARK, NEXT = ".moving", ".next"
"""Files with the suffix `NEXT` replace the current ones once `MARK` exists (`rekey`)."""
_PATIENCE, _PAUSE_S = 200, 0.05  # ten seconds: a waiting server does nothing more


class CaBusyError(UnavailableError):
    """Another process has locked this CA's directory."""

    code = "ca.busy"
    cause = "Process {pid} locked {path} to create or move keys, and did not finish within 10 s."
    fix = (
        "If the process is suspended, resume it: `kill -CONT {pid}`. If the process hangs, for example at a token, "
        "end it: `kill {pid}`. Then retry: the next process completes the unfinished work."
    )
    path: Path
    pid: int | str


class PurposeMissingError(UnavailableError):
    """The issuing CA is missing, and the root's key is on another machine."""

    code = "ca.purpose_missing"
    cause = "{path} contains neither an issuing CA for {purpose} nor the root's key to create one."
    fix = (
        "Have the root sign an issuing CA. To create a request on this machine: `birthmark ca request --purpose "
        "{purpose} --dir {path} --out {purpose}.csr`. To sign the request on the root's machine: `birthmark ca root "
        "sign {purpose}.csr --dir root-ca --out {purpose}.answer`. To install the response on this machine: "
        "`birthmark ca install {purpose}.answer --dir {path}`."
    )
    path: Path
    purpose: str


def below_root(
    purpose: Purpose,
    organization: str,
    tag: str,
    *,
    root: LeafIssuer,
    now: datetime,
    entropy: Entropy,
    points: DistributionPoints | None,
    token: TokenPlace | None = None,
) -> tuple[Certificate, SigningKey]:
    """Create a CA below the root, and return its certificate and key."""
    title, profile = BELOW[purpose]
    key = ec.generate_private_key(ec.SECP256R1()) if token is None else token.make(f"{purpose}-{tag}")
    subject, serial = name_below(organization, f"{title} {tag}"), new_serial(entropy)
    return issue(profile, subject, key.public_key(), issuer=root, serial=serial, now=now, points=points), key


class HierarchyFiles:
    """Storage of a hierarchy in the files of a directory."""

    def __init__(self, directory: Path, passphrase: Passphrase) -> None:
        self._directory = directory
        self._passphrase = passphrase

    def add(
        self,
        purpose: Purpose,
        root: LeafIssuer | None,
        *,
        now: datetime,
        entropy: Entropy,
        points: DistributionPoints | None = None,
    ) -> LeafIssuer:
        """Create the issuing CA of a purpose if it does not exist; use one that another process created first.

        Raise `SecretUnreadableError` if the passphrase of the keys changed.
        """
        directory = self._directory
        passphrase = self._passphrase.reveal()
        with alone_in(directory):
            finish(directory)
            if not (directory / f"{purpose}.pem").exists():
                _check_opens(directory, passphrase)
                if root is None:
                    raise PurposeMissingError(path=directory, purpose=purpose)
                tag, name = entropy.token(3).hex().upper(), organization_of(root.certificate.subject)
                place = place_of(root.private_key)
                certificate, key = below_root(
                    purpose, name, tag, root=root, now=now, entropy=entropy, points=points, token=place
                )
                (directory / f"{purpose}.key").unlink(missing_ok=True)  # left by a process killed before use
                write_key(directory / f"{purpose}.key", key, passphrase)
                atomic_files.create(directory / f"{purpose}.pem", certificate.pem().encode(), mode=0o644)
            return read_issuer(directory, purpose, passphrase)

    def root_list(self) -> bytes | None:
        """Return the installed CRL of the root, or None."""
        path = self._directory / ROOT_LIST
        return path.read_bytes() if path.exists() else None

    def pair(self, name: str, is_good: Callable[[LeafIssuer], bool], make: Callable[[], LeafIssuer]) -> LeafIssuer:
        """Return certificate and key from a single file, so that they always match.

        There is no lock: of two concurrent processes each has a valid pair, and the later one is stored.
        """
        path = self._directory / f"{name}.pem"
        passphrase = self._passphrase.reveal()
        with suppress(SecretUnreadableError):
            kept = read_pair(path, passphrase)
            if is_good(kept):
                return kept
        made = make()
        atomic_files.replace(path, key_pem(made.private_key, passphrase) + made.certificate.pem().encode())
        return made


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Lock a directory against other processes; the kernel releases the lock when this process ends.

    Raise `CaBusyError`.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_PATIENCE):
            if flock.try_lock(descriptor):
                break
            time.sleep(_PAUSE_S)
        else:
            raise CaBusyError(path=directory, pid=flock.holder(directory) or "?")
        yield
    finally:
        os.close(descriptor)


def finish(directory: Path) -> None:
    """Complete a marked file replacement; do nothing without a mark."""
    mark = directory / MARK
    if not mark.exists():
        return
    is_in_key_directory = mark.read_bytes() == b"beside"
    for path in sorted(directory.glob(f".*{NEXT}")):
        path.replace(directory / path.name.removeprefix(".").removesuffix(NEXT))
    if not is_in_key_directory:
        (directory / BESIDE).unlink(missing_ok=True)
    atomic_files.sync_directory(directory)
    mark.unlink()
    atomic_files.sync_directory(directory)


def organization_of(subject: x509.Name) -> str:
    """Return the organization in a CA's subject."""
    found = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else "CA"


def name_below(organization: str, role: str) -> x509.Name:
    """Return O=organization, CN=organization role; the organization is truncated, the role is not."""
    room = 64 - len(role) - 1
    short = organization.encode()[:room].decode(errors="ignore")
    return name_of(f"{short} {role}", organization)


def _check_opens(directory: Path, passphrase: bytes) -> None:
    """Raise `SecretUnreadableError` if the passphrase of the keys has changed."""
    for path in directory.glob("*.key"):
        if path.with_suffix(".pem").exists() and is_in_file(path):
            read_key(path, passphrase)


def read_certificate(directory: Path, role: str) -> Certificate:
    """Return a CA's certificate. Raise `SecretUnreadableError`."""
    path = directory / f"{role}.pem"
    try:
        return parse_pem(read_owned(path))
    except InvalidRequestError as error:
        raise SecretUnreadableError(path=path, reason="the certificate cannot be read") from error


def read_issuer(directory: Path, role: str, passphrase: bytes) -> LeafIssuer:
    """Return a CA with its key. Raise `SecretUnreadableError`, `SecretExposedError`."""
    certificate = read_certificate(directory, role)
    key = read_key(directory / f"{role}.key", passphrase, cast("PublicKey", certificate.public_key()))
    if key.public_key() != certificate.public_key():
        raise SecretUnreadableError(path=directory / f"{role}.pem", reason="it belongs to another key")
    return LeafIssuer(certificate, key)
