"""What outlives an MQTT connection with clean session 0: subscriptions, and QoS 1 messages not yet acknowledged."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, func, select, update

from birthmark.store import insert, metadata, statement, upsert
from birthmark.store.keyed import find, page, remove
from birthmark.store.schema import RowId

sessions = Table(
    "aws_sessions",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("expires_at", BigInteger),  # NULL while the client is connected
)
PUT = upsert(sessions)
ALL = page(sessions, "client_id")
START_EXPIRY = statement(
    update(sessions).where(sessions.c.expires_at.is_(None)).values(expires_at=bindparam("expires_at"))
)
DELETE = remove(sessions)

subscriptions = Table(
    "aws_subscriptions",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("filter", Text, primary_key=True),
    Column("qos", BigInteger, nullable=False),
)
SUBSCRIBE = upsert(subscriptions)
UNSUBSCRIBE = remove(subscriptions)
UNSUBSCRIBE_ALL = remove(subscriptions, "client_id")
FILTERS = find(subscriptions, "client_id", of=("filter", "qos"), limit=1000)

queued = Table(
    "aws_queued",
    metadata,
    Column("seq", RowId, primary_key=True, autoincrement=True),
    Column("client_id", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
Index("aws_queued_client", queued.c.client_id, queued.c.seq)
QUEUE = insert(queued)
QUEUED_AFTER = page(queued, "seq", "client_id", of=("seq", "topic", "payload"))
COUNT = statement(select(func.count().label("total")).where(queued.c.client_id == bindparam("client_id")))
DELIVERED = remove(queued)
DROP_QUEUE = remove(queued, "client_id")
