"""The table of requests that are carried out once, and its statements."""

from sqlalchemy import Index, bindparam, func, select

from birthmark.people.once_model import Kept
from birthmark.store import insert, statement
from birthmark.store.keyed import change, find, remove
from birthmark.store.records import Records

KEPT = Records(Kept)
kept = KEPT.table("people_once", "digest", sealed=("answer",))
Index("people_once_who", kept.c.who)
Index("people_once_ends", kept.c.ends_at)
BY_DIGEST = find(kept)
COUNT_OF = statement(
    select(func.count().label("count")).where(kept.c.who == bindparam("who"), kept.c.ends_at > bindparam("now"))
)
ADD = insert(kept, ignore_existing=True)
ANSWERED = change(kept, ("status", "answer"), "digest", "began_at")
FORGET = remove(kept, "digest", "began_at")
PURGE = remove(kept, kept.c.ends_at <= bindparam("now"))
