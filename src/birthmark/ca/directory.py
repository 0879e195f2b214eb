"""The CA's own certificates and keys in a directory: the root, and the CAs below it.

Layout: `root.pem`, `root.key`, `issuing.pem`, `issuing.key` (encrypted PKCS#8) and `passphrase`; `est`, `edge` and
`servers` like `issuing` as soon as they are needed. The directory is built beside its place and renamed into it, so a
crash leaves all or nothing; what is made later counts from the moment its certificate is there, the key before it.
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
from birthmark.ca.passphrase import BESIDE, Passphrase
from birthmark.ca.token_keys import TokenPlace
from birthmark.clock import Entropy
from birthmark.errors import ConflictError, NotFoundError, UnavailableError
from birthmark.pki.certificate_profiles import ROOT, Purpose
from birthmark.pki.certificates import Certificate
from birthmark.pki.distribution_points import DistributionPoints
from birthmark.pki.issuance import LeafIssuer, SigningKey, new_serial, self_signed
from birthmark.pki.names import parse_common_name
from birthmark.untrusted_text import reason_of

UNNOTED = "of an earlier version"


class CaExistsError(ConflictError):
    """The directory contains a CA already, or is not empty."""

    code = "ca.exists"
    cause = "{path} contains a CA already."
    fix = "Use it: `birthmark ca show --dir {path}`. Otherwise, use another directory."
    path: Path


class CaMissingError(NotFoundError):
    """The directory contains no CA."""

    code = "ca.missing"
    cause = "{path} contains no CA."
    fix = "Create one first: `birthmark ca init --name 'My organization' --dir {path}`"
    path: Path


class CaWaitingError(NotFoundError):
    """The CA is waiting for the root's signed response."""

    code = "ca.waiting"
    cause = "{path} contains a signing request for a root on another machine; its signed response is not installed yet."
    fix = (
        "Install it: `birthmark ca install {purpose}.answer --dir {path}`. On the root's machine, this command "
        "creates it: `birthmark ca root sign {purpose}.csr --dir root-ca --out {purpose}.answer`. If the request is "
        "lost, create another: `birthmark ca request --purpose {purpose} --dir {path} --out {purpose}.csr`."
    )
    path: Path
    purpose: str


class CaLostError(UnavailableError):
    """The CA's directory is missing."""

    code = "ca.lost"
    cause = (
        "{path} is missing or empty, and the database belongs to the root {root}, the only root that the devices trust."
    )
    fix = (
        "Restore {path} from a backup of the data directory. Without a backup, start with another directory and "
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
    for_a_person = "a backup must be selected"
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
    places: DistributionPoints | None = None,
    passphrase: Passphrase | None = None,
    token: TokenPlace | None = None,
) -> Hierarchy:
    """Make a hierarchy named after `name` in `directory`, its keys in files or `token`. Raise `CaExistsError`."""
    if (directory / "root.pem").exists():
        raise CaExistsError(path=directory)
    parse_common_name(name)
    tag = entropy.token(3).hex().upper()  # a CA made again under the same name must not be mistaken for this one
    root_key = ec.generate_private_key(ec.SECP256R1()) if token is None else token.make(f"root-{tag}")
    root = self_signed(
        ROOT, name_below(name, f"Root CA {tag}"), root_key, serial=new_serial(entropy), now=now, lifetime=lifetime
    )
    parts: list[tuple[Purpose, Certificate, SigningKey]] = [(Purpose.ROOT, root, root_key)]
    if not flat:
        above = LeafIssuer(root, root_key)
        below = below_root(Purpose.DEVICES, name, tag, root=above, now=now, entropy=entropy, places=places, token=token)
        parts.append((Purpose.DEVICES, *below))
    passphrase = passphrase or Passphrase(directory)
    _write(directory, parts, passphrase, entropy)
    return load(directory, passphrase)


def load(directory: Path, passphrase: Passphrase | None = None) -> Hierarchy:
    """Read a hierarchy, whose passphrase lies in the directory unless said otherwise.

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
    places: DistributionPoints | None = None,
    passphrase: Passphrase | None = None,
) -> Hierarchy:
    """Read the hierarchy, or make it at the first start.

    `root` is the thumbprint (hex) that the database remembers, or a word for one that was never noted: then nothing is
    made, only found. Raise `CaLostError`, `CaForeignError`, `CaWaitingError`.
    """
    if (directory / "root.pem").exists():
        check_directory(directory)
        found = load(directory, passphrase)
        thumbprint = found.anchor.thumbprint.hex()
        # A server makes both: without the issuing CA the root must not stand in.
        if not (directory / "issuing.pem").exists():
            raise CaLostError(path=directory / "issuing.pem", data=directory.parent, root=root or thumbprint)
        if root is not None and root not in {thumbprint, UNNOTED}:
            raise CaForeignError(path=directory, found=thumbprint, root=root)
        return found
    if root is not None:
        raise CaLostError(path=directory, data=directory.parent, root=root)
    if is_waiting(directory):
        raise CaWaitingError(path=directory, purpose=purpose_that_waits(directory))
    return create(directory, name, now=now(), entropy=entropy, places=places, passphrase=passphrase)


def is_waiting(directory: Path) -> bool:
    """Say whether a root on another machine was asked for what is to be here."""
    return any((directory / f"{one}.pending").exists() for one in BELOW)


def purpose_that_waits(directory: Path, name: str = "") -> str:
    """Return the purpose that a root was asked for: `name` where it is one of several, or none waits."""
    waiting = [one for one in BELOW if (directory / f"{one}.pending").exists()] or list(BELOW)
    return name if name in waiting else waiting[0]


def missing(directory: Path) -> NotFoundError:
    """Return what says why there is no CA."""
    return (
        CaWaitingError(path=directory, purpose=purpose_that_waits(directory))
        if is_waiting(directory)
        else CaMissingError(path=directory)
    )


def _write(
    directory: Path, parts: list[tuple[Purpose, Certificate, SigningKey]], passphrase: Passphrase, entropy: Entropy
) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with atomic_files.directory_beside(directory.parent, f".{directory.name}.new") as building:
        if passphrase.is_beside:
            atomic_files.create(building / BESIDE, new_passphrase(entropy) + b"\n")
        secret = read_private(building / BESIDE).strip() if passphrase.is_beside else passphrase.reveal()
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
