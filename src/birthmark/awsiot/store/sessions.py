"""What outlives an MQTT connection with clean session 0: subscriptions, and QoS 1 messages not yet acknowledged."""

from sqlalchemy import bindparam, func, select, update

from birthmark.awsiot.store.tables import queued, sessions, subscriptions
from birthmark.store import insert, statement, upsert
from birthmark.store.keyed import find, page, remove

PUT = upsert(sessions)
ALL = page(sessions, "client_id")
START_EXPIRY = statement(
    update(sessions).where(sessions.c.expires_at.is_(None)).values(expires_at=bindparam("expires_at"))
)
DELETE = remove(sessions)

SUBSCRIBE = upsert(subscriptions)
UNSUBSCRIBE = remove(subscriptions)
UNSUBSCRIBE_ALL = remove(subscriptions, "client_id")
FILTERS = find(subscriptions, "client_id", of=("filter", "qos"), limit=1000)

QUEUE = insert(queued)
QUEUED_AFTER = page(queued, "seq", "client_id", of=("seq", "topic", "payload"))
COUNT = statement(select(func.count().label("total")).where(queued.c.client_id == bindparam("client_id")))
DELIVERED = remove(queued)
DROP_QUEUE = remove(queued, "client_id")
