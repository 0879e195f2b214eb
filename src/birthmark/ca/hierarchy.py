"""A root and the CAs below it, one for each purpose, as the rest of the program has them.

Those of devices are there from the beginning. Another one is made when it is first needed, by whoever keeps the files
(`directory`). A flat hierarchy has a root only, which then signs everything itself.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from birthmark.clock import Entropy
from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer
from birthmark.pki.places import Places, name_of_key
from birthmark.pki.profiles import Purpose


class Keeper(Protocol):
    """Where certificates and keys are kept: durable on return, and safe against other processes."""

    def add(
        self, purpose: Purpose, root: Issuer, *, now: datetime, entropy: Entropy, places: Places | None = None
    ) -> Issuer:
        """Make the CA of a purpose; return the one that another process has made meanwhile."""
        ...

    def pair(self, name: str, is_good: Callable[[Issuer], bool], make: Callable[[], Issuer]) -> Issuer:
        """Return the certificate and key of that name, made anew when there is none or it is not good any more."""
        ...


class Hierarchy:
    """The CAs of an installation, each with its key."""

    __slots__ = ("_below", "keeper", "root")

    def __init__(self, root: Issuer, below: Mapping[Purpose, Issuer], keeper: Keeper) -> None:
        self.root = root
        self._below = dict(below)
        self.keeper = keeper

    def __repr__(self) -> str:
        return f"Hierarchy({self.root.certificate.subject_text}, {', '.join(self._below)})"

    @property
    def is_flat(self) -> bool:
        """The root signs everything itself."""
        return not self._below

    @property
    def issuing(self) -> Issuer:
        """The CA of devices."""
        return self._below.get(Purpose.DEVICES, self.root)

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        return (self.root.certificate,)

    @property
    def issuers(self) -> Mapping[Purpose, Issuer]:
        """Those there are, the root among them."""
        return {**self._below, Purpose.ROOT: self.root}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every CA certificate there is, the devices' first and the root last."""
        return tuple(issuer.certificate for issuer in self.issuers.values())

    def issuer(self, purpose: Purpose, *, now: datetime, entropy: Entropy, places: Places | None = None) -> Issuer:
        """Return the CA that signs for `purpose`, made now if there is none yet."""
        if purpose is Purpose.ROOT or self.is_flat:
            return self.root
        if (known := self._below.get(purpose)) is None:
            known = self._below[purpose] = self.keeper.add(purpose, self.root, now=now, entropy=entropy, places=places)
        return known

    def named(self, name: str) -> Issuer | None:
        """Return the CA of a purpose, or of a key identifier, as addresses have it."""
        return next(
            (one for purpose, one in self.issuers.items() if name in {purpose, name_of_key(one.certificate)}), None
        )

    def above(self, issuer: Issuer) -> tuple[Certificate, ...]:
        """Return what whoever trusts the root needs of an issuer's chain: it first, the root last."""
        return tuple(dict.fromkeys((issuer.certificate, self.root.certificate)))
