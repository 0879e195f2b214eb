"""What outlives an MQTT connection with clean session 0: subscriptions, and QoS 1 messages not yet acknowledged."""

from sqlalchemy import bindparam, delete, func, select, update

from birthmark.awsiot.store.tables import queued, sessions, subscriptions
from birthmark.store import insert, statement, upsert

PUT = upsert(sessions)
ALL = statement(
    select(sessions.c.client_id, sessions.c.expires_at)
    .where(sessions.c.client_id > bindparam("after"))
    .order_by(sessions.c.client_id)
    .limit(bindparam("limit"))
)
START_EXPIRY = statement(
    update(sessions).where(sessions.c.expires_at.is_(None)).values(expires_at=bindparam("expires_at"))
)
DELETE = statement(delete(sessions).where(sessions.c.client_id == bindparam("client_id")))

SUBSCRIBE = upsert(subscriptions)
UNSUBSCRIBE = statement(
    delete(subscriptions).where(
        subscriptions.c.client_id == bindparam("client_id"), subscriptions.c.filter == bindparam("filter")
    )
)
UNSUBSCRIBE_ALL = statement(delete(subscriptions).where(subscriptions.c.client_id == bindparam("client_id")))
FILTERS = statement(
    select(subscriptions.c.filter, subscriptions.c.qos)
    .where(subscriptions.c.client_id == bindparam("client_id"))
    .limit(1000)
)

QUEUE = insert(queued)
QUEUED_AFTER = statement(
    select(queued.c.seq, queued.c.topic, queued.c.payload)
    .where(queued.c.client_id == bindparam("client_id"), queued.c.seq > bindparam("after"))
    .order_by(queued.c.seq)
    .limit(bindparam("limit"))
)
COUNT = statement(select(func.count().label("total")).where(queued.c.client_id == bindparam("client_id")))
DELIVERED = statement(delete(queued).where(queued.c.seq == bindparam("seq")))
DROP_QUEUE = statement(delete(queued).where(queued.c.client_id == bindparam("client_id")))
