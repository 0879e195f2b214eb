"""Dependencies of DPS in one unit of work: a hub's device, an inventory entry, a certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from birthmark.ca.cloud_device_issuance import Also, CertificateOrder
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.store import Changes


class CertificateInventory(Protocol):
    """Certificates that this installation's CA issued, and revoked certificates of any CA."""

    async def check(self, leaf: Certificate, bag: Sequence[Certificate]) -> None:
        """Raise if a certificate, presented with others, is known to be revoked."""
        ...

    async def is_devices_own(self, ca: Certificate) -> bool:
        """Return whether a CA certificate was issued to a device, which must not introduce others with it."""
        ...

    async def is_lost(self, name: str) -> bool:
        """Return whether a name was revoked with its device."""
        ...

    def registered(self, certificate: Certificate, now: datetime) -> Changes:
        """Return the changes that record the certificate that a device registered with."""
        ...


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """Credentials of a registered device at its hub."""

    thumbprints: tuple[Thumbprint, ...] = ()
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    iot_edge: bool = False
    twin: Mapping[str, Any] | None = None
    """Initial twin, if the device is new to the hub."""
    fresh: Thumbprint | None = None
    """The last of the thumbprints, if just issued: the others are removed when the device connects with it."""
    keeps: bool = False
    """Whether an existing device keeps its credentials."""
    maker: str = ""
    """The registration that created it, `dps:{scope}/{registration id}`."""
    proved: tuple[bytes, ...] = field(default=(), repr=False)
    """Thumbprints or keys with which the device is enrolled or proved its group membership."""
    is_individual: bool = False
    """Whether an operator enrolled this device individually: it may take over the device of another registration."""


@dataclass(frozen=True, slots=True)
class HubDeviceStatus:
    """Certificates with which a device connects to its hub."""

    in_use: Thumbprint | None = None
    fresh: Thumbprint | None = None
    """An issued certificate that has not connected yet."""


class HubRegistry(Protocol):
    """The hubs behind the linked host names."""

    async def get_device_status(self, host: str, device_id: str) -> HubDeviceStatus:
        """Return the certificates with which the device connects to the hub at `host`; none if it does not exist."""
        ...

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that create or update `device_id` at the hub at `host`.

        Raise `NotFoundError`, or `ForbiddenError` for a device that another registration holds.
        """
        ...

    async def move(
        self, device_id: str, present: str, target: str, identity: HubIdentity, now: datetime, *, with_twin: bool
    ) -> Changes:
        """Return the changes that move a device from the hub at `present` to the one at `target`, atomically.

        The twin moves with the device, or starts as in `identity`. A disabled device stays disabled in both cases, and
        its connections to the old hub are closed. If `present` is no hub of this server, or has no such device, the
        device is created at the target. Raise the errors of `provision`.
        """
        ...

    def check_twin(self, name: str, twin: Mapping[str, Any]) -> None:
        """Check an initial twin; raise `InvalidRequestError`. `name` is its device or enrollment."""
        ...

    async def has(self, host: str, device_id: str) -> bool:
        """Return whether a hub of this server with this name has the device."""
        ...

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device that `maker` created at the hub; none without such a device."""
        ...


class CertificateIssuer(Protocol):
    """Issues certificates to devices that register."""

    def check_policy(self, policy: str) -> None:
        """Raise `IssuingPolicyUnknownError` unless the policy can issue device certificates."""
        ...

    async def is_good(self, thumbprint: Thumbprint) -> bool:
        """Return whether a certificate was issued here, is valid and is not revoked."""
        ...

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        """Return the new certificate and its issuers, the root last, after it is stored.

        The changes that `also` returns for them are part of the same commit. Raise the CA's errors, or `ConflictError`.
        """
        ...
