"""The tables of webhooks, and their statements."""

from sqlalchemy import Index, bindparam, or_, select

from birthmark.feed.model import Dead, Webhook
from birthmark.store import insert, statement
from birthmark.store.keyed import change, find, page, remove
from birthmark.store.records import Records

WEBHOOKS = Records(Webhook)
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

DEAD = Records(Dead)
dead = DEAD.table("webhook_dead", "id")
Index("webhook_dead_hook", dead.c.hook, dead.c.at)
ADD_DEAD = insert(dead)
DEAD_OF = statement(
    select(dead).where(dead.c.hook == bindparam("hook")).order_by(dead.c.at, dead.c.id).limit(bindparam("limit"))
)
DEAD_ONE = find(dead)
REMOVE_DEAD = remove(dead, "id")
REMOVE_ALL_DEAD = remove(dead, "hook")
