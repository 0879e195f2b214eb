"""Tables and statements of webhooks and transient events."""

from sqlalchemy import Index, Table, bindparam, func, or_, select, tuple_

from birthmark.events.model import DeadLetters, Webhook
from birthmark.store import insert, metadata, statement
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, page, remove

PRUNED_AT_ONCE = 2000
WEBHOOKS = RowMapper(Webhook)
webhooks = WEBHOOKS.table("webhooks", "name", sealed=["url", "secret", "former"])
ADD = insert(webhooks, ignore_existing=True)
GET = find(webhooks)
HOOKS_PAGE = page(webhooks, "name")
REMOVE = remove(webhooks)
SET_SECRET = change(webhooks, ("secret", "former"), "name", "secret")
SET_PAUSED = change(webhooks, ("is_paused", "next_at"), "name")
MOVED = change(webhooks, ("places", "tries", "next_at", "failed_since", "problem"), "name", "places", "owner")
_FREE = or_(webhooks.c.owner == bindparam("key_owner"), webhooks.c.owned_until <= bindparam("key_now"))
CLAIM = change(webhooks, ("owner", "owned_until"), "name", _FREE)
LET_GO = change(webhooks, ("owned_until",), "owner")

DEAD = RowMapper(DeadLetters)
dead = DEAD.table("webhook_dead", "id")
Index("webhook_dead_hook", dead.c.hook, dead.c.at)
ADD_DEAD = insert(dead)
DEAD_OF = statement(
    select(dead).where(dead.c.hook == bindparam("hook")).order_by(dead.c.at, dead.c.id).limit(bindparam("limit"))
)
COUNT_DEAD_OF = statement(select(func.count().label("count")).where(dead.c.hook == bindparam("hook")))
DEAD_ONE = find(dead)
REMOVE_DEAD = remove(dead, "id")
REMOVE_ALL_DEAD = remove(dead, "hook")

notices = Table(
    "notices",
    metadata,
    text("chain", key=True),
    *(number("seq", key=True), number("at")),
    *(text(name) for name in ("action", "subject", "detail")),
)
Index("notices_at", notices.c.at)
Index("notices_subject", notices.c.subject, notices.c.at)
noticed = Table("noticed", metadata, text("chain", key=True), number("seq"))
ADD_NOTICE = insert(notices)
NOTICES = page(notices, "seq", "chain")
NOTICES_OF = statement(
    select(notices)
    .where(notices.c.subject == bindparam("subject"))
    .order_by(notices.c.at.desc(), notices.c.seq.desc())
    .limit(bindparam("limit"))
)
NOTICED_UPTO = find(noticed)
NOTICED_UPTO_BY_ALL = statement(select(noticed))
FIRST_NOTICED = insert(noticed, ignore_existing=True)
NOTICED_TO = change(noticed, ("seq",), "chain", "seq")
_OLD = select(notices.c.chain, notices.c.seq).where(notices.c.at < bindparam("before")).order_by(notices.c.at)
PRUNE_NOTICES = remove(notices, tuple_(notices.c.chain, notices.c.seq).in_(_OLD.limit(PRUNED_AT_ONCE)))
_FIRST = select(notices.c.seq).where(notices.c.chain == bindparam("chain"), notices.c.seq <= bindparam("upto"))
PRUNE_NOTICED = remove(notices, "chain", notices.c.seq.in_(_FIRST.order_by(notices.c.seq).limit(PRUNED_AT_ONCE)))
