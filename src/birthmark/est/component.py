"""EST as a component of a server."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from shlex import join

from birthmark import metric_catalog
from birthmark.ca.service import CertificateAuthority
from birthmark.devices.model import DevicePart, RevocationOutcome, RevokedPart
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, RevocationOrder
from birthmark.errors import BACKTICK, shell_word
from birthmark.est.service import EstCredentials, EstService, RegistrationAuthorities
from birthmark.est.service.approvals import EnrollmentApprovals
from birthmark.metric_catalog import Sample
from birthmark.pki.names_and_registration_ids import fold
from birthmark.protocol_component import Component


@dataclass(frozen=True, slots=True)
class EstDeviceRecords(DeviceRecords):
    """Device records of EST."""

    authority: CertificateAuthority = field(repr=False)
    credentials: EstCredentials = field(repr=False)
    approvals: EnrollmentApprovals = field(repr=False)
    registrars: RegistrationAuthorities = field(repr=False)

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for name in device.folded:
            for user in await self.credentials.of_device(name):
                yield DevicePart("est", "token" if user.is_one_time else "user", user.name, "good", "")
            for request in await self.approvals.of_name(name):
                states = {None: "waits", True: "approved", False: "rejected"}
                yield DevicePart("est", "request", request.id, states[request.is_approved], "")

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for name in order.device.folded:
            async for one in self._credentials(name, order):
                yield one
        for registrar in await self.registrars.all():
            thumbprint = registrar.certificate.thumbprint
            order.shared.add(thumbprint)
            issued = await self.authority.find(thumbprint)
            if issued is not None and fold(issued.device_id) in order.device.folded:
                remove = partial(self.registrars.remove, thumbprint, actor=order.actor)
                note = "certificates that it requested for other names remain valid"
                yield DeviceAccess("est", "registration authority", thumbprint.hex(), remove, note=note)

    async def _credentials(self, name: str, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        revocations = self.authority.revocations
        since = await revocations.lost_since(name)
        word = f"-- {shell_word(name)}" if name.startswith("-") else shell_word(name)
        release = f"birthmark pki release {word}".replace("`", BACKTICK)
        note = f"no certificates are issued for this name until it is released: `{release}`"
        if since is not None:
            note = f"held since {since:%Y-%m-%d %H:%M:%S} UTC; {note}"
        revoke = partial(revocations.lose, name, order.principal, order.reason) if since is None else None
        # A revoked name proves an earlier revocation, whatever remains of the device.
        yield DeviceAccess("est", "name", name, revoke, note=note, is_record=since is not None)
        for user in await self.credentials.of_device(name):
            remove = partial(self.credentials.remove_user, user.name, actor=order.actor)
            yield DeviceAccess("est", "token" if user.is_one_time else "user", user.name, remove)
        for request in await self.approvals.of_name(name):
            reject = partial(self.approvals.decide, request.id, is_approved=False, actor=order.actor)
            yield DeviceAccess("est", "request", request.id, None if request.is_approved is False else reject)

    async def shared_access(self) -> Sequence[RevokedPart]:
        users = [("user", "user", user.name) for user in await self.credentials.for_all()]
        cas = [
            ("bootstrap CA", "maker", one.certificate.thumbprint.hex())
            for one in await self.credentials.bootstrap_cas()
            if one.any_name
        ]
        return [
            RevokedPart("est", what, id_, RevocationOutcome.LEFT, "for every name", _removal(noun, id_))
            for what, noun, id_ in (*users, *cas)
        ]


def _removal(noun: str, name: str) -> str:
    return f"`{join(['birthmark', 'pki', noun, 'rm', name, '--yes']).replace('`', BACKTICK)}`"


class EstComponent(Component):
    """The EST server as a component of a server."""

    service = "est"

    def __init__(self, est: EstService, devices: EstDeviceRecords) -> None:
        self.devices = devices
        self._est = est

    def samples(self) -> Iterable[Sample]:
        return (Sample(metric_catalog.RENEWED, (), self._est.renewals),)
