"""What each room knows of a device, and what takes it back there.

The doors come first, so that nothing new is got while the rest is taken: the name, passwords and tokens, what waits for
approval, enrollments. Then hub devices, which ends what is connected there, as there are few; certificates and keys, of
which there may be very many; things' certificates, and last what is still connected.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from birthmark.auth.principals import Principal
from birthmark.awsiot.model import CertificateStatus
from birthmark.ca.model import Issued
from birthmark.ca.revocation import AlreadyRevokedError
from birthmark.dps.model import TAKEN_BACK, Instance
from birthmark.errors import BACKTICK, BirthmarkError, shell_word
from birthmark.iothub.model import Hub
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl import RevocationReason
from birthmark.pki.names import fold, parse_registration_id
from birthmark.server.losing.open import end_everywhere, open_elsewhere, open_here
from birthmark.server.on_record import names_of, presented_by
from birthmark.server.rooms import Rooms

Key = tuple[str, str, str]
"""Place, kind and id of one thing."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing by which the device comes in. Without `act` it was taken back before, or is left."""

    place: str
    what: str
    id: str
    act: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    note: str = ""
    command: str = ""
    is_record: bool = True
    """Whether it shows that the device is known here; what stands in the way of a name does not."""
    is_left: bool = False
    """It is not this device's alone: whoever knows it decides."""

    @property
    def key(self) -> Key:
        return self.place, self.what, self.id


_WHY = "taken back: "
_MAX_THINGS = 10


@dataclass(slots=True)
class Looking:
    """One look at a device, through all rooms."""

    rooms: Rooms = field(repr=False)
    name: str
    reason: RevocationReason
    principal: Principal
    certificates: set[Thumbprint] = field(default_factory=set)
    """What is known to be the device's, whoever issued it; filled as the look goes on."""

    async def everything(self) -> AsyncIterator[Found]:
        """Yield all there is, in the order in which it is to be taken."""
        names: set[str] = set()
        presented: set[Thumbprint] = set()
        for spelled in await self._spellings():
            names |= await names_of(self.rooms, spelled)
            presented |= await presented_by(self.rooms, spelled)
        self.certificates |= presented
        folded = sorted({fold(one) for one in names})
        instances, hubs = self.rooms.instances.all(), self.rooms.iothub.hubs.all()
        looks = [self._est(name) for name in folded]
        looks += [self._enrollment(instance, name) for instance in instances for name in folded]
        looks += [self._hub_device(hub, name) for hub in hubs for name in sorted(names)]
        looks += [self._issued(name) for name in folded]
        looks += [self._of_others(presented)]
        looks += [self._things(), self._connections(names)]
        for look in looks:
            async for one in look:
                yield one

    async def _spellings(self) -> set[str]:
        """Return how the name is written: hubs and AWS IoT tell letter case apart, EST and DPS do not."""
        at_hubs = await self.rooms.iothub.registry.spellings(self.name)
        return {self.name, *at_hubs, *await self.rooms.aws.things.spellings(self.name)}

    @property
    def _actor(self) -> str:
        return self.principal.actor

    async def _est(self, name: str) -> AsyncIterator[Found]:
        revocations = self.rooms.authority.revocations
        lose = partial(revocations.lose, name, self.principal, self.reason)
        since = await revocations.lost_since(name)
        word = f"-- {shell_word(name)}" if name.startswith("-") else shell_word(name)
        released = f"birthmark pki release {word}".replace("`", BACKTICK)
        note = f"nobody gets a certificate by this name any more, until: `{released}`"
        if since is not None:
            note = f"held since {since:%Y-%m-%d %H:%M:%S} UTC; {note}"
        # That it is held shows that it was asked for before, whatever else is left of it.
        yield Found("est", "name", name, lose if since is None else None, note=note, is_record=since is not None)
        for user in await self.rooms.credentials.of_device(name):
            remove = partial(self.rooms.credentials.remove_user, user.name, actor=self._actor)
            yield Found("est", "token" if user.is_one_time else "user", user.name, remove)
        for asked in await self.rooms.est.approvals.of_name(name):
            reject = partial(self.rooms.est.approvals.decide, asked.id, is_approved=False, actor=self._actor)
            yield Found("est", "request", asked.id, None if asked.is_approved is False else reject)

    async def _enrollment(self, instance: Instance, name: str) -> AsyncIterator[Found]:
        with contextlib.suppress(BirthmarkError):  # no name that a device registers by
            parse_registration_id(name)
            own = await self.rooms.enrollments.own(instance.id_scope, name)
            if own is None and not await self.rooms.enrollments.has_groups(instance.id_scope):
                return
            take = partial(self.rooms.enrollments.take_back, instance, name, self.reason.value, actor=self._actor)
            is_taken = own is not None and own.provisioning_status == "disabled"
            is_taken = is_taken and TAKEN_BACK in ((own and own.optional_device_information) or {})
            note = "" if own is not None else "disabled, so that no group lets it in"
            yield Found(
                f"dps {instance.name}",
                "enrollment",
                name,
                None if is_taken else take,
                note=note,
                is_record=own is not None,
            )

    async def _issued(self, name: str) -> AsyncIterator[Found]:
        alive = {one.certificate.thumbprint: one async for one in self.rooms.authority.revocations.each_alive(name)}
        registrars = {one.certificate.thumbprint for one in await self.rooms.registrars.all()}
        latest = {one.certificate.thumbprint: one for one in await self.rooms.authority.of_name(name)}
        issued = latest | alive
        parents: set[Thumbprint] = set()
        for thumbprint, one in issued.items():
            self.certificates.add(thumbprint)
            if thumbprint in registrars:
                remove = partial(self.rooms.registrars.remove, thumbprint, actor=self._actor)
                note = "what it asked for in the name of others stays good"
                yield Found("est", "registration authority", thumbprint.hex(), remove, note=note)
            if one.is_revoked:
                yield Found("ca", "certificate", thumbprint.hex())
            elif thumbprint in alive:
                note = f"{one.profile}, until {one.certificate.not_after:%Y-%m-%d %H:%M} UTC"
                yield Found("ca", "certificate", thumbprint.hex(), partial(self._revoke, one), note=note)
            if one.parent is not None and one.parent not in registrars:
                parents.add(one.parent)
        for parent in sorted(parents - issued.keys()):
            await asyncio.sleep(0)  # others have their turn: there may be one for each certificate
            if await self.rooms.authority.find(parent) is not None:
                self.certificates.add(parent)
                continue
            async for above in self._asked_by(parent, name):
                yield above

    async def _asked_by(self, parent: Thumbprint, name: str) -> AsyncIterator[Found]:
        """Yield what asked for certificates, of another CA, such as the maker's: unless it is of several devices."""
        others = [other for other in await self.rooms.authority.names_below(parent) if other != name]
        if others:
            note = f"it asked for {', '.join(others)}, too"
            yield Found("ca", "certificate of another CA", parent.hex(), note=note, is_left=True)
            return
        self.certificates.add(parent)
        async for one in self._of_others([parent]):
            yield one

    async def _revoke(self, one: Issued) -> None:
        with contextlib.suppress(AlreadyRevokedError):  # it went with another of its key
            revocations = self.rooms.authority.revocations
            await revocations.certificate(one.certificate.thumbprint, self.principal, self.reason)

    async def _of_others(self, thumbprints: Iterable[Thumbprint]) -> AsyncIterator[Found]:
        revocations = self.rooms.authority.revocations
        ours = {one.thumbprint for one in self.rooms.authority.hierarchy.certificates}
        for one in sorted(set(thumbprints) - ours):
            if await self.rooms.authority.find(one) is None:
                is_good = bool(await revocations.presented([one]))
                take = partial(revocations.others, [one], self.name, self.principal, self.reason)
                note = "the certificate alone; its key by `birthmark pki revoke --key-of FILE`"
                yield Found("ca", "certificate of another CA", one.hex(), take if is_good else None, note=note)

    async def _hub_device(self, hub: Hub, name: str) -> AsyncIterator[Found]:
        with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
            device = await self.rooms.iothub.registry.device(hub, name)
            is_taken = not device.is_enabled and (device.status_reason or "").startswith(_WHY)
            why = f"{_WHY}{self.reason.value}"
            take = partial(self.rooms.iothub.registry.take_back, hub, name, why, actor=self._actor)
            yield Found(f"hub {hub.name}", "device", name, None if is_taken else take)

    async def _things(self) -> AsyncIterator[Found]:
        aws = self.rooms.aws
        for thumbprint in sorted(self.certificates):
            known = await aws.certificates.find(thumbprint.hex())
            if known is None:
                continue
            things = (await aws.attachments.things(known.id, "", _MAX_THINGS)).items
            others = [name for name, _ in things if fold(name) != fold(self.name)]
            note = f"of the thing{'s' * (len(others) > 1)} {', '.join(others)}, too" if others else ""
            revoke = partial(aws.certificates.set_status, known.id, CertificateStatus.REVOKED, actor=self._actor)
            is_taken = known.status is CertificateStatus.REVOKED
            yield Found("aws", "certificate", known.id, None if is_taken else revoke, note=note)

    async def _connections(self, names: set[str]) -> AsyncIterator[Found]:
        rooms, whose = self.rooms, (names, self.certificates)
        counts = Counter({place: len(pumps) for place, pumps in open_here(rooms, *whose).items()})
        counts.update(await open_elsewhere(rooms, *whose))
        for (place, address), count in counts.items():
            note = f"{count} of them" if count > 1 else ""
            yield Found(place, "connection", address, partial(end_everywhere, rooms, *whose), note=note)
