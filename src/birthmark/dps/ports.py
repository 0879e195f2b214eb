"""What DPS needs of others in the same unit of work: a device identity of a hub, a note in the CA's inventory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

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
    maker: str = ""
    """The registration it comes from, `dps:{scope}/{registration id}`; nobody else may take the identity over."""


class HubRegistry(Protocol):
    """The hubs behind the linked host names."""

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`.

        Raise `NotFoundError`, or `ForbiddenError` for a device that another made.
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
