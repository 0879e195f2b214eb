"""Revoke everything that lets a device in, and search again until nothing more is found.

Each part is a commit of its own, in an order that first ends what gets the device new access. After a kill the same
request goes on: what was revoked stays revoked.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from birthmark.auth.principals import Principal
from birthmark.devices.directory import DeviceDirectory
from birthmark.devices.model import (
    DeviceNameUnseenError,
    DeviceNotOnRecordError,
    IsVisible,
    RevocationOutcome,
    RevokedPart,
    scope_of,
)
from birthmark.devices.records import DeviceAccess, Key, RevocationOrder
from birthmark.errors import BirthmarkError
from birthmark.pki.crl import RevocationReason
from birthmark.store import Changes

log = logging.getLogger(__name__)
_LOOKS = 4
"""A registration that was decided before one look is found by the next."""


def _anywhere(_place: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class DeviceRevoker:
    """Revokes devices."""

    directory: DeviceDirectory = field(repr=False)
    only: frozenset[Key] = frozenset()
    """The parts to revoke; empty for all."""

    async def revoke(
        self,
        name: str,
        principal: Principal,
        reason: RevocationReason,
        *,
        may: IsVisible = _anywhere,
        dry_run: bool = False,
        block: bool = False,
    ) -> Sequence[RevokedPart]:
        """Return the outcome of every part. Parts in scopes that `may` rejects are left.

        Raise `DeviceNotOnRecordError`, unless `block`; `DeviceNameUnseenError` for a name with invisible characters.
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
        await self.directory.database.commit(changes)
        done: dict[Key, RevokedPart] = {}
        found: Sequence[DeviceAccess] = first
        for _ in range(_LOOKS):
            for one in found:
                if one.key not in done or _is_open(one, done):
                    done[one.key] = await _revoked(one)
            found = await self._look(name, principal, reason, may)
            if not any(_is_open(one, done) for one in found):
                break
        return [*done.values(), *await self._left()]

    async def _look(
        self, name: str, principal: Principal, reason: RevocationReason, may: IsVisible
    ) -> Sequence[DeviceAccess]:
        found: dict[Key, DeviceAccess] = {}
        device = await self.directory.identity(name)
        async for one in self.directory.access(RevocationOrder(device, principal, reason, set(device.presented))):
            if not self.only or one.key in self.only:
                found.setdefault(one.key, one if may(scope_of(one.place)) else _of_others(one))
        return list(found.values())

    async def _left(self) -> list[RevokedPart]:
        """Return what lets in every device that knows it, this one among others."""
        return [part for one in self.directory.records for part in await one.shared_access()]


def _of_others(one: DeviceAccess) -> DeviceAccess:
    """Return a part that the caller has no permission to revoke."""
    if one.revoke is None:
        return one
    return replace(one, revoke=None, is_left=True, note=f"it takes the right to revoke at {scope_of(one.place)}")


def _is_open(one: DeviceAccess, done: Mapping[Key, RevokedPart]) -> bool:
    """Return whether a part still lets the device in: it failed, or is open again after an earlier revocation."""
    known = done.get(one.key)
    if known is not None and known.became is RevocationOutcome.FAILED:
        return True
    return one.revoke is not None and (known is None or known.became is not RevocationOutcome.REVOKED)


def _as_it_is(one: DeviceAccess) -> RevokedPart:
    if one.revoke is None:
        return _row(one, RevocationOutcome.LEFT if one.is_left else RevocationOutcome.WAS_REVOKED)
    return _row(one, RevocationOutcome.WOULD_REVOKE)


async def _revoked(one: DeviceAccess) -> RevokedPart:
    if one.revoke is None:
        return _as_it_is(one)
    try:
        await one.revoke()
    except BirthmarkError as error:
        log.warning("device.part_not_taken_back", extra={"code": error.code, "part": " ".join(one.key)})
        return RevokedPart(one.place, one.what, one.id, RevocationOutcome.FAILED, *error.explain_apart())
    return _row(one, RevocationOutcome.REVOKED)


def _row(one: DeviceAccess, became: RevocationOutcome) -> RevokedPart:
    return RevokedPart(one.place, one.what, one.id, became, one.note, one.command)
