"""Revocations to repeat after a restore: of devices that were revoked after the backup.

The restore revokes their names and stores the rest as pending, in its own commit. The first start revokes it before any
client connects. A later start retries only failed parts: later changes by an operator remain, and a released name is
removed from the list.
"""

import logging
from collections.abc import Mapping

import msgspec
from sqlalchemy import select

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import store
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.devices.model import RevocationOutcome
from birthmark.devices.ports import Key
from birthmark.devices.revocation import DeviceRevoker
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store import Changes, statement, upsert
from birthmark.store.core_tables import server_facts
from birthmark.store.table_statements import remove
from birthmark.untrusted_json_and_text import decode_json

log = logging.getLogger(__name__)
_LOST = "device.lost "
_ALL_PENDING = statement(
    select(server_facts).where(server_facts.c.name.startswith(_LOST, autoescape=True)).limit(1_000_000)
)
_SET, _DROP = upsert(server_facts), remove(server_facts, "name")
_RESTORE = Principal(PrincipalKind.OPERATOR, "restore")


class _PendingRevocation(msgspec.Struct, frozen=True):
    """A device to revoke; `left` lists the parts that failed before, and is empty if all are to be revoked."""

    device: str
    reason: str
    left: tuple[Key, ...] = ()


def add_pending(changes: Changes, devices: Mapping[str, str], now: int) -> None:
    """Revoke these names with their reasons, and store their devices as pending."""
    for device, reason in devices.items():
        changes.run(store.ADD_NAME, name=fold(device), version=0, lost_at=None)
        changes.run(store.LOSE_NAME, key_name=fold(device), lost_at=now)
        _set(changes, _PendingRevocation(device, reason))


def _set(changes: Changes, note: _PendingRevocation) -> None:
    changes.run(_SET, name=_LOST + fold(note.device), value=msgspec.json.encode(note).decode())


async def revoke_pending(directory: DeviceDirectory) -> None:
    """Revoke pending devices, and store failed parts for the next start."""
    for row in await directory.database.all(_ALL_PENDING):
        pending, changes = decode_json(row["value"], _PendingRevocation), Changes()
        left = await _revoke(directory, pending)
        if left:
            _set(changes, msgspec.structs.replace(pending, left=left))
        else:
            changes.run(_DROP, name=row["name"])
        await directory.database.commit(changes)


async def _revoke(directory: DeviceDirectory, pending: _PendingRevocation) -> tuple[Key, ...]:
    """Revoke a device, and return the parts that failed; none for a released name."""
    name = await directory.database.one(store.NAME, name=fold(pending.device))
    if name is None or name["lost_at"] is None:
        return ()
    revoker = DeviceRevoker(directory, frozenset(pending.left))
    done = await revoker.revoke(pending.device, _RESTORE, RevocationReason(pending.reason), block=True)
    facts = {"device": pending.device, "reason": pending.reason}
    failed = [one for one in done if one.became is RevocationOutcome.FAILED]
    if failed:
        said = "; ".join(f"{one.place} {one.what} {one.id}: {one.note}" for one in failed)
        log.error("device.not_taken_back_again", extra=facts | {"reason": said})
    else:
        log.warning("device.taken_back_again", extra=facts)
    return tuple((one.place, one.what, one.id) for one in failed)
