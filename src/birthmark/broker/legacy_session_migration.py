"""Migration of stored sessions of version 0.1.0 at first start."""

from birthmark.broker import store
from birthmark.broker.model import BrokerMessage, encode_messages
from birthmark.broker.rules.filter_shape_index import shape_of
from birthmark.store import Changes, Database

_SPACE = "aws"
_PAGE = 500


async def migrate_legacy_sessions(database: Database, now: int) -> None:
    """Add a shape to every filter and move every message into its queue, page by page; it can be interrupted."""
    while rows := await database.all(store.WITHOUT_SHAPE):
        changes = Changes()
        for row in rows:
            changes.run(store.SUBSCRIBE, **{**dict(row), "shape": shape_of(row["filter"])})
        await database.commit(changes)
    while rows := await database.all(store.QUEUED_BEFORE, limit=_PAGE):
        changes, tails = Changes(), dict[str, int]()
        for row in rows:
            client = row["client_id"]
            if client not in tails:
                session = await database.one(store.RECORD, space=_SPACE, client=client)
                tails[client] = 0 if session is None else session["tail"]
            tails[client] += 1
            body = encode_messages([BrokerMessage(row["topic"], row["payload"], 1)])
            place = {"space": _SPACE, "client": client, "last": tails[client]}
            changes.run(store.APPEND, count=1, at=now, message=None, body=body, **place)
            changes.run(store.MOVED, seq=row["seq"])
        for client, tail in tails.items():
            changes.run(store.SET_TAIL, tail=tail, key_space=_SPACE, key_client=client)
        await database.commit(changes)
