"""Directory with the CA's certificates and keys: the root and its subordinate CAs.

Layout: `root.pem`, `root.key`, `issuing.pem`, `issuing.key` (encrypted PKCS#8) and `passphrase`; `est`, `edge` and
`servers` like `issuing`, on demand. The directory is built under a temporary name and renamed, so that a crash leaves
all or nothing. A CA that is created later is valid once its certificate exists; its key is written first.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark import atomic_files
from birthmark.ca.hierarchy import Generation, Hierarchy
from birthmark.ca.hierarchy_files import (
    BELOW,
    HierarchyFiles,
    alone_in,
    below_root,
    finish,
    name_below,
    read_certificate,
    read_issuer,
)
from birthmark.ca.key_files import (
    SecretUnreadableError,
    check_directory,
    new_passphrase,
    read_private,
    write_key,
)
from birthmark.ca.passphrase_sources import BESIDE, Passphrase
from birthmark.ca.pkcs11_keys import TokenPlace
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import ConflictError, NotFoundError, UnavailableError
from birthmark.pki.certificate_profiles import ROOT, Purpose
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer, SigningKey, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import parse_common_name
from birthmark.pki.revocation_urls import DistributionPoints
from birthmark.untrusted_json_and_text import reason_of

UNNOTED = "of an earlier version"


class CaExistsError(ConflictError):
    """The directory contains a CA already, or is not empty."""

    code = "ca.exists"
    cause = "{path} already contains a CA."
    fix = "Use the existing CA, or choose another directory. To show the existing CA: `birthmark ca show --dir {path}`."
    path: Path


class CaMissingError(NotFoundError):
    """The directory contains no CA."""

    code = "ca.missing"
    cause = "{path} contains no CA."
    fix = "Create a CA first: `birthmark ca init --name 'My organization' --dir {path}`"
    path: Path


class CaWaitingError(NotFoundError):
    """The CA is waiting for the root's signed response."""

    code = "ca.waiting"
    cause = (
        "{path} contains a signing request for a root on another machine, but the signed response is not installed yet."
    )
    fix = (
        "Install the signed response: `birthmark ca install {purpose}.answer --dir {path}`. To create the response "
        "on the root's machine: `birthmark ca root sign {purpose}.csr --dir root-ca --out {purpose}.answer`. If the "
        "request is lost, create a new request: `birthmark ca request --purpose {purpose} --dir {path} --out "
        "{purpose}.csr`."
    )
    path: Path
    purpose: str


class CaLostError(UnavailableError):
    """The CA's directory is missing."""

    code = "ca.lost"
    cause = (
        "{path} is missing or empty, but the database belongs to the root {root}, the only root that the devices trust."
    )
    fix = (
        "Restore {path} from a backup of the data directory. Without a backup, start with another data directory and "
        "install the new root on every device: `{again} --data {data}.new`."
    )
    again: str = ""
    data: Path
    path: Path
    root: str


class CaForeignError(ConflictError):
    """The CA does not belong to the database."""

    code = "ca.foreign"
    cause = "{path} contains the root {found}, but the database belongs to the root {root}."
    fix = "Restore {path} and the database from the same backup of the data directory."
    for_a_person = "select a backup"
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
    points: DistributionPoints | None = None,
    passphrase: Passphrase | None = None,
    token: TokenPlace | None = None,
) -> Hierarchy:
    """Create a hierarchy named `name` in `directory`, its keys in files or in `token`.

    Raise `CaExistsError`.
    """
    if (directory / "root.pem").exists():
        raise CaExistsError(path=directory)
    parse_common_name(name)
    tag = entropy.token(3).hex().upper()  # a new CA with the same name must not be mistaken for this one
    root_key = ec.generate_private_key(ec.SECP256R1()) if token is None else token.make(f"root-{tag}")
    root = self_signed(
        ROOT, name_below(name, f"Root CA {tag}"), root_key, serial=new_serial(entropy), now=now, lifetime=lifetime
    )
    parts: list[tuple[Purpose, Certificate, SigningKey]] = [(Purpose.ROOT, root, root_key)]
    if not flat:
        above = LeafIssuer(root, root_key)
        below = below_root(Purpose.DEVICES, name, tag, root=above, now=now, entropy=entropy, points=points, token=token)
        parts.append((Purpose.DEVICES, *below))
    passphrase = passphrase or Passphrase(directory)
    _write(directory, parts, passphrase, entropy)
    return load(directory, passphrase)


def load(directory: Path, passphrase: Passphrase | None = None) -> Hierarchy:
    """Load a hierarchy; by default, its passphrase is in the directory.

    Raise `CaMissingError`, `CaWaitingError`, `PassphraseMissingError`, `SecretExposedError`, `SecretUnreadableError`.
    """
    if not (directory / "root.pem").exists():
        raise missing(directory)
    opened = passphrase or Passphrase(directory)
    with alone_in(directory):
        finish(directory)
    anchor = read_certificate(directory, Purpose.ROOT)
    root = read_issuer(directory, Purpose.ROOT, opened.reveal()) if (directory / "root.key").exists() else None
    there = [one for one in BELOW if (directory / f"{one}.pem").exists()]
    below = {one: read_issuer(directory, one, opened.reveal()) for one in there}
    if root is None and not below:
        raise SecretUnreadableError(path=directory / "root.key", reason="it is not there, and no other CA is")
    return Hierarchy(Generation(anchor, root, below, HierarchyFiles(directory, opened)))


def load_or_create(
    directory: Path,
    name: str,
    *,
    now: Callable[[], datetime],
    entropy: Entropy,
    root: str | None = None,
    points: DistributionPoints | None = None,
    passphrase: Passphrase | None = None,
) -> Hierarchy:
    """Load the hierarchy, or create it at first start.

    `root` is the thumbprint (hex) in the database, or a placeholder for a thumbprint that was never recorded; with
    either, no hierarchy is created. Raise `CaLostError`, `CaForeignError`, `CaWaitingError`.
    """
    if (directory / "root.pem").exists():
        check_directory(directory)
        found = load(directory, passphrase)
        thumbprint = found.anchor.thumbprint.hex()
        # A server creates both: the root must not replace a missing issuing CA.
        if not (directory / "issuing.pem").exists():
            raise CaLostError(path=directory / "issuing.pem", data=directory.parent, root=root or thumbprint)
        if root is not None and root not in {thumbprint, UNNOTED}:
            raise CaForeignError(path=directory, found=thumbprint, root=root)
        return found
    if root is not None:
        raise CaLostError(path=directory, data=directory.parent, root=root)
    if is_waiting(directory):
        raise CaWaitingError(path=directory, purpose=pending_purpose(directory))
    return create(directory, name, now=now(), entropy=entropy, points=points, passphrase=passphrase)


def is_waiting(directory: Path) -> bool:
    """Return whether a request to a root on another machine is pending for this directory."""
    return any((directory / f"{one}.pending").exists() for one in BELOW)


def pending_purpose(directory: Path, name: str = "") -> str:
    """Return the purpose of the pending request: `name` if it is one of several, or if none is pending."""
    waiting = [one for one in BELOW if (directory / f"{one}.pending").exists()] or list(BELOW)
    return name if name in waiting else waiting[0]


def missing(directory: Path) -> NotFoundError:
    """Return the error for a missing CA: pending or nonexistent."""
    return (
        CaWaitingError(path=directory, purpose=pending_purpose(directory))
        if is_waiting(directory)
        else CaMissingError(path=directory)
    )


def _write(
    directory: Path, parts: list[tuple[Purpose, Certificate, SigningKey]], passphrase: Passphrase, entropy: Entropy
) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.private_directory(directory.parent, f".{directory.name}.new") as building:
        if passphrase.is_in_key_directory:
            atomic_files.create(building / BESIDE, new_passphrase(entropy) + b"\n")
        secret = read_private(building / BESIDE).strip() if passphrase.is_in_key_directory else passphrase.reveal()
        for role, certificate, key in parts:
            write_key(building / f"{role}.key", key, secret)
            atomic_files.create(building / f"{role}.pem", certificate.pem().encode(), mode=0o644)
        try:
            building.replace(directory)
        except OSError as error:
            refused = CaExistsError(path=directory)
            refused.quote(cause=f"{directory} cannot become a CA's directory: {reason_of(error)}.")
            refused.quote(fix="Use a new directory: --dir.")
            raise refused from error
        atomic_files.sync_directory(directory.parent)
