"""Generations of the CA in a data directory: `ca`, and `ca-TAG` for each root created by a rollover.

A newer generation also has `new-with-old.pem`, the cross-certificate of its root's key by the previous root, and
`old-with-new.pem`, the reverse (RFC 4210 section 4.4).
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from birthmark import atomic_files
from birthmark.ca import ca_directory
from birthmark.ca.ca_directory import CaLostError
from birthmark.ca.cross_certificates import NEW_WITH_OLD, OLD_WITH_NEW, link
from birthmark.ca.hierarchy import Generation, RootAwayError
from birthmark.ca.hierarchy_files import PurposeMissingError, alone_in, organization_of, read_certificate
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.pkcs11_keys import place_of
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.issuance import LeafIssuer
from birthmark.pki.revocation_urls import DistributionPoints

FIRST, ABANDONED = "ca", "abandoned"


def directories_of(data: Path) -> list[Path]:
    """Return the directories with a root; the first generation's may be offline after a rollover."""
    return [one for one in (data / FIRST, *sorted(data.glob(f"{FIRST}-*"))) if (one / "root.pem").exists()]


def directory_of(data: Path, root: str | None) -> Path:
    """Return the directory of the root with this thumbprint (hex); the first generation's if there is none."""
    for directory in directories_of(data):
        with suppress(BirthmarkError):
            if read_certificate(directory, Purpose.ROOT).thumbprint.hex() == root:
                return directory
    return data / FIRST


@dataclass(slots=True)
class Generations:
    """Opens and creates generations; `first` is the generation that is already open, with its passphrase."""

    data: Path
    first: Generation
    passphrase: Passphrase = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    places: DistributionPoints | None = None
    _open: dict[Thumbprint, Generation] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._open[self.first.anchor.thumbprint] = self.first

    def generation(self, root: Thumbprint) -> Generation:
        """Return the generation with this root. Raise `CaLostError`."""
        if (known := self._open.get(root)) is None:
            directory = directory_of(self.data, root.hex())
            found = self._load(directory) if (directory / "root.pem").exists() else None
            if found is None or found.anchor.thumbprint != root:
                raise CaLostError(path=directory, data=self.data, root=root.hex())
            known = self._open[root] = found
        return known

    def make(self, old: Generation) -> Generation:
        """Return a successor of `old`: a prepared one, one of an interrupted start, or a new one.

        Raise `RootAwayError`, and `PurposeMissingError` for a generation with an offline root that lacks a required CA.
        """
        found = None
        for directory in sorted(self.data.glob(f"{FIRST}-*")):
            with suppress(BirthmarkError):
                later = read_certificate(directory, Purpose.ROOT)
                is_left = (directory / ABANDONED).exists()
                if later.not_before >= old.anchor.not_before and later != old.anchor and not is_left:
                    found = directory
        if found is None:
            root = _with_key(old)
            found = self.data / f"{FIRST}-{self.entropy.token(3).hex()}"
            name, now = organization_of(old.anchor.subject), self.clock.now()
            passphrase = self.passphrase.of(found)
            ca_directory.create(
                found,
                name,
                now=now,
                entropy=self.entropy,
                points=self.places,
                passphrase=passphrase,
                token=place_of(root.private_key),
            )
        made = self._open[self._load(found).anchor.thumbprint] = self._load(found)
        with alone_in(found):
            self._link(found, NEW_WITH_OLD, made.anchor, old)
            self._link(found, OLD_WITH_NEW, old.anchor, made)
        if not made.has_root:  # must exist before, if it cannot be created on signing
            for purpose in {*old.issuers, Purpose.SERVERS} - {*made.issuers, Purpose.ROOT}:
                raise PurposeMissingError(path=found, purpose=purpose)
        return made

    def abandon(self, root: Thumbprint) -> None:
        """Mark a generation as abandoned: the next start of a rollover creates another one."""
        directory = directory_of(self.data, root.hex())
        if directory.name != FIRST:
            atomic_files.replace(directory / ABANDONED, b"")

    def links(self, new: Generation) -> tuple[Certificate, Certificate]:
        """Return both cross-certificates: the new root's key by the old root, and the reverse."""
        directory = directory_of(self.data, new.anchor.thumbprint.hex())
        return read_certificate(directory, NEW_WITH_OLD), read_certificate(directory, OLD_WITH_NEW)

    def _link(self, directory: Path, name: str, of: Certificate, by: Generation) -> None:
        with suppress(BirthmarkError):
            if read_certificate(directory, name).issuer_der == by.anchor.subject_der:
                return
        made = link(of, _with_key(by), now=self.clock.now(), entropy=self.entropy)
        atomic_files.replace(directory / f"{name}.pem", made.pem().encode(), mode=0o644)

    def _load(self, directory: Path) -> Generation:
        (generation,) = ca_directory.load(directory, self.passphrase.of(directory)).generations
        return generation


def _with_key(generation: Generation) -> LeafIssuer:
    """Return a generation's root with its key.

    Raise `RootAwayError`, with the commands for the machine that has the key.
    """
    try:
        return generation.root
    except RootAwayError as error:
        error.add_facts(again="birthmark ca root link root-ca --dir next-root-ca --out links.pem")
        raise
