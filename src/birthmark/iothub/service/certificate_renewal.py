"""Device certificates issued by the hub, each replacing the one of the current connection.

A request is stored before it is accepted and ends with the commit that issues. If the server is killed between the two,
the device connects as before and requests again. A request in progress is a row, so it is visible to every worker.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from birthmark.ca.cloud_device_issuance import Also, CertificateOrder
from birthmark.ca.model import key_digest
from birthmark.ca.rules.issuance_eligibility import KeyTakenError
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ConflictError
from birthmark.iothub import store
from birthmark.iothub.model import Credential, Device, DeviceId, Hub
from birthmark.iothub.rules.certificate_renewal import (
    LASTS,
    CredentialBusyError,
    CredentialReplacedError,
    NoCredentialPolicyError,
    add_new_certificate,
    check_is_alone,
    check_name,
    check_own,
    find_unused,
    is_repeated,
    keep_new_certificate,
)
from birthmark.iothub.service.registry import Registry
from birthmark.iothub.wire import CredentialRequest
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.store import Changes, Database, from_micros, to_micros

_ATTEMPTS = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IssuanceGrant:
    """The policy and names of a device's certificates, and the write guard of the grant."""

    policy: str
    names: tuple[str, ...]
    while_granted: Changes


class Grants(Protocol):
    """Source of issuance grants."""

    async def of(self, device: Device) -> IssuanceGrant:
        """Return the issuance grant of a device. Raise `NoCredentialPolicyError`."""
        ...


class HubIssuer(Protocol):
    """The CA functions that a hub needs."""

    async def is_good(self, thumbprint: Thumbprint) -> bool:
        """Return whether a certificate was issued here, is valid and not revoked."""
        ...

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        """Issue a certificate and return its chain, root last, once it is stored together with `also`."""
        ...

    def usage_changes(self, certificate: Certificate, now: datetime) -> Changes:
        """Return changes that record the use of a certificate."""
        ...


@dataclass(frozen=True, slots=True)
class AcceptedIssuance:
    """A request in progress; `chain` where it was already answered."""

    hub: Hub
    device_id: str
    generation_id: str
    asked: CredentialRequest
    request_id: str
    version: str
    expires_at: datetime
    leaf: Certificate | None
    chain: tuple[str, ...] | None = None


class NewDevice(NamedTuple):
    """A device that is about to be created."""

    hub: str
    device_id: DeviceId
    generation_id: str


class _MissingIssuer:
    async def of(self, device: Device) -> IssuanceGrant:
        detail = "no provisioning service issues certificates"
        raise NoCredentialPolicyError(device_id=device.device_id, hub=device.hub, detail=detail)


class CertificateRequests:
    """Certificate requests of all devices of all hubs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        registry: Registry,
        *,
        issuer: HubIssuer | None = None,
        grants: Grants | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._registry = registry
        self.grants = grants or _MissingIssuer()
        self.issuer = issuer
        self.count = 0

    def session(self) -> str:
        """Return a session id for a connection that makes requests."""
        return self._entropy.token(8).hex()

    async def accept(
        self,
        hub: Hub,
        device: Device,
        leaf: Certificate | None,
        request: CredentialRequest,
        *,
        request_id: str,
        session: str,
    ) -> AcceptedIssuance:
        """Store a device's request and return it for `finish`. `device` and `leaf` are the connection's.

        Raise `OtherDeviceError`, `CredentialBusyError` and similar errors.
        """

        async def decide() -> AcceptedIssuance:
            # Before the device: an issuance in between changes this, and the commit requires it unchanged.
            known = await self.known(hub, device.device_id)
            present = await self._get_current(hub, device)
            check_own(present, request)
            check_name(present, request, (await self.grants.of(present)).names)
            now = self._clock.now()
            runs_until = now if known is None or known.expires_at is None else from_micros(known.expires_at)
            check_is_alone(known, request, session, to_micros(now), runs_until)
            expires_at = now + LASTS
            version = self._entropy.token(8).hex()
            base = (hub, device.device_id, device.generation_id, request, request_id, version, expires_at, leaf)
            if (chain := await self._made_before(present, known, request, now)) is not None:
                return AcceptedIssuance(*base, chain)
            unused = find_unused(present, known)
            claimed = replace(
                unused or Credential(hub.name, device.device_id, device.generation_id, version),
                version=version,
                request_id=request_id,
                session=session,
                expires_at=to_micros(expires_at),
            )
            await self._database.commit(self._still(present).merge(_written(claimed, known)))
            return AcceptedIssuance(*base)

        return await _retry_on_conflict(decide)

    async def finish(self, accepted: AcceptedIssuance) -> tuple[str, ...]:
        """Issue the certificate of an accepted request and return its chain.

        Raise `CredentialReplacedError`, or the CA's refusal.
        """
        if accepted.chain is not None:
            return accepted.chain
        try:
            chain = await _retry_on_conflict(lambda: self._issue(accepted))
        except BirthmarkError:
            await self._abandon(accepted)
            raise
        self.count += 1
        return chain

    async def _issue(self, accepted: AcceptedIssuance) -> tuple[str, ...]:
        hub, asked, leaf = accepted.hub, accepted.asked, accepted.leaf
        device = await self._registry.device(hub, accepted.device_id)
        known = await self.known(hub, device.device_id)
        if known is None or known.version != accepted.version or device.generation_id != accepted.generation_id:
            raise CredentialReplacedError(device_id=accepted.device_id, hub=hub.name, request_id=accepted.request_id)
        check_own(device, asked)
        grant = await self.grants.of(device)
        check_name(device, asked, grant.names)
        unused = find_unused(device, known)
        told: tuple[str, ...] = ()
        assert self.issuer is not None  # noqa: S101 - issuance is enabled

        async def also(chain: Sequence[Certificate]) -> Changes:
            nonlocal told
            told = tuple(base64.b64encode(one.der).decode() for one in chain)
            fresh, now = chain[0].thumbprint, self._clock.now()
            done = Credential(
                *(hub.name, device.device_id, device.generation_id, self._entropy.token(8).hex()),
                thumbprint=fresh,
                key_digest=key_digest(asked.csr.spki_der),
                issued_at=to_micros(now),
                chain=told,
            )
            changes = self._registry.replace_credentials(device, add_new_certificate(device, leaf, fresh), now)
            changes.merge(_written(done, known)).merge(_copy_changes(grant.while_granted))
            return changes.audit(
                "device",
                "iothub.credential_issue",
                device.device_id,
                hub=hub.name,
                thumbprint=fresh.hex(),
                request=accepted.request_id,
            )

        on_record = (device.authentication.primary_thumbprint, device.authentication.secondary_thumbprint)
        mine = {Thumbprint(one) for one in on_record if one is not None}
        supersedes = None if unused is None or unused.thumbprint is None else Thumbprint(unused.thumbprint)
        await self.issuer.issue(CertificateOrder(asked.csr, grant.policy, device.maker, leaf, mine, supersedes), also)
        return told

    async def used(self, hub: Hub, device: Device, leaf: Certificate) -> None:
        """Handle a connection with the second certificate: if it is the new one, remove the old one."""
        known = await self.known(hub, device.device_id)
        unused = find_unused(device, known)
        if known is None or unused is None or unused.thumbprint != leaf.thumbprint:
            return
        old, now = device.authentication.primary_thumbprint, self._clock.now()
        changes = self._registry.replace_credentials(device, keep_new_certificate(device), now)
        changes.run(store.DROP_CREDENTIAL, expect=1, hub=device.hub, device_id=device.device_id, version=known.version)
        replaced = None if old in {None, leaf.thumbprint} else old
        changes.audit(
            "device",
            "iothub.credential_use",
            device.device_id,
            hub=device.hub,
            thumbprint=leaf.thumbprint.hex(),
            replaces=None if replaced is None else replaced.hex(),
        )
        if self.issuer is not None:
            changes.merge(self.issuer.usage_changes(leaf, now))
        try:
            await self._database.commit(changes)
        except ConflictError:  # a second connection or a concurrent change; the next connection retries
            return

    async def known(self, hub: Hub, device_id: str) -> Credential | None:
        """Return the credential record of a device id, which may belong to an earlier device of that name."""
        row = await self._database.one(store.GET_CREDENTIAL, hub=hub.name, device_id=device_id)
        return None if row is None else store.CREDENTIALS.of(row)

    def record_registration(
        self, device: Device | NewDevice, credential: Credential | None, fresh: bytes, now: datetime
    ) -> Changes:
        """Return changes that record a certificate issued at registration; `credential` is the existing record."""
        version = self._entropy.token(8).hex()
        base = (device.hub, device.device_id, device.generation_id, version)
        return _written(Credential(*base, thumbprint=fresh, issued_at=to_micros(now)), credential)

    async def _get_current(self, hub: Hub, device: Device) -> Device:
        """Return the current device. Raise `UnknownDeviceError` if it was deleted or re-created."""
        await self._registry.check_is_there(hub, device)
        return await self._registry.device(hub, device.device_id)

    async def _made_before(
        self, device: Device, credential: Credential | None, request: CredentialRequest, now: datetime
    ) -> tuple[str, ...] | None:
        unused = find_unused(device, credential)
        if unused is None or not unused.chain or unused.thumbprint is None or self.issuer is None:
            return None
        leaf = parse_der(base64.b64decode(unused.chain[0]))
        if not is_repeated(unused, key_digest(request.csr.spki_der), leaf.not_after, now):
            return None
        return unused.chain if await self.issuer.is_good(Thumbprint(unused.thumbprint)) else None

    def _still(self, device: Device) -> Changes:
        return Changes().run(
            store.SAME_GENERATION,
            expect=1,
            key_hub=device.hub,
            key_device_id=device.device_id,
            key_generation_id=device.generation_id,
        )

    async def _abandon(self, accepted: AcceptedIssuance) -> None:
        """Abandon a request that ends with a refusal; the record of an earlier issuance stays."""
        known = await self.known(accepted.hub, accepted.device_id)
        if known is None or known.version != accepted.version:
            return
        version = self._entropy.token(8).hex()
        free = replace(known, version=version, request_id=None, session=None, expires_at=None)
        try:
            await self._database.commit(_written(free, known))
        except ConflictError:  # another request replaced it
            return


async def _retry_on_conflict(decide: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `decide`, retried after write conflicts; refusals are raised at once."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return await decide()
        except (CredentialBusyError, CredentialReplacedError, KeyTakenError):
            raise
        except ConflictError:
            continue
    return await decide()


def _written(credential: Credential, existing: Credential | None) -> Changes:
    row = store.CREDENTIALS.row(credential)
    if existing is None:
        return Changes().run(store.ADD_CREDENTIAL, **row)
    key = {f"key_{name}": row.pop(name) for name in ("hub", "device_id")}
    return Changes().run(store.CHANGE_CREDENTIAL, expect=1, **key, key_version=existing.version, **row)


def _copy_changes(changes: Changes) -> Changes:
    """Return a copy for a retried commit, as a commit consumes its changes."""
    return Changes().merge(changes)
