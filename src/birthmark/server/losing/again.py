"""Devices that were taken back after the backup which this server was restored from: taken back whole, once more.

The restore notes them with its own commit, and the first start does it before anybody is let in. Who is killed on the
way does it again.
"""

import json
import logging
from collections.abc import Mapping

from sqlalchemy import bindparam, select

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.console.losing import Became
from birthmark.pki.crl import RevocationReason
from birthmark.server.losing.service import Losing
from birthmark.server.rooms import Rooms
from birthmark.store import Changes, statement, upsert
from birthmark.store.keyed import remove
from birthmark.store.schema import server_facts

log = logging.getLogger(__name__)
_LOST = "devices.lost"
_FACT = statement(select(server_facts.c.value).where(server_facts.c.name == bindparam("name")))
_SET, _DROP = upsert(server_facts), remove(server_facts, "name")
_RESTORE = Principal(PrincipalKind.OPERATOR, "restore")


def note_lost(changes: Changes, devices: Mapping[str, str]) -> None:
    """Add to the changes that these names are lost, each for a reason."""
    changes.run(_SET, name=_LOST, value=json.dumps(devices))


async def take_back_again(rooms: Rooms) -> None:
    """Take back what was noted, and forget of the note what is done; the next start tries the rest once more."""
    row = await rooms.database.one(_FACT, name=_LOST)
    if row is None:
        return
    left: dict[str, str] = {}
    for name, reason in json.loads(row["value"]).items():
        done = await Losing(rooms).take_back(name, _RESTORE, RevocationReason(reason), block=True)
        if failed := [f"{one.place} {one.what} {one.id}: {one.note}" for one in done if one.became is Became.FAILED]:
            left[name] = reason
            log.error("device.not_taken_back_again", extra={"device": name, "reason": "; ".join(failed)})
        else:
            log.warning("device.taken_back_again", extra={"device": name, "reason": reason})
    changes = Changes()
    if left:
        note_lost(changes, left)
    else:
        changes.run(_DROP, name=_LOST)
    await rooms.database.commit(changes)
