"""Devices that were taken back after the backup which this server was restored from: taken back whole, once more.

The restore takes their names and notes them with its own commit, and the first start does the rest before anybody is
let in. What failed is tried by the next start, that alone: what an operator did meanwhile stays, and a name that was
let go is forgotten here.
"""

import logging
from collections.abc import Mapping

import msgspec
from sqlalchemy import select

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import store
from birthmark.console.taken import Became
from birthmark.pki.crl import RevocationReason
from birthmark.pki.names import fold
from birthmark.server.losing.rooms import Key
from birthmark.server.losing.service import Losing
from birthmark.server.rooms import Rooms
from birthmark.store import Changes, statement, upsert
from birthmark.store.keyed import remove
from birthmark.store.schema import server_facts
from birthmark.text import decode_json

log = logging.getLogger(__name__)
_LOST = "device.lost "
_NOTED = statement(select(server_facts).where(server_facts.c.name.startswith(_LOST, autoescape=True)).limit(1_000_000))
_SET, _DROP = upsert(server_facts), remove(server_facts, "name")
_RESTORE = Principal(PrincipalKind.OPERATOR, "restore")


class _Note(msgspec.Struct, frozen=True):
    """A device that is to be taken back, and what of it is left where that was tried; of none, all."""

    device: str
    reason: str
    left: tuple[Key, ...] = ()


def note_lost(changes: Changes, devices: Mapping[str, str], now: int) -> None:
    """Add to the changes that these names are lost, each for a reason."""
    for device, reason in devices.items():
        changes.run(store.ADD_NAME, name=fold(device), version=0, lost_at=None)
        changes.run(store.LOSE_NAME, key_name=fold(device), lost_at=now)
        _set(changes, _Note(device, reason))


def _set(changes: Changes, note: _Note) -> None:
    changes.run(_SET, name=_LOST + fold(note.device), value=msgspec.json.encode(note).decode())


async def take_back_again(rooms: Rooms) -> None:
    """Take back what was noted, and forget of the note what is done; the next start tries the rest once more."""
    for row in await rooms.database.all(_NOTED):
        note, changes = decode_json(row["value"], _Note), Changes()
        left = await _left(rooms, note)
        if left:
            _set(changes, msgspec.structs.replace(note, left=left))
        else:
            changes.run(_DROP, name=row["name"])
        await rooms.database.commit(changes)


async def _left(rooms: Rooms, note: _Note) -> tuple[Key, ...]:
    """Take back what is left, and return what is left then: nothing of a name that was let go."""
    name = await rooms.database.one(store.NAME, name=fold(note.device))
    if name is None or name["lost_at"] is None:
        return ()
    losing = Losing(rooms, frozenset(note.left))
    done = await losing.take_back(note.device, _RESTORE, RevocationReason(note.reason), block=True)
    facts = {"device": note.device, "reason": note.reason}
    failed = [one for one in done if one.became is Became.FAILED]
    if failed:
        said = "; ".join(f"{one.place} {one.what} {one.id}: {one.note}" for one in failed)
        log.error("device.not_taken_back_again", extra=facts | {"reason": said})
    else:
        log.warning("device.taken_back_again", extra=facts)
    return tuple((one.place, one.what, one.id) for one in failed)
