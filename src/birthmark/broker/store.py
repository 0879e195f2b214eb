"""Tables and statements of the broker: sessions, subscriptions, queues, retained messages, and streams.

sessions:       one row for each stored session; `owner` is the worker that holds the connection.
subscriptions:  by the exact text of the filter, with its shape (`rules.filter_index`).
queue:          rows of messages for one session; a row's key is the position of its last message.
messages:       messages queued for more than one session, stored once.
retained:       the last retained message of a topic.
segments:       a stream's messages, one row for each partition of a commit. `upto` is the number of bytes of the
                stream at that time. At regular intervals `names` lists the devices of a partition since the last such
                row; an empty value means unknown. The sequence number precedes the partition in the key, so that all
rows of a commit are adjacent. Four rows are then as cheap as one (ADR 21).
positions:      the position of a group; for the group without a name, the position up to which a stream is trimmed.

Every write of a session's owner is conditional on owner and epoch, so that a worker that lost the session writes
nothing.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Index,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy import cast as cast_to
from sqlalchemy import insert as insert_into
from sqlalchemy import text as sql

from birthmark.broker.rules.device_queue import MAX_LOCK_S
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.store import Changes, Statement, insert, metadata, partial_index, statement, upsert
from birthmark.store.core_tables import RowId
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.table_statements import (
    change,
    change_if_free,
    find,
    guard_exists,
    guard_unchanged,
    is_in_list,
    page,
    remove,
    remove_if_free,
)

sessions = Table(
    "sessions",
    metadata,
    text("space", key=True),
    text("client", key=True),
    number("epoch"),
    text("owner", optional=True),
    number("expires_at", optional=True),  # NULL while connected, and if it never ends
    *(number(name) for name in ("expiry_s", "tail", "cursor", "sent")),
    blob("will", optional=True),
    number("will_at", optional=True),
    number("seen_at", optional=True),  # last claim or release by a worker
    text("gone", optional=True),  # close reason
    sqlite_with_rowid=False,
)
_EXPIRING = sessions.c.expires_at.is_not(None)
_WILLING = sessions.c.will_at.is_not(None)
_OWNED = sessions.c.owner.is_not(None)
partial_index("sessions_expires_at", sessions.c.expires_at, condition=_EXPIRING)
partial_index("sessions_will_at", sessions.c.will_at, condition=_WILLING)
partial_index("sessions_owner", sessions.c.owner, condition=_OWNED)

subscriptions = Table(
    "subscriptions",
    metadata,
    *(text(name, key=True) for name in ("space", "filter", "client", "share")),
    text("shape"),
    *(number(name) for name in ("qos", "options")),
    sqlite_with_rowid=False,
)
Index("subscriptions_client", subscriptions.c.space, subscriptions.c.client)

queue = Table(
    "queue",
    metadata,
    *(text(name, key=True) for name in ("space", "client")),
    number("last", key=True),
    *(number(name) for name in ("count", "at")),
    number("message", optional=True),
    blob("body", optional=True),
)
_SHARED = queue.c.message.is_not(None)
partial_index("queue_message", queue.c.message, condition=_SHARED)

# Ids increase with time: microseconds since 1970, shifted by eight bits.
messages = Table("messages", metadata, number("id", key=True), blob("body"))

retained = Table(
    "retained",
    metadata,
    *(text(name, key=True) for name in ("space", "topic")),
    number("at"),
    number("expires_at", optional=True),
    *(number(name) for name in ("qos", "size")),
    blob("body"),
)

_LASTS_SO_LONG = retained.c.expires_at.is_not(None)
partial_index("retained_expires_at", retained.c.expires_at, condition=_LASTS_SO_LONG)

workers = Table("workers", metadata, text("id", key=True), *(number(name) for name in ("beat", "missed", "heard")))
JOIN = insert(workers)
BEAT = change(workers, ("beat",), "id", "beat", "missed")
MARK = change(workers, ("missed",), "id", "missed")
HEARD = change(workers, ("heard",), "id")
HEARD_AND_LIVES = change(workers, ("heard", "beat"), "id", "beat", "missed")
WORKERS = statement(select(workers).order_by(workers.c.id).limit(bindparam("limit")))
WORKER = find(workers)
DECLARE_DEAD = remove_if_free(workers, "id", "beat")  # not while a commit relies on it
LEAVE = remove(workers)
STILL_LIVES = guard_exists(workers)

inbox = Table(
    "inbox",
    metadata,
    *(text(name, key=True) for name in ("space", "client")),
    number("seq", key=True),
    text("id"),
    *(number(name) for name in ("enqueued_at", "expires_at", "deliveries")),
    text("lock", optional=True),
    number("locked_until", optional=True),
    text("feedback"),
    blob("body"),
)
Index("inbox_expires_at", inbox.c.expires_at)

TOTALS = tuple(f"total_{partition}" for partition in range(PARTITIONS))
"""Number of messages that each partition of a stream has had through a commit, with those that retention removed."""
END = ("seq", "at", "upto", *TOTALS)

segments = Table(
    "segments",
    metadata,
    text("stream", key=True),
    number("seq", key=True),
    number("partition", key=True),
    *(number(name) for name in ("at", "count", "upto")),
    *(number(name) for name in TOTALS),
    blob("names", optional=True),
    blob("body"),
)
_NAMED = segments.c.names.is_not(None)
partial_index(
    "segments_names",
    *(segments.c[name] for name in ("stream", "partition", "seq")),
    condition=_NAMED,
)

stream_ends = Table("stream_ends", metadata, text("stream", key=True), *(number(name) for name in END))

positions = Table(
    "positions",
    metadata,
    *(text(name, key=True) for name in ("stream", "grp")),
    number("partition", key=True),
    number("position"),
)

# Table of version 0.1.0 for AWS sessions, with one row per message; the first start migrates it.
queued_before = Table(
    "aws_queued",
    metadata,
    Column("seq", RowId, primary_key=True, autoincrement=True),
    *(text(name) for name in ("client_id", "topic")),
    blob("payload"),
    sqlite_autoincrement=True,
)
Index("aws_queued_client", queued_before.c.client_id, queued_before.c.seq)
QUEUED_BEFORE = statement(select(queued_before).order_by(queued_before.c.seq).limit(bindparam("limit")))
MOVED = remove(queued_before)

# ---- sessions

_NAME = ("space", "client")
_AS_OWNER = ("space", "client", "epoch", "owner")
_RECORD = ("epoch", "owner", "expires_at", "expiry_s", "tail", "cursor", "sent", "will", "will_at")
_LEFT_TO_CHANCE = ("epoch", "owner", "expires_at", "expiry_s", "cursor", "sent", "will", "will_at", "seen_at", "gone")
RECORD = find(sessions, *_NAME, of=_RECORD)
SESSION = find(sessions)
ADD = insert(sessions)
ADD_IF_NEW = insert(sessions, ignore_existing=True)
CLAIM = change(sessions, _LEFT_TO_CHANCE, *_NAME, "epoch", "tail")
ADVANCE = change(sessions, ("tail", "cursor"), *_AS_OWNER, "tail")
ADVANCE_AWAY = change_if_free(sessions, ("tail",), *_NAME, "epoch", "tail", sessions.c.owner.is_(None))
SETTLE = change(sessions, ("cursor",), *_AS_OWNER)
SET_TAIL = change(sessions, ("tail",), *_NAME)
STILL_MINE = guard_unchanged(sessions, *_AS_OWNER)
STILL_AS_READ = guard_unchanged(sessions, *_NAME, "epoch")
RELEASE = change(
    sessions, ("owner", "expires_at", "expiry_s", "cursor", "sent", "will", "will_at", "seen_at", "gone"), *_AS_OWNER
)
WILL_SENT = change(sessions, ("will", "will_at"), *_NAME, "epoch", "will_at")
_UNTOUCHED = and_(
    sessions.c.space == bindparam("space"),
    sessions.c.client == bindparam("client"),
    sessions.c.epoch == bindparam("epoch"),
)
DELETE = remove(sessions, _UNTOUCHED)
COUNT_SESSIONS = statement(select(sessions.c.space, func.count().label("total")).group_by(sessions.c.space))
EXPIRED = statement(
    select(sessions)
    .where(
        _EXPIRING,
        sessions.c.expires_at <= bindparam("now"),
        sessions.c.expires_at - sessions.c.expiry_s * 1_000_000 >= bindparam("since"),
    )
    .order_by(sessions.c.expires_at)
    .limit(bindparam("limit"))
)
NEXT_TO_EXPIRE = statement(
    select(sessions)
    # Nearly all expiring sessions belong to one space; with the plain name SQLite would sort all of them to find the
    # first.
    .where(_EXPIRING, sessions.c.space.concat("") == bindparam("space"))
    .order_by(sessions.c.expires_at)
    .limit(bindparam("limit"))
)
FIRST_EXPIRY = statement(select(func.min(sessions.c.expires_at).label("at")).where(_EXPIRING))
FIRST_WILL = statement(select(func.min(sessions.c.will_at).label("at")).where(_WILLING))
DUE_WILLS = statement(
    select(sessions)
    .where(_WILLING, sessions.c.will_at <= bindparam("now"))
    .order_by(sessions.c.will_at)
    .limit(bindparam("limit"))
)
OWNED_BY = statement(select(sessions).where(sessions.c.owner == bindparam("owner")).limit(bindparam("limit")))


def _owners() -> Any:
    """Return a query of each owner once, which looks up the next one in the index: DISTINCT would read all sessions."""
    found = select(func.min(sessions.c.owner).label("owner")).where(_OWNED).cte("owners", recursive=True)
    following = select(func.min(sessions.c.owner)).where(_OWNED, sessions.c.owner > found.c.owner).scalar_subquery()
    found = found.union_all(select(following).where(found.c.owner.is_not(None)))
    return select(found.c.owner).where(found.c.owner.is_not(None)).limit(bindparam("limit"))


OWNERS = statement(_owners())
OWNED_BY_OTHERS = statement(
    select(sessions).where(_OWNED, sessions.c.owner != bindparam("owner")).limit(bindparam("limit"))
)
FREE = change(sessions, ("epoch", "owner", "expires_at", "will", "will_at", "seen_at", "gone"), *_AS_OWNER)
SEEN = find(sessions, "space", is_in_list(sessions.c.client), of=("client", "owner", "seen_at", "gone"))
OWNER = find(sessions, of=("owner",))
OWNED_NAMED = find(sessions, "space", is_in_list(sessions.c.client), _OWNED, of=("client",))
OWNED_SOME = statement(
    select(sessions.c.client).where(_OWNED, sessions.c.space == bindparam("space")).limit(bindparam("limit"))
)
OWNED_PAGE = page(sessions, "client", "space", of=("client", "owner"))

# ---- subscriptions

SUBSCRIBE = upsert(subscriptions)
UNSUBSCRIBE = remove(subscriptions)
UNSUBSCRIBE_ALL = remove(subscriptions, *_NAME)
SUBSCRIPTIONS = find(subscriptions, *_NAME, of=("filter", "share", "qos", "options", "shape"), limit=1000)
SHAPES = statement(
    select(subscriptions.c.space, subscriptions.c.shape, func.count().label("total")).group_by(
        subscriptions.c.space, subscriptions.c.shape
    )
)
WITHOUT_SHAPE = find(subscriptions, subscriptions.c.shape == "", limit=1000)


def _matching(engine: str) -> object:
    """Return a query with the list as one parameter.

    The statement therefore does not depend on the length of the list.
    """
    found: ColumnElement[bool]
    if engine == "sqlite":
        found = subscriptions.c.filter.in_(sql("SELECT value FROM json_each(:filters)"))
    else:  # an array is looked up in the index; of a list of unknown length, PostgreSQL joins the complete space
        array = "ARRAY(SELECT json_array_elements_text(CAST(:filters AS json)))"
        found = subscriptions.c.filter == func.any(sql(array))
    return (
        select(*(subscriptions.c[name] for name in ("filter", "client", "share", "qos", "options")))
        # Without an order: otherwise SQLite would read a complete space in that order instead of looking up a few
        # filters.
        .where(subscriptions.c.space == bindparam("space"), found)
        .limit(bindparam("limit"))
    )


def _matching_anywhere(engine: str) -> object:
    """Return the same query with session owners; workers know each other's sessions only from their rows."""
    return _with_owners(_matching(engine))


def _with_owners(value: Any) -> Any:
    joined = sessions.c.space == subscriptions.c.space, sessions.c.client == subscriptions.c.client
    return value.add_columns(sessions.c.owner, sessions.c.expiry_s).join(sessions, and_(*joined))


_OF_FILTER = (
    select(*(subscriptions.c[name] for name in ("filter", "client", "share", "qos", "options")))
    .where(
        subscriptions.c.space == bindparam("space"),
        subscriptions.c.filter == bindparam("filter"),
        tuple_(subscriptions.c.client, subscriptions.c.share) > tuple_(bindparam("client"), bindparam("share")),
    )
    .order_by(subscriptions.c.client, subscriptions.c.share)
    .limit(bindparam("limit"))
)
MATCHING_PAGE = statement(_OF_FILTER)
MATCHING_PAGE_ANYWHERE = statement(_with_owners(_OF_FILTER))


MATCHING_ANYWHERE = Statement(_matching_anywhere)  # type: ignore[arg-type] # as below
MATCHING = Statement(_matching)  # type: ignore[arg-type] # SELECT is executable; only SQLAlchemy's types show it

# ---- queues

APPEND = insert(queue)
KEEP_MESSAGE = insert(messages)
QUEUED_AFTER = statement(
    select(queue.c.last, queue.c.count, queue.c.body, messages.c.body.label("shared"))
    .select_from(queue.outerjoin(messages, messages.c.id == queue.c.message))
    .where(
        queue.c.space == bindparam("space"), queue.c.client == bindparam("client"), queue.c.last > bindparam("after")
    )
    .order_by(queue.c.last)
    .limit(bindparam("limit"))
)
DROP_SETTLED = remove(queue, "space", "client", queue.c["last"] <= bindparam("upto"))
DROP_QUEUE = remove(queue, *_NAME)
QUEUE_SIZES = statement(
    select(queue.c["last"], func.coalesce(func.length(queue.c.body), 0).label("size"))
    .where(queue.c.space == bindparam("space"), queue.c.client == bindparam("client"))
    .order_by(queue.c["last"])
    .limit(bindparam("limit"))
)
LAST_MESSAGE = statement(select(func.max(messages.c.id).label("id")))
_IS_UNUSED = (
    messages.c.id > bindparam("after"),
    messages.c.id < bindparam("before"),
    ~select(queue.c.message).where(queue.c.message == messages.c.id).exists(),
)
UNUSED = statement(
    select(messages.c.id, func.length(messages.c.body).label("size"))
    .where(*_IS_UNUSED)
    .order_by(messages.c.id)
    .limit(bindparam("limit"))
)
DROP_UNUSED = remove(messages, *_IS_UNUSED)

# ---- device queues


def _lock_as_seen(name: str) -> ColumnElement[bool]:
    """Return the condition that a lock, or its absence, is unchanged since it was read."""
    seen = bindparam(name, type_=Text)
    return or_(inbox.c.lock == seen, and_(inbox.c.lock.is_(None), seen.is_(None)))


PUT_LETTER = insert(inbox)
LETTERS = statement(
    select(inbox)
    .where(inbox.c.space == bindparam("space"), inbox.c.client == bindparam("client"))
    .order_by(inbox.c.seq)
    .limit(bindparam("limit"))
)
LOCK_LETTER = change(
    inbox, ("lock", "locked_until", "deliveries"), *_NAME, "seq", "deliveries", _lock_as_seen("key_lock")
)
DROP_LETTER = remove(inbox, *_NAME, "seq", "deliveries", _lock_as_seen("lock"))
_UNLOCKED = or_(
    inbox.c.locked_until.is_(None),
    inbox.c.locked_until <= bindparam("now"),
    inbox.c.locked_until > bindparam("now") + MAX_LOCK_S * 1_000_000,  # from a clock ahead
)
LETTERS_DUE = statement(
    select(inbox)
    .where(inbox.c.expires_at <= bindparam("now"), inbox.c.enqueued_at >= bindparam("since"), _UNLOCKED)
    .order_by(inbox.c.expires_at)
    .limit(bindparam("limit"))
)
FIRST_LETTER_DUE = statement(
    select(func.min(inbox.c.expires_at).label("at")).where(inbox.c.expires_at > bindparam("now"))
)

_OF_INBOX = (inbox.c.space == bindparam("space"), inbox.c.client == bindparam("client"))
FREE_LETTER = statement(
    select(inbox).where(*_OF_INBOX, inbox.c.seq > bindparam("after"), _UNLOCKED).order_by(inbox.c.seq).limit(1)
)
HELD_LETTER = statement(select(inbox).where(*_OF_INBOX, inbox.c.lock == bindparam("lock")))
COUNT_LETTERS_OF = statement(select(func.count().label("count"), func.max(inbox.c.seq).label("last")).where(*_OF_INBOX))
COUNT_LETTERS_OF_MANY = statement(
    select(inbox.c.client, func.count().label("count"))
    .where(inbox.c.space == bindparam("space"), is_in_list(inbox.c.client))
    .group_by(inbox.c.client)
)
FIRST_LOCK_END = statement(
    select(func.min(inbox.c.locked_until).label("at")).where(*_OF_INBOX, inbox.c.locked_until > bindparam("now"))
)
FREE_LETTER_OF = statement(
    update(inbox).where(*_OF_INBOX, inbox.c.lock == bindparam("held")).values(lock=null(), locked_until=null())
)
FREE_HELD = statement(
    update(inbox)
    .where(inbox.c.lock >= bindparam("first"), inbox.c.lock < bindparam("beyond"))
    .values(lock=null(), locked_until=null())
)
_AFTER = or_(
    inbox.c.space > bindparam("space"),
    and_(inbox.c.space == bindparam("space"), inbox.c.client > bindparam("client")),
)
WAITED_FOR = statement(
    select(inbox.c.space, inbox.c.client)
    .where(_AFTER, _UNLOCKED)
    .distinct()
    .order_by(inbox.c.space, inbox.c.client)
    .limit(bindparam("limit"))
)
SPACES_OVER = statement(
    select(inbox.c.space, func.count().label("count"))
    .where(inbox.c.client == bindparam("client"))
    .group_by(inbox.c.space)
    .having(func.count() > bindparam("most"))
)
COUNT_LETTERS = statement(select(func.count().label("total")).select_from(inbox))

# ---- retained

RETAIN = upsert(retained)
FORGET = remove(retained)
RETAINED = find(retained)
RETAINED_PAGE = page(retained, "topic", "space", of=("topic", "at", "expires_at", "qos", "size"))
COUNT_RETAINED = statement(select(retained.c.space, func.count().label("total")).group_by(retained.c.space))
EXPIRED_RETAINED = statement(
    select(retained.c.space, retained.c.topic, retained.c.size)
    .where(retained.c.expires_at <= bindparam("now"), retained.c.at >= bindparam("since"))
    .limit(bindparam("limit"))
)
FORGET_EXPIRED = remove(retained, "space", "topic", retained.c.expires_at <= bindparam("now"))


# ---- streams


def _add_segments(count: int) -> Statement:
    """Return one INSERT of `count` rows: a single statement is its own transaction and needs one call."""
    shared = ("stream", *END)
    own = ("partition", "count", "names", "body")
    rows = [
        {name: bindparam(name, type_=segments.c[name].type) for name in shared}
        | {name: bindparam(f"{name}_{place}", type_=segments.c[name].type) for name in own}
        for place in range(count)
    ]
    return statement(insert_into(segments).values(rows).inline())


def _add_segments_at_the_end(count: int) -> Statement:
    """Return one INSERT of `count` rows at the end position that `MOVE_END` set in the same commit."""

    def row(position: int) -> Select[Any]:
        own = ("partition", "count", "names", "body")
        given = {
            name: cast_to(bindparam(f"{name}_{position}", type_=segments.c[name].type), segments.c[name].type)
            for name in own
        }
        ours = {name: stream_ends.c[name] for name in ("stream", *END)}
        columns = ours | given
        return select(*(columns[column.name] for column in segments.columns)).where(
            stream_ends.c.stream == bindparam("stream")
        )

    names = [column.name for column in segments.columns]
    return statement(insert_into(segments).from_select(names, union_all(*(row(place) for place in range(count)))))


# If workers share a stream, the row of its end is locked from here to the commit, so that a reader up to the end sees
# all earlier commits.
ADD_AT_THE_END = {count: _add_segments_at_the_end(count) for count in range(1, PARTITIONS + 1)}
MOVE_END = statement(
    update(stream_ends)
    .where(stream_ends.c.stream == bindparam("stream"))
    .values(
        seq=stream_ends.c.seq + 1,
        at=case(
            (stream_ends.c.at > bindparam("now", type_=BigInteger), stream_ends.c.at),
            else_=bindparam("now", type_=BigInteger),
        ),
        upto=stream_ends.c.upto + bindparam("size", type_=BigInteger),
        **{name: stream_ends.c[name] + bindparam(f"more_{name}", type_=BigInteger) for name in TOTALS},
    )
)
ADD_END = insert(stream_ends, ignore_existing=True)
RAISE_END = change(stream_ends, END, "stream", stream_ends.c.seq < bindparam("least"))
DROP_END = remove(stream_ends)

ADD_SEGMENTS = {count: _add_segments(count) for count in range(1, PARTITIONS + 1)}
_OF_STREAM = segments.c.stream == bindparam("stream")
_END = tuple(segments.c[name] for name in END)
NEWEST = statement(select(*_END).where(_OF_STREAM).order_by(segments.c.seq.desc()).limit(1))
_BODY = tuple(segments.c[name] for name in ("seq", "partition", "count", "body"))
_FORTH = (segments.c.seq, segments.c.partition)
_BACK = (segments.c.seq.desc(), segments.c.partition.desc())
_OF_TWO = segments.c.partition.in_([bindparam("partition", type_=Integer), bindparam("other", type_=Integer)])
_FROM = segments.c.seq >= bindparam("first")
_UNTIL = segments.c.seq <= bindparam("last")
_LIMIT: BindParameter[int] = bindparam("limit")
SEGMENTS_FROM = statement(select(*_BODY).where(_OF_STREAM, _FROM).order_by(*_FORTH).limit(_LIMIT))
SEGMENTS_OF_TWO = statement(select(*_BODY).where(_OF_STREAM, _FROM, _OF_TWO).order_by(*_FORTH).limit(_LIMIT))
SEGMENTS_BACK = statement(select(*_BODY).where(_OF_STREAM, _UNTIL).order_by(*_BACK).limit(_LIMIT))
SEGMENTS_OF_ONE_BACK = statement(
    select(*_BODY)
    .where(_OF_STREAM, segments.c.partition == bindparam("partition"), _FROM, _UNTIL)
    .order_by(segments.c.seq.desc())
    .limit(_LIMIT)
)
NAMED_BEFORE = statement(
    select(segments.c.seq, segments.c.names)
    .where(_OF_STREAM, segments.c.partition == bindparam("partition"), _UNTIL, _NAMED)
    .order_by(segments.c.seq.desc())
    .limit(1)
)
SEGMENT_AT = statement(select(*_END).where(_OF_STREAM, _FROM).order_by(segments.c.seq).limit(1))
SEGMENTS_OF_ONE = statement(
    select(segments.c.at, *_BODY, *(segments.c[name] for name in TOTALS))
    .where(_OF_STREAM, segments.c.partition == bindparam("partition"), _FROM)
    .order_by(segments.c.seq)
    .limit(_LIMIT)
)
OLDEST = statement(
    select(segments.c.seq, segments.c.at, segments.c.upto, func.length(segments.c.body).label("size"))
    .where(_OF_STREAM, _FROM)
    .order_by(segments.c.seq)
    .limit(_LIMIT)
)
TRIM = remove(segments, "stream", segments.c.seq <= bindparam("last"))
THIN_SEGMENT = change(segments, ("body",), "stream", "seq", "partition")
DROP_SEGMENT = remove(segments, "stream", "seq", "partition")
GET_POSITIONS = find(positions, "stream", "grp", of=("partition", "position"))
SET_POSITION = upsert(positions)


def drop_stream(stream: str) -> Changes:
    """Return the changes that delete a stream."""
    changes = Changes().run(_DROP_SEGMENTS, stream=stream).run(_DROP_POSITIONS, stream=stream)
    return changes.run(DROP_END, stream=stream)


_DROP_SEGMENTS, _DROP_POSITIONS = remove(segments, "stream"), remove(positions, "stream")


def drop_client(space: str, client: str) -> Changes:
    """Return the changes that permanently delete the session of a deleted client."""
    changes = Changes()
    for statement_of in _OF_CLIENT:
        changes.run(statement_of, space=space, client=client)
    return changes


def drop_space(space: str) -> Changes:
    """Return the changes that delete every session of a namespace."""
    changes = Changes()
    for statement_of in _OF_SPACE:
        changes.run(statement_of, space=space)
    return changes


_OF_CLIENT = tuple(remove(table, *_NAME) for table in (sessions, subscriptions, queue, inbox))
_OF_SPACE = tuple(remove(table, "space") for table in (sessions, subscriptions, queue, inbox, retained))


def empty(table: Table) -> Statement:
    """Return a DELETE of all rows of a table."""
    return remove(table, true())
