"""A root and its subordinate CAs by purpose, as other packages use them; two during a root rollover.

The device CAs exist from the start. Others are created on demand by the storage (`hierarchy_files`); if the root key is
on another machine, by an exchange of files (`offline_root`). A flat generation has only a root, which signs everything
itself.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from birthmark.clock_and_entropy import Entropy
from birthmark.errors import UnavailableError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer
from birthmark.pki.revocation_urls import DistributionPoints, name_of_key


class HierarchyStorage(Protocol):
    """Storage of certificates and keys: durable on return, and safe against concurrent processes."""

    def add(
        self,
        purpose: Purpose,
        root: LeafIssuer | None,
        *,
        now: datetime,
        entropy: Entropy,
        points: DistributionPoints | None = None,
    ) -> LeafIssuer:
        """Create the issuing CA of a purpose; return the existing one if another process created it first.

        Raise `PurposeMissingError` when it does not exist and there is no root to sign it.
        """
        ...

    def pair(self, name: str, is_good: Callable[[LeafIssuer], bool], make: Callable[[], LeafIssuer]) -> LeafIssuer:
        """Return the certificate and key with that name; create new ones if they are missing or not usable."""
        ...

    def root_list(self) -> bytes | None:
        """Return the root's CRL (DER), imported from the machine with its key."""
        ...


class RootAwayError(UnavailableError):
    """The root's key is on another machine."""

    code = "ca.root_away"
    cause = "The operation requires the key of '{subject}', which is not on this machine."
    fix = "Run the command on the machine that has the key: `{again}`."
    for_a_person = "use the machine that has the root's key"
    again: str = "birthmark ca show"
    subject: str


class Generation:
    """A root and its issuing CAs, each with its key; the root's key may be on another machine."""

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
        """Whether the root's key is available here."""
        return self._root is not None

    @property
    def root(self) -> LeafIssuer:
        """The root with its key. Raise `RootAwayError`."""
        if self._root is None:
            raise RootAwayError(subject=self.anchor.subject_text)
        return self._root

    @property
    def is_flat(self) -> bool:
        """Whether the root signs everything itself."""
        return not self._below

    @property
    def issuing(self) -> LeafIssuer:
        """The CA that issues device certificates."""
        return self._below.get(Purpose.DEVICES) or self.root

    @property
    def issuers(self) -> Mapping[Purpose, LeafIssuer]:
        """CAs whose keys are available here."""
        return self._below if self._root is None else {**self._below, Purpose.ROOT: self._root}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All CA certificates, device CAs first, root last."""
        return (*(issuer.certificate for issuer in self._below.values()), self.anchor)

    def issuer(
        self, purpose: Purpose, *, now: datetime, entropy: Entropy, points: DistributionPoints | None = None
    ) -> LeafIssuer:
        """Return the CA that signs for `purpose`; create it on demand."""
        if purpose is Purpose.ROOT or self.is_flat:
            return self.root
        if (known := self._below.get(purpose)) is None:
            known = self._below[purpose] = self.keeper.add(purpose, self._root, now=now, entropy=entropy, points=points)
        return known

    def named(self, name: str) -> Certificate | None:
        """Return the CA certificate of a purpose or key identifier, as used in URLs, or None."""
        by_purpose = {purpose: one.certificate for purpose, one in self._below.items()} | {Purpose.ROOT: self.anchor}
        return next((one for purpose, one in by_purpose.items() if name in {purpose, name_of_key(one)}), None)

    def with_key(self, certificate: Certificate) -> LeafIssuer | None:
        """Return a CA with its key, or None if the key is not available here."""
        return next((one for one in self.issuers.values() if one.certificate == certificate), None)

    def above(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return the chain from an issuer to the root, issuer first."""
        return tuple(dict.fromkeys((issuer.certificate, self.anchor)))


class Hierarchy:
    """CAs of an installation: those of the signing root, and of another trusted root.

    There are two roots during a root rollover (`rules.rollover`). `links` are the cross-certificates between them.
    `bridge` is the cross-certificate by which clients that trust the old root accept the new one.
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
        """Apply the state of a rollover to this shared hierarchy."""
        self._signing, self._other, self.links, self.bridge = signing, other, links, bridge

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Generations, the signing one first."""
        return (self._signing,) if self._other is None else (self._signing, self._other)

    @property
    def anchor(self) -> Certificate:
        """The root that signs."""
        return self._signing.anchor

    @property
    def anchors(self) -> tuple[Certificate, ...]:
        """All trusted roots, the signing one first."""
        return tuple(one.anchor for one in self.generations)

    @property
    def keeper(self) -> HierarchyStorage:
        return self._signing.keeper

    @property
    def has_root(self) -> bool:
        """Whether the signing root's key is available here."""
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
        """The CA that issues device certificates."""
        return self._signing.issuing

    @property
    def issuers(self) -> Mapping[str, LeafIssuer]:
        """CAs whose keys are available here: by purpose, or by key identifier for the other root."""
        found: dict[str, LeafIssuer] = dict(self._signing.issuers.items())
        others = () if self._other is None else self._other.issuers.values()
        return found | {name_of_key(one.certificate): one for one in others}

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All CA certificates, the signing generation's first."""
        return (*(one for generation in self.generations for one in generation.certificates), *self.links)

    def issuer(
        self, purpose: Purpose, *, now: datetime, entropy: Entropy, points: DistributionPoints | None = None
    ) -> LeafIssuer:
        """Return the CA that signs for `purpose`; create it on demand."""
        return self._signing.issuer(purpose, now=now, entropy=entropy, points=points)

    def named(self, name: str) -> Certificate | None:
        """Return the CA certificate of a purpose or key identifier, as used in URLs, or None."""
        found = (generation.named(name) for generation in self.generations)
        return next((one for one in found if one is not None), None)

    def with_key(self, certificate: Certificate) -> LeafIssuer | None:
        """Return a CA with its key, or None if the key is not available here."""
        return next((one for one in self.issuers.values() if one.certificate == certificate), None)

    def above(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return the CA certificates for a certificate holder.

        The issuer is first, then the roots and cross-certificates.
        """
        return tuple(dict.fromkeys((issuer.certificate, *self.anchors, *self.links)))

    def presented(self, issuer: LeafIssuer) -> tuple[Certificate, ...]:
        """Return the CA certificates that a server sends after its own, in order.

        With the cross-certificate, the new root is left out. A client that trusts only the old root would take the new
        root for the end of the chain.
        """
        end = self.anchor if self.bridge is None else self.bridge
        return (end,) if issuer.certificate == self.anchor else (issuer.certificate, end)
