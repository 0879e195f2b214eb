"""What DPS needs of others in one unit of work: a device of a hub, a note in the CA's inventory, a certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from birthmark.ca.certificate_orders import Also, CertificateOrder
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.store import Changes


class CertificateInventory(Protocol):
    """What this installation's own CA has issued, and taken back of any."""

    async def check(self, leaf: Certificate, bag: Sequence[Certificate]) -> None:
        """Return for a certificate, shown with others, that was not revoked as far as is known; else raise."""
        ...

    async def is_devices_own(self, ca: Certificate) -> bool:
        """Say whether a CA was issued to a device, which may not speak for others by it."""
        ...

    async def is_lost(self, name: str) -> bool:
        """Say whether a name was taken back with its device."""
        ...

    def registered(self, certificate: Certificate, now: datetime) -> Changes:
        """Return the changes that note a certificate by which a device registered."""
        ...


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """How a device that registered proves itself to its hub."""

    thumbprints: tuple[Thumbprint, ...] = ()
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    iot_edge: bool = False
    twin: Mapping[str, Any] | None = None
    """What its twin begins with, where it is new to the hub."""
    fresh: Thumbprint | None = None
    """The last of the thumbprints, where it was issued just now: the others go when it connects."""
    keeps: bool = False
    """Whether a device that is there goes on proving itself as it does."""
    maker: str = ""
    """The registration it comes from, `dps:{scope}/{registration id}`."""
    proved: tuple[bytes, ...] = field(default=(), repr=False)
    """By which thumbprints or keys it is enrolled, or showed that it is of its group."""
    is_individual: bool = False
    """Whether an operator enrolled this very device: its registration may take over one that another made."""


@dataclass(frozen=True, slots=True)
class HubDeviceStatus:
    """By which certificates a device connects to its hub."""

    in_use: Thumbprint | None = None
    fresh: Thumbprint | None = None
    """One that was issued and has not connected yet."""


class HubRegistry(Protocol):
    """The hubs behind the linked host names."""

    async def standing(self, host: str, device_id: str) -> HubDeviceStatus:
        """Return by which certificates the device connects to the hub at `host`; none where there is no such device."""
        ...

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`.

        Raise `NotFoundError`, or `ForbiddenError` for a device that another holds.
        """
        ...

    async def move(
        self, device_id: str, present: str, wanted: str, identity: HubIdentity, now: datetime, *, with_twin: bool
    ) -> Changes:
        """Return the changes that take a device from the hub at `present` to the one at `wanted`, whole or not at all.

        Its twin goes along, or else begins as `identity` says; that an operator switched it off goes along either way,
        and its connections to the old hub end. Where that is no hub of ours, or has no such device, it is new at the
        other. Raise what `provision` does.
        """
        ...

    def check_twin(self, name: str, twin: Mapping[str, Any]) -> None:
        """Return for what a twin may begin with; raise `InvalidRequestError`. `name` is whose it is."""
        ...

    async def has(self, host: str, device_id: str) -> bool:
        """Say whether there is such a device, at a hub of ours of that name."""
        ...

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device `maker` made at the hub; none where there is no such device."""
        ...


class CertificateIssuer(Protocol):
    """Issues certificates to devices that register."""

    def check_policy(self, policy: str) -> None:
        """Return for a policy by which devices may be issued certificates; else raise `IssuingPolicyUnknownError`."""
        ...

    async def is_good(self, thumbprint: Thumbprint) -> bool:
        """Say whether a certificate was issued here, is alive and was not taken back."""
        ...

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        """Return the new certificate and those above it, the root last, once it is on record.

        What `also` returns for them is part of the same commit. Raise what the CA does, or `ConflictError`.
        """
        ...
