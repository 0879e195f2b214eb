"""A root and the CAs below it, one for each purpose, as the rest of the program has them; two while one is exchanged.

Those of devices are there from the beginning. Another one is made when it is first needed, by whoever keeps the files
(`kept`); where the root's key is on another machine, by request and answer (`offline`). A flat generation has a root
only, which then signs everything itself.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from birthmark.clock import Entropy
from birthmark.errors import UnavailableError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate
from birthmark.pki.distribution_points import DistributionPoints, name_of_key
from birthmark.pki.issuance import LeafIssuer


class HierarchyStorage(Protocol):
    """Where certificates and keys are kept: durable on return, and safe against other processes."""

    def add(
        self,
        purpose: Purpose,
        root: LeafIssuer | None,
        *,
        now: datetime,
        entropy: Entropy,
        places: DistributionPoints | None = None,
    ) -> LeafIssuer:
        """Make the CA of a purpose; return the one that another process has made meanwhile.

        Raise `PurposeMissingError` when there is none and no root to sign it.
        """
        ...

    def pair(self, name: str, is_good: Callable[[LeafIssuer], bool], make: Callable[[], LeafIssuer]) -> LeafIssuer:
        """Return the certificate and key of that name, made anew when there is none or it is not good any more."""
        ...

    def root_list(self) -> bytes | None:
        """Return the root's revocation list (DER) that came from the machine where its key is."""
        ...


class RootAwayError(UnavailableError):
    """The root's key is on another machine."""

    code = "ca.root_away"
    cause = "The operation requires the key of '{subject}', which is not on this machine."
    fix = "Run it on the machine with that key: `{again}`."
    for_a_person = "the root's key is on another machine"
    again: str = "birthmark ca show"
    subject: str


class Generation:
    """A root and the CAs below it, each with its key; the root's may be on another machine."""

    __slots__ = ("_below", "_root", "anchor", "keeper")

    def __init__(
        self,
        anchor: Certificate,
        root: LeafIssuer | None,
        below: Mapping[Purpose, LeafIssuer],
        keeper: HierarchyStorage,
    ) -> None:
        self.anchor = anchor
        self._root = root
        self._below = dict(below)
        self.keeper = keeper

    def __repr__(self) -> str:
        return f"Generation({self.anchor.subject_text}, {', '.join(self._below)})"

    @property
    def has_root(self) -> bool:
        """The root's key is here."""
        return self._root is not None

    @property
    def root(self) -> LeafIssuer:
        """The root with its key. Raise `RootAwayError`."""
        if self._root is None:
            raise RootAwayError(subject=self.anchor.subject_text)
        return self._root

    @property
    def is_flat(self) -> bool:
        """The root signs everything itself."""
        return not self._below

    @property
    def issuing(self) -> LeafIssuer:
        """The CA of devices."""
        return self._below.get(Purpose.DEVICES) or self.root

    @property
    def issuers(self) -> Mapping[Purpose, LeafIssuer]:
        """Those whose keys are here."""
        return self._below if self._root is None else {**self._below, Purpose.ROOT: self._root}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every CA certificate there is, the devices' first and the root last."""
        return (*(issuer.certificate for issuer in self._below.values()), self.anchor)

    def issuer(
        self, purpose: Purpose, *, now: datetime, entropy: Entropy, places: DistributionPoints | None = None
    ) -> LeafIssuer:
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

    def with_key(self, certificate: Certificate) -> LeafIssuer | None:
        """Return a CA with its key, if that is here."""
        return next((one for one in self.issuers.values() if one.certificate == certificate), None)

    def above(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return what whoever trusts the root needs of an issuer's chain: it first, the root last."""
        return tuple(dict.fromkeys((issuer.certificate, self.anchor)))


class Hierarchy:
    """The CAs of an installation: those of the root that signs, and of another that is trusted beside it.

    While the root is exchanged (`rules.rollover`) there are two. `links` lead from one to the other: certificates of a
    root's key that the other root made. `bridge` is the one by which those that know the old root take the new.
    """

    __slots__ = ("_other", "_signing", "bridge", "links")

    def __init__(self, signing: Generation) -> None:
        self._signing = signing
        self._other: Generation | None = None
        self.links: tuple[Certificate, ...] = ()
        self.bridge: Certificate | None = None

    def __repr__(self) -> str:
        return f"Hierarchy({self._signing!r}, {self._other!r})"

    def become(
        self,
        signing: Generation,
        other: Generation | None = None,
        links: tuple[Certificate, ...] = (),
        bridge: Certificate | None = None,
    ) -> None:
        """Take over the state of an exchange, for all who hold this hierarchy."""
        self._signing, self._other, self.links, self.bridge = signing, other, links, bridge

    @property
    def generations(self) -> tuple[Generation, ...]:
        """The one that signs first."""
        return (self._signing,) if self._other is None else (self._signing, self._other)

    @property
    def anchor(self) -> Certificate:
        """The root that signs."""
        return self._signing.anchor

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        """Every root that is trusted, the one that signs first."""
        return tuple(one.anchor for one in self.generations)

    @property
    def keeper(self) -> HierarchyStorage:
        return self._signing.keeper

    @property
    def has_root(self) -> bool:
        """The key of the root that signs is here."""
        return self._signing.has_root

    @property
    def root(self) -> LeafIssuer:
        """The root that signs, with its key. Raise `RootAwayError`."""
        return self._signing.root

    @property
    def is_flat(self) -> bool:
        return self._signing.is_flat

    @property
    def issuing(self) -> LeafIssuer:
        """The CA of devices."""
        return self._signing.issuing

    @property
    def issuers(self) -> Mapping[str, LeafIssuer]:
        """Those whose keys are here: by purpose; of the other root by key identifier."""
        found: dict[str, LeafIssuer] = dict(self._signing.issuers.items())
        others = () if self._other is None else self._other.issuers.values()
        return found | {name_of_key(one.certificate): one for one in others}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every CA certificate there is, those that sign first."""
        return (*(one for generation in self.generations for one in generation.certificates), *self.links)

    def issuer(
        self, purpose: Purpose, *, now: datetime, entropy: Entropy, places: DistributionPoints | None = None
    ) -> LeafIssuer:
        """Return the CA that signs for `purpose`, made now if there is none yet."""
        return self._signing.issuer(purpose, now=now, entropy=entropy, places=places)

    def named(self, name: str) -> Certificate | None:
        """Return the CA of a purpose, or of a key identifier, as addresses have it."""
        found = (generation.named(name) for generation in self.generations)
        return next((one for one in found if one is not None), None)

    def with_key(self, certificate: Certificate) -> LeafIssuer | None:
        """Return a CA with its key, if that is here."""
        return next((one for one in self.issuers.values() if one.certificate == certificate), None)

    def above(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return what a holder of a certificate needs: its issuer first, then the roots and what leads between them."""
        return tuple(dict.fromkeys((issuer.certificate, *self.anchors, *self.links)))

    def presented(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return what a server presents above its own certificate, the end of the chain last.

        Not the new root where the bridge to it is shown: who knows the old one alone would take that for the end.
        """
        end = self.anchor if self.bridge is None else self.bridge
        return (end,) if issuer.certificate == self.anchor else (issuer.certificate, end)
