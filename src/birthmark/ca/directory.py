"""The CA's own certificates and keys in a directory: the root, and the CAs below it.

Layout: `root.pem`, `root.key`, `issuing.pem`, `issuing.key` (encrypted PKCS#8) and `passphrase`; `est`, `edge` and
`servers` like `issuing` as soon as they are needed. The directory is built beside its place and renamed into it, so a
crash leaves all or nothing; what is made later counts from the moment its certificate is there, the key before it.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.keyfile import (
    SecretUnreadableError,
    check_directory,
    key_pem,
    new_passphrase,
    read_key,
    read_owned,
    read_pair,
    read_private,
    replace_private,
    sync_directory,
    write_durable,
    write_key,
    write_private,
)
from birthmark.clock import Entropy
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from birthmark.pki.certificates import Certificate, parse_pem
from birthmark.pki.issue import Issuer, SigningKey, issue, new_serial, self_signed
from birthmark.pki.names import name_of, parse_common_name
from birthmark.pki.places import Places
from birthmark.pki.profiles import EDGE_ISSUING_CA, ISSUING_CA, ROOT, Profile, Purpose

UNNOTED = "of an earlier version"
BELOW: Mapping[Purpose, tuple[str, Profile]] = {
    Purpose.DEVICES: ("Issuing CA", ISSUING_CA),
    Purpose.EST: ("EST CA", ISSUING_CA),
    Purpose.EDGE: ("Edge CA", EDGE_ISSUING_CA),
    Purpose.SERVERS: ("Servers CA", ISSUING_CA),
}
"""What the root signs: how each is called, and its profile."""
_PASSPHRASE = "passphrase"  # noqa: S105 - a file name


class CaExistsError(ConflictError):
    """There is a CA already, or the directory is not empty."""

    code = "ca.exists"
    cause = "{path} holds a CA already."
    fix = "Use it: `birthmark ca show --dir {path}`. Else give another directory."
    path: Path


class CaMissingError(NotFoundError):
    """There is no CA here."""

    code = "ca.missing"
    cause = "{path} holds no CA."
    fix = "Make one first: `birthmark ca init --name 'My organization' --dir {path}`"
    path: Path


class CaLostError(UnavailableError):
    """The CA is lost."""

    code = "ca.lost"
    cause = (
        "{path} is missing or empty, and the database belongs to the root {root}; every device trusts that one alone."
    )
    fix = (
        "Restore {path} from a backup of the data directory. Without one, begin anew with another directory, and give "
        "every device its root: `{again} --data {data}.new`."
    )
    again: str = ""
    data: Path
    path: Path
    root: str


class CaForeignError(ConflictError):
    """The CA is another one."""

    code = "ca.foreign"
    cause = "{path} holds the root {found}, but the database belongs to the root {root}."
    fix = "Restore {path} and the database from the same backup of the data directory: they belong together."
    for_a_person = "a backup has to be found"
    found: str
    path: Path
    root: str


def create(
    directory: Path,
    name: str,
    *,
    now: datetime,
    entropy: Entropy,
    flat: bool = False,
    lifetime: timedelta | None = None,
    places: Places | None = None,
) -> Hierarchy:
    """Make a hierarchy named after `name` in `directory`. Raise `CaExistsError`."""
    if (directory / "root.pem").exists():
        raise CaExistsError(path=directory)
    parse_common_name(name)
    tag = entropy.token(3).hex().upper()  # a CA made again under the same name must not be mistaken for this one
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = self_signed(
        ROOT, _name(name, f"Root CA {tag}"), root_key, serial=new_serial(entropy), now=now, lifetime=lifetime
    )
    parts: list[tuple[Purpose, Certificate, SigningKey]] = [(Purpose.ROOT, root, root_key)]
    if not flat:
        above = Issuer(root, root_key)
        below = _below(Purpose.DEVICES, name, tag, root=above, now=now, entropy=entropy, places=places)
        parts.append((Purpose.DEVICES, *below))
    _write(directory, parts, new_passphrase(entropy))
    return load(directory)


def load(directory: Path) -> Hierarchy:
    """Read a hierarchy. Raise `CaMissingError`, `SecretExposedError`, `SecretUnreadableError`."""
    if not (directory / "root.pem").exists():
        raise CaMissingError(path=directory)
    passphrase = read_private(directory / _PASSPHRASE).strip()
    root = _read(directory, Purpose.ROOT, passphrase)
    there = [one for one in BELOW if (directory / f"{one}.pem").exists()]
    return Hierarchy(root, {one: _read(directory, one, passphrase) for one in there}, Kept(directory))


def load_or_create(
    directory: Path,
    name: str,
    *,
    now: Callable[[], datetime],
    entropy: Entropy,
    root: str | None = None,
    places: Places | None = None,
) -> Hierarchy:
    """Read the hierarchy, or make it at the first start.

    `root` is the thumbprint (hex) that the database remembers, or a word for one that was never noted: then nothing is
    made, only found. Raise `CaLostError`, `CaForeignError`.
    """
    if (directory / "root.pem").exists():
        check_directory(directory)
        found = load(directory)
        thumbprint = found.root.certificate.thumbprint.hex()
        # A server makes both: without the issuing CA the root must not stand in.
        if not (directory / "issuing.pem").exists():
            raise CaLostError(path=directory / "issuing.pem", data=directory.parent, root=root or thumbprint)
        if root is not None and root not in {thumbprint, UNNOTED}:
            raise CaForeignError(path=directory, found=thumbprint, root=root)
        return found
    if root is not None:
        raise CaLostError(path=directory, data=directory.parent, root=root)
    return create(directory, name, now=now(), entropy=entropy, places=places)


def _name(organization: str, role: str) -> x509.Name:
    """Return O=organization, CN=organization role; the organization is cut, the role is kept."""
    room = 64 - len(role) - 1
    short = organization.encode()[:room].decode(errors="ignore")
    return name_of(f"{short} {role}", organization)


def _below(
    purpose: Purpose,
    organization: str,
    tag: str,
    *,
    root: Issuer,
    now: datetime,
    entropy: Entropy,
    places: Places | None,
) -> tuple[Certificate, SigningKey]:
    """Return the certificate and the key of a new CA below the root."""
    title, profile = BELOW[purpose]
    key = ec.generate_private_key(ec.SECP256R1())
    subject, serial = _name(organization, f"{title} {tag}"), new_serial(entropy)
    return issue(profile, subject, key.public_key(), issuer=root, serial=serial, now=now, places=places), key


class Kept:
    """The files of a directory, as a hierarchy asks for them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(
        self, purpose: Purpose, root: Issuer, *, now: datetime, entropy: Entropy, places: Places | None = None
    ) -> Issuer:
        """Make the CA of a purpose where there is none; one that another process made meanwhile is taken."""
        directory = self._directory
        passphrase = read_private(directory / _PASSPHRASE).strip()
        with _alone_in(directory):
            if not (directory / f"{purpose}.pem").exists():
                organization = root.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
                name = str(organization[0].value) if organization else "CA"
                tag = entropy.token(3).hex().upper()
                certificate, key = _below(purpose, name, tag, root=root, now=now, entropy=entropy, places=places)
                (directory / f"{purpose}.key").unlink(missing_ok=True)  # of a process that was killed before its use
                write_key(directory / f"{purpose}.key", key, passphrase)
                write_durable(directory / f"{purpose}.pem", certificate.pem().encode(), mode=0o644)
            return _read(directory, purpose, passphrase)

    def pair(self, name: str, is_good: Callable[[Issuer], bool], make: Callable[[], Issuer]) -> Issuer:
        """Return what is kept in one file, so that certificate and key are always of each other."""
        path = self._directory / f"{name}.pem"
        passphrase = read_private(self._directory / _PASSPHRASE).strip()
        with _alone_in(self._directory):
            with suppress(SecretUnreadableError):
                kept = read_pair(path, passphrase)
                if is_good(kept):
                    return kept
            made = make()
            replace_private(path, key_pem(made.private_key, passphrase) + made.certificate.pem().encode())
            return made


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes from making the same meanwhile; the kernel lets go when this one ends."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(directory: Path, parts: list[tuple[Purpose, Certificate, SigningKey]], passphrase: bytes) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(building, ignore_errors=True)  # of a start that was killed
    building.mkdir(mode=0o700)
    write_private(building / _PASSPHRASE, passphrase + b"\n")
    for role, certificate, key in parts:
        write_key(building / f"{role}.key", key, passphrase)
        write_durable(building / f"{role}.pem", certificate.pem().encode(), mode=0o644)
    try:
        building.replace(directory)
        sync_directory(directory.parent)
    except OSError as error:
        shutil.rmtree(building)
        raise CaExistsError(path=directory) from error


def _read(directory: Path, role: str, passphrase: bytes) -> Issuer:
    path = directory / f"{role}.pem"
    try:
        certificate = parse_pem(read_owned(path))
    except InvalidRequestError as error:
        raise SecretUnreadableError(path=path, reason="the certificate cannot be read") from error
    key = read_key(directory / f"{role}.key", passphrase)
    if key.public_key() != certificate.public_key():
        raise SecretUnreadableError(path=path, reason="it belongs to another key")
    return Issuer(certificate, key)
