"""Take everything of a lost device back, and look again until nothing more is found.

Each part is a commit of its own, in an order that closes the doors first: whoever is killed on the way runs it again,
and what was taken stays taken.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from birthmark.auth.principals import Principal
from birthmark.console.devices import Sees, place_of_part
from birthmark.console.taken import Became, Taken
from birthmark.errors import BACKTICK, BirthmarkError, NotFoundError
from birthmark.pki.crl import RevocationReason
from birthmark.server.losing.rooms import Found, Key, Looking
from birthmark.server.rooms import Rooms
from birthmark.store import Changes
from birthmark.text import visible_lines

log = logging.getLogger(__name__)
_LOOKS = 4
"""What comes between two looks (a registration that was decided before) is taken by the next."""


class DeviceNotOnRecordError(NotFoundError):
    """Nothing is on record of that device."""

    code = "device.not_on_record"
    cause = "Nothing here is of '{name}': no certificate, credential, enrollment, hub device or thing."
    fix = (
        "See how it is spelled: `birthmark device ls`. To shut the name out all the same, before a device comes by "
        "it: `birthmark device revoke {name} --block --yes`."
    )
    name: str


class DeviceNameUnseenError(DeviceNotOnRecordError):
    """Nothing is on record of a name with characters that are not seen."""

    code = "device.name_unseen"
    cause = "Nothing here is of '{name}', which has white space around it or characters that are not seen."
    fix = "See how it is spelled: `birthmark device ls`. Without them it is {seen}."

    @property
    def seen(self) -> str:
        return ", ".join(visible_lines(self.name))


def _anywhere(_place: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Losing:
    """Takes lost devices back."""

    rooms: Rooms = field(repr=False)
    only: frozenset[Key] = frozenset()
    """What is to be taken of them; everything where this is empty."""

    async def take_back(
        self,
        name: str,
        principal: Principal,
        reason: RevocationReason,
        *,
        may: Sees = _anywhere,
        dry_run: bool = False,
        block: bool = False,
    ) -> Sequence[Taken]:
        """Return what was taken, what had been, and what is left: also what is at places where it may not be done.

        Raise `DeviceNotOnRecordError`, unless `block`; `DeviceNameUnseenError` for what nobody means as a name.
        """
        asked = principal
        if principal.by is not None:  # it is counted as one device, however many parts it has
            principal = replace(principal, by=principal.by.counted)
        first = await self._look(name, principal, reason, may)
        if not any(one.is_record for one in first):
            if not self.only and not (name.isprintable() and name == name.strip()):
                raise DeviceNameUnseenError(name=name)  # a line of a list, which with its end is no device's name
            if not block:
                raise DeviceNotOnRecordError(name=name)
        if dry_run:
            return [*map(_as_it_is, first), *await self._left()]
        changes = Changes().audit(asked.actor, "device.revoke", name, reason=reason.value)
        await self.rooms.database.commit(changes)
        taken: dict[Key, Taken] = {}
        found: Sequence[Found] = first
        for _ in range(_LOOKS):
            for one in found:
                if one.key not in taken or _is_open(one, taken):
                    taken[one.key] = await _taken(one)
            found = await self._look(name, principal, reason, may)
            if not any(_is_open(one, taken) for one in found):
                break
        return [*taken.values(), *await self._left()]

    async def _look(self, name: str, principal: Principal, reason: RevocationReason, may: Sees) -> Sequence[Found]:
        found: dict[Key, Found] = {}
        async for one in Looking(self.rooms, name, reason, principal).everything():
            if not self.only or one.key in self.only:
                found.setdefault(one.key, one if may(place_of_part(one.place)) else _of_others(one))
        return list(found.values())

    async def _left(self) -> list[Taken]:
        """Return what lets in whoever knows it, this device among others."""
        users = [
            Taken("est", "user", user.name, Became.LEFT, "for every name", _typed("user", user.name))
            for user in await self.rooms.credentials.for_all()
        ]
        cas = [
            Taken(
                "est",
                "bootstrap CA",
                one.certificate.thumbprint.hex(),
                Became.LEFT,
                "for every name",
                _typed("maker", one.certificate.thumbprint.hex()),
            )
            for one in await self.rooms.credentials.bootstrap_cas()
            if one.any_name
        ]
        return [*users, *cas]


def _of_others(one: Found) -> Found:
    """Return what whoever asks may not take: somebody with that right has to."""
    if one.act is None:
        return one
    return replace(one, act=None, is_left=True, note=f"it takes the right to revoke at {place_of_part(one.place)}")


def _is_open(one: Found, taken: Mapping[Key, Taken]) -> bool:
    """Say whether this is still to be done: also what had been before, and is open again, and what failed."""
    known = taken.get(one.key)
    if known is not None and known.became is Became.FAILED:
        return True
    return one.act is not None and (known is None or known.became is not Became.TAKEN_BACK)


def _typed(kind: str, name: str) -> str:
    return f"`{shlex.join(['birthmark', 'pki', kind, 'rm', name, '--yes']).replace('`', BACKTICK)}`"


def _as_it_is(one: Found) -> Taken:
    if one.act is None:
        return _row(one, Became.LEFT if one.is_left else Became.WAS)
    return _row(one, Became.WOULD_BE)


async def _taken(one: Found) -> Taken:
    if one.act is None:
        return _as_it_is(one)
    try:
        await one.act()
    except BirthmarkError as error:
        log.warning("device.part_not_taken_back", extra={"code": error.code, "part": " ".join(one.key)})
        return Taken(one.place, one.what, one.id, Became.FAILED, *error.explain_apart())
    return _row(one, Became.TAKEN_BACK)


def _row(one: Found, became: Became) -> Taken:
    return Taken(one.place, one.what, one.id, became, one.note, one.command)
