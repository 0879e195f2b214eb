"""One device whole: what each room of this server has of it, and what was refused it last."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from birthmark.console.devices import Part, Sees, place_of_part
from birthmark.dps.model import Instance, SymmetricKey, TpmKeys, X509Individual
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import Hub
from birthmark.people.model import SERVER
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.names import fold, parse_registration_id
from birthmark.refusals import refusals_about
from birthmark.server.losing.service import DeviceNotOnRecordError
from birthmark.server.on_record import names_of, presented_by
from birthmark.server.rooms import Rooms

_MAX_PRINCIPALS = 100
_KINDS = {X509Individual: "X.509", SymmetricKey: "symmetric key", TpmKeys: "TPM"}


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class Whole:
    """Tells of devices."""

    rooms: Rooms = field(repr=False)

    async def of(self, name: str, *, sees: Sees) -> Sequence[Part]:
        """Return every part at places that somebody sees, in the order of a device's life.

        Raise `DeviceNotOnRecordError` where there is none.
        """
        parts = [part async for part in self._parts(name) if sees(place_of_part(part.place))]
        for refusal in await refusals_about(self.rooms.database, name, 1) if sees(SERVER) else ():
            detail = f"{refusal.code}: `birthmark why {refusal.id}`"
            parts.append(Part("refusals", "refused", refusal.id, _time(refusal.at), detail))
        if not parts:
            refused = DeviceNotOnRecordError(name=name)
            refused.quote(fix="See how it is spelled: `birthmark device ls`.")
            raise refused
        return parts

    async def _parts(self, name: str) -> AsyncIterator[Part]:
        rooms = self.rooms
        spelled = {name, *await rooms.iothub.registry.spellings(name), *await rooms.aws.things.spellings(name)}
        names = set().union(*[await names_of(rooms, one) for one in spelled])
        folded = sorted({fold(one) for one in names})
        looks = [self._enrolled(instance, one) for instance in rooms.instances.all() for one in folded]
        looks += [self._at_hub(hub, one) for hub in rooms.iothub.hubs.all() for one in sorted(names)]
        looks += [self._thing(one) for one in sorted(spelled)]
        looks += [self._certificates(one) for one in folded]
        looks.append(self._of_others(set().union(*[await presented_by(rooms, one) for one in spelled])))
        for look in looks:
            async for part in look:
                yield part

    async def _enrolled(self, instance: Instance, name: str) -> AsyncIterator[Part]:
        place = f"dps {instance.name}"
        with contextlib.suppress(BirthmarkError):  # no name that a device registers by
            registration_id = parse_registration_id(name)
            enrolled = await self.rooms.enrollments.find(instance.id_scope, registration_id, is_group=False)
            if enrolled is not None:
                state = "enabled" if enrolled.is_enabled else "disabled"
                yield Part(place, "enrollment", enrolled.id, state, _KINDS.get(type(enrolled.attestation), ""))
            group = await self.rooms.enrollments.find(instance.id_scope, name, is_group=True)
            if group is not None:
                yield Part(place, "group", group.id, "enabled" if group.is_enabled else "disabled")
            registered = await self.rooms.registrations.find(instance, registration_id)
            if registered is not None:
                by = "" if registered.group_id is None else f"group {registered.group_id}, "
                detail = f"{by}device {registered.device_id} of {registered.hub}, {_time(registered.updated_at)}"
                yield Part(place, "registration", registered.registration_id, "assigned", detail)

    async def _of_others(self, thumbprints: AbstractSet[Thumbprint]) -> AsyncIterator[Part]:
        """Tell of what it showed, or is enrolled by, that another CA has issued."""
        authority = self.rooms.authority
        for one in sorted(thumbprints):
            if await authority.find(one) is None:
                state = "revoked" if await authority.revocations.is_revoked(one) else "good"
                yield Part("ca", "certificate of another CA", one.hex(), state)

    async def _at_hub(self, hub: Hub, name: str) -> AsyncIterator[Part]:
        with contextlib.suppress(BirthmarkError):  # no such device there, or no name that a device has
            device = await self.rooms.iothub.registry.device(hub, name)
            (seen,) = await self.rooms.devices.seen(hub.name, [device.device_id])
            how = "not seen since the server's start"
            if seen.at is not None:
                how = f"{'connected since' if seen.is_connected else 'last seen'} {_time(seen.at)}"
            why = f"; {device.status_reason}" if device.status_reason else ""
            state = "enabled" if device.is_enabled else "disabled"
            yield Part(f"hub {hub.name}", "device", device.device_id, state, how + why)

    async def _thing(self, name: str) -> AsyncIterator[Part]:
        aws = self.rooms.aws
        with contextlib.suppress(BirthmarkError):  # no name that a thing has
            if await aws.things.find(name) is None:
                return
            page = await aws.attachments.principals(name, "", _MAX_PRINCIPALS)
            yield Part("aws", "thing", name, "on record", f"{len(page.items)} certificates")
            for certificate_id, _ in page.items:
                known = await aws.certificates.find(certificate_id)
                if known is not None:
                    yield Part("aws", "certificate", known.id, known.status.value.lower(), "")

    async def _certificates(self, name: str) -> AsyncIterator[Part]:
        rooms = self.rooms
        if (since := await rooms.authority.revocations.lost_since(name)) is not None:
            yield Part("ca", "name", name, "shut out", f"since {_time(since)}")
        alive = {one.certificate.thumbprint for one in await rooms.authority.revocations.alive(name)}
        for one in await rooms.authority.of_name(name):
            thumbprint, until = one.certificate.thumbprint, _time(one.certificate.not_after)
            state = "revoked" if one.is_revoked else "good" if thumbprint in alive else "ended"
            yield Part("ca", "certificate", thumbprint.hex(), state, f"{one.profile}, until {until}")
        for user in await rooms.credentials.of_device(name):
            yield Part("est", "token" if user.is_one_time else "user", user.name, "good", "")
        for asked in await rooms.est.approvals.of_name(name):
            states = {None: "waits", True: "approved", False: "rejected"}
            yield Part("est", "request", asked.id, states[asked.is_approved], "")
