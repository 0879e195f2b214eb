"""The CA's own certificates and keys in a directory: root, and an issuing CA below it.

Layout: `root.pem`, `root.key`, `issuing.pem`, `issuing.key` (encrypted PKCS#8) and `passphrase`. A flat CA has a root
only, which then signs devices itself. The directory is built beside its place and renamed into it, so a crash leaves
all or nothing.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.ca.keyfile import (
    SecretUnreadableError,
    check_directory,
    new_passphrase,
    read_key,
    read_owned,
    read_private,
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
from birthmark.pki.profiles import ISSUING_CA, ROOT

UNNOTED = "of an earlier version"
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


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A root and the CA that signs devices: the same one when the hierarchy is flat."""

    root: Issuer
    issuing: Issuer

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        return (self.root.certificate,)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every CA certificate, closest to the devices first."""
        if self.issuing.certificate == self.root.certificate:
            return self.anchors
        return (self.issuing.certificate, self.root.certificate)


def create(
    directory: Path,
    name: str,
    *,
    now: datetime,
    entropy: Entropy,
    flat: bool = False,
    lifetime: timedelta | None = None,
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
    parts: list[tuple[str, Certificate, SigningKey]] = [("root", root, root_key)]
    if not flat:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name, f"Issuing CA {tag}")
        above = Issuer(root, root_key)
        made = issue(ISSUING_CA, subject, key.public_key(), issuer=above, serial=new_serial(entropy), now=now)
        parts.append(("issuing", made, key))
    _write(directory, parts, new_passphrase(entropy))
    issuers = [Issuer(certificate, key) for _, certificate, key in parts]
    return Hierarchy(issuers[0], issuers[-1])


def load(directory: Path) -> Hierarchy:
    """Read a hierarchy. Raise `CaMissingError`, `SecretExposedError`, `SecretUnreadableError`."""
    if not (directory / "root.pem").exists():
        raise CaMissingError(path=directory)
    passphrase = read_private(directory / _PASSPHRASE).strip()
    root = _read(directory, "root", passphrase)
    issuing = _read(directory, "issuing", passphrase) if (directory / "issuing.pem").exists() else root
    return Hierarchy(root, issuing)


def load_or_create(
    directory: Path, name: str, *, now: Callable[[], datetime], entropy: Entropy, root: str | None = None
) -> Hierarchy:
    """Read the hierarchy, or make it at the first start.

    `root` is the thumbprint (hex) that the database remembers, or a word for one that was never noted: then nothing is
    made, only found. Raise `CaLostError`, `CaForeignError`.
    """
    if (directory / "root.pem").exists():
        check_directory(directory)
        found = load(directory)
        thumbprint = found.root.certificate.thumbprint.hex()
        if found.issuing == found.root:  # a server makes both: without the issuing CA the root must not stand in
            raise CaLostError(path=directory / "issuing.pem", data=directory.parent, root=root or thumbprint)
        if root is not None and root not in {thumbprint, UNNOTED}:
            raise CaForeignError(path=directory, found=thumbprint, root=root)
        return found
    if root is not None:
        raise CaLostError(path=directory, data=directory.parent, root=root)
    return create(directory, name, now=now(), entropy=entropy)


def _name(organization: str, role: str) -> x509.Name:
    """Return O=organization, CN=organization role; the organization is cut, the role is kept."""
    room = 64 - len(role) - 1
    short = organization.encode()[:room].decode(errors="ignore")
    return name_of(f"{short} {role}", organization)


def _write(directory: Path, parts: list[tuple[str, Certificate, SigningKey]], passphrase: bytes) -> None:
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
