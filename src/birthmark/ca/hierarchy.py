"""A root and the CAs below it, one for each purpose, as the rest of the program has them.

Those of devices are there from the beginning. Another one is made when it is first needed, by whoever keeps the files
(`kept`); where the root's key is on another machine, by request and answer (`offline`). A flat hierarchy has a root
only, which then signs everything itself.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from birthmark.clock import Entropy
from birthmark.errors import UnavailableError
from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer
from birthmark.pki.places import Places, name_of_key
from birthmark.pki.profiles import Purpose


class Keeper(Protocol):
    """Where certificates and keys are kept: durable on return, and safe against other processes."""

    def add(
        self, purpose: Purpose, root: Issuer | None, *, now: datetime, entropy: Entropy, places: Places | None = None
    ) -> Issuer:
        """Make the CA of a purpose; return the one that another process has made meanwhile.

        Raise `PurposeMissingError` when there is none and no root to sign it.
        """
        ...

    def pair(self, name: str, is_good: Callable[[Issuer], bool], make: Callable[[], Issuer]) -> Issuer:
        """Return the certificate and key of that name, made anew when there is none or it is not good any more."""
        ...

    def root_list(self) -> bytes | None:
        """Return the root's revocation list (DER) that came from the machine where its key is."""
        ...


class RootAwayError(UnavailableError):
    """The root's key is on another machine."""

    code = "ca.root_away"
    cause = "The key of '{subject}' is not here, and only it can do this."
    fix = "Do it on the machine where that key is: `{again}`."
    for_a_person = "the root's key is on another machine"
    again: str = "birthmark ca show"
    subject: str


class Hierarchy:
    """The CAs of an installation, each with its key; the root's may be on another machine."""

    __slots__ = ("_below", "_root", "anchor", "keeper")

    def __init__(
        self, anchor: Certificate, root: Issuer | None, below: Mapping[Purpose, Issuer], keeper: Keeper
    ) -> None:
        self.anchor = anchor
        self._root = root
        self._below = dict(below)
        self.keeper = keeper

    def __repr__(self) -> str:
        return f"Hierarchy({self.anchor.subject_text}, {', '.join(self._below)})"

    @property
    def has_root(self) -> bool:
        """The root's key is here."""
        return self._root is not None

    @property
    def root(self) -> Issuer:
        """The root with its key. Raise `RootAwayError`."""
        if self._root is None:
            raise RootAwayError(subject=self.anchor.subject_text)
        return self._root

    @property
    def is_flat(self) -> bool:
        """The root signs everything itself."""
        return not self._below

    @property
    def issuing(self) -> Issuer:
        """The CA of devices."""
        return self._below.get(Purpose.DEVICES) or self.root

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        return (self.anchor,)

    @property
    def issuers(self) -> Mapping[Purpose, Issuer]:
        """Those whose keys are here."""
        return self._below if self._root is None else {**self._below, Purpose.ROOT: self._root}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every CA certificate there is, the devices' first and the root last."""
        return (*(issuer.certificate for issuer in self._below.values()), self.anchor)

    def issuer(self, purpose: Purpose, *, now: datetime, entropy: Entropy, places: Places | None = None) -> Issuer:
        """Return the CA that signs for `purpose`, made now if there is none yet."""
        if purpose is Purpose.ROOT or self.is_flat:
            return self.root
        if (known := self._below.get(purpose)) is None:
            known = self._below[purpose] = self.keeper.add(purpose, self._root, now=now, entropy=entropy, places=places)
        return known

    def named(self, name: str) -> Certificate | None:
        """Return the CA of a purpose, or of a key identifier, as addresses have it."""
        by_purpose = {purpose: one.certificate for purpose, one in self._below.items()} | {Purpose.ROOT: self.anchor}
        return next((one for purpose, one in by_purpose.items() if name in {purpose, name_of_key(one)}), None)

    def with_key(self, certificate: Certificate) -> Issuer | None:
        """Return a CA with its key, if that is here."""
        return next((one for one in self.issuers.values() if one.certificate == certificate), None)

    def above(self, issuer: Issuer) -> tuple[Certificate, ...]:
        """Return what whoever trusts the root needs of an issuer's chain: it first, the root last."""
        return tuple(dict.fromkeys((issuer.certificate, self.anchor)))
