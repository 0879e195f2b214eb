"""What DPS needs of a hub: a device identity, in the same unit of work as the registration."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.store import Changes

RevocationCheck = Callable[[Certificate, Sequence[Certificate]], Awaitable[None]]
"""Returns for a certificate, shown with others, that was not revoked as far as this installation knows; else raises."""


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """How a device that registered proves itself to its hub."""

    thumbprints: tuple[Thumbprint, ...] = ()
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    iot_edge: bool = False
    maker: str = ""
    """The registration it comes from, `dps:{scope}/{registration id}`; nobody else may take the identity over."""


class HubRegistry(Protocol):
    """The hubs behind the linked host names."""

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`.

        Raise `NotFoundError`, or `ForbiddenError` for a device that another made.
        """
        ...

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device `maker` made at the hub; none where there is no such device."""
        ...
