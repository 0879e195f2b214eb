"""What outlives an MQTT connection with clean session 0: subscriptions, and QoS 1 messages not yet acknowledged."""

from sqlalchemy import Column, Index, Table, bindparam, func, select, update

from birthmark.store import insert, metadata, statement, upsert
from birthmark.store.columns import blob, number, text
from birthmark.store.keyed import find, page, remove
from birthmark.store.schema import RowId

sessions = Table(
    "aws_sessions",
    metadata,
    text("client_id", key=True),
    number("expires_at", optional=True),  # NULL while the client is connected
)
PUT = upsert(sessions)
ALL = page(sessions, "client_id")
START_EXPIRY = statement(
    update(sessions).where(sessions.c.expires_at.is_(None)).values(expires_at=bindparam("expires_at"))
)
DELETE = remove(sessions)

subscriptions = Table(
    "aws_subscriptions", metadata, text("client_id", key=True), text("filter", key=True), number("qos")
)
SUBSCRIBE = upsert(subscriptions)
UNSUBSCRIBE = remove(subscriptions)
UNSUBSCRIBE_ALL = remove(subscriptions, "client_id")
FILTERS = find(subscriptions, "client_id", of=("filter", "qos"), limit=1000)

queued = Table(
    "aws_queued",
    metadata,
    Column("seq", RowId, primary_key=True, autoincrement=True),
    text("client_id"),
    text("topic"),
    blob("payload"),
    sqlite_autoincrement=True,
)
Index("aws_queued_client", queued.c.client_id, queued.c.seq)
QUEUE = insert(queued)
QUEUED_AFTER = page(queued, "seq", "client_id", of=("seq", "topic", "payload"))
COUNT = statement(select(func.count().label("total")).where(queued.c.client_id == bindparam("client_id")))
DELIVERED = remove(queued)
DROP_QUEUE = remove(queued, "client_id")
