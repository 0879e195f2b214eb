"""Revocation of all access of a device, repeated until a search finds nothing more.

Each part is a separate commit, in an order that first ends sources of new access. After a crash, the same request
continues: revoked parts stay revoked.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from birthmark.auth.principals import Principal
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.devices.model import (
    DeviceNameUnseenError,
    DeviceNotOnRecordError,
    IsVisible,
    RevocationOutcome,
    RevokedPart,
    scope_of,
)
from birthmark.devices.ports import DeviceAccess, Key, RevocationOrder
from birthmark.errors import BirthmarkError
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.store import Changes

log = logging.getLogger(__name__)
_LOOKS = 4
"""Maximum number of searches; a registration that was decided before one search is found by the next."""


def _anywhere(_place: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class DeviceRevoker:
    """Revokes devices."""

    directory: DeviceDirectory = field(repr=False)
    only: frozenset[Key] = frozenset()
    """Parts to revoke; empty means all."""

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
        """Revoke a device and return the outcome of every part; parts in scopes that `may` rejects remain.

        Raise `DeviceNotOnRecordError`, unless `block`; `DeviceNameUnseenError` for a name with invisible characters.
        """
        asked = principal
        if principal.by is not None:  # counts as one device, with any number of parts
            principal = replace(principal, by=principal.by.without_write_guard)
        first = await self._look(name, principal, reason, may)
        if not any(one.is_record for one in first):
            if not self.only and not (name.isprintable() and name == name.strip()):
                raise DeviceNameUnseenError(name=name)  # a list line whose ending makes it no valid device id
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
        """Return shared access, which works for this device and others."""
        return [part for one in self.directory.records for part in await one.shared_access()]


def _of_others(access: DeviceAccess) -> DeviceAccess:
    """Return a part that the caller has no permission to revoke, marked as not revoked."""
    if access.revoke is None:
        return access
    return replace(access, revoke=None, is_left=True, note=f"it takes the right to revoke at {scope_of(access.place)}")


def _is_open(access: DeviceAccess, done: Mapping[Key, RevokedPart]) -> bool:
    """Return whether a part still grants access: it failed, or is open again after an earlier revocation."""
    known = done.get(access.key)
    if known is not None and known.became is RevocationOutcome.FAILED:
        return True
    return access.revoke is not None and (known is None or known.became is not RevocationOutcome.REVOKED)


def _as_it_is(access: DeviceAccess) -> RevokedPart:
    if access.revoke is None:
        return _row(access, RevocationOutcome.LEFT if access.is_left else RevocationOutcome.WAS_REVOKED)
    return _row(access, RevocationOutcome.WOULD_REVOKE)


async def _revoked(access: DeviceAccess) -> RevokedPart:
    if access.revoke is None:
        return _as_it_is(access)
    try:
        await access.revoke()
    except BirthmarkError as error:
        log.warning("device.part_not_taken_back", extra={"code": error.code, "part": " ".join(access.key)})
        return RevokedPart(access.place, access.what, access.id, RevocationOutcome.FAILED, *error.explain_for_display())
    return _row(access, RevocationOutcome.REVOKED)


def _row(access: DeviceAccess, became: RevocationOutcome) -> RevokedPart:
    return RevokedPart(access.place, access.what, access.id, became, access.note, access.command)
