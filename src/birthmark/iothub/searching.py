"""The terms that twins are found by, and statements that look through devices by them.

A twin's terms are written behind its commits; until then it is marked, and every search looks at it as well. So what a
search finds is what there is, whatever the index has seen of it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Index, Table, Text, and_, bindparam, func, literal, literal_column, select, union_all

from birthmark.iothub.rules.queries import Edge, Everything, Leaf, Named, NamedWithin, Off, Span, With, Within
from birthmark.iothub.store import BEYOND_INDEX, TO_INDEX, devices, twins
from birthmark.store import Statement, insert, metadata, statement
from birthmark.store.columns import text
from birthmark.store.database import Row
from birthmark.store.keyed import among, change, find, remove
from birthmark.store.ordering import ordered_text

terms = Table(
    "hub_terms",
    metadata,
    text("place", key=True),
    *(ordered_text(name, key=True) for name in ("path", "value", "subject")),
    sqlite_with_rowid=False,
)
Index("hub_terms_subject", terms.c.subject, terms.c.place)
ADD_TERM = insert(terms, ignore_existing=True)
DROP_TERM = remove(terms)
DROP_TERMS = remove(terms, "place", "subject")
DROP_PLACE = remove(terms, "place")
# By their subjects: of one place there are very many.
TERMS_OF = find(terms, terms.c.place + literal("", Text) == bindparam("place"), among(terms.c.subject))

_TO_INDEX = twins.c.unindexed == literal_column(str(TO_INDEX))
UNINDEXED = statement(select(twins).where(_TO_INDEX).order_by(twins.c.hub, twins.c.device_id).limit(bindparam("limit")))
COUNT_UNINDEXED = statement(select(func.count().label("count")).select_from(twins).where(_TO_INDEX))
INDEXED = change(twins, ("unindexed",), "hub", "device_id", "version", "body", _TO_INDEX)

_DEVICE = [column for column in devices.columns if not column.name.endswith("_key")]
_KEYS = {column.name: None for column in devices.columns if column.name.endswith("_key")}


class _Values(msgspec.Struct, array_like=True):
    """A section of which nothing but its values is looked at."""

    values: dict[str, Any]
    stamps: msgspec.Raw


values_of = msgspec.msgpack.Decoder(tuple[dict[str, Any], _Values, _Values]).decode


def device_row_of(row: Row) -> dict[str, Any]:
    """Return the row of a device as it was found, which is without its keys."""
    return {**{name: row[name] for name in (column.name for column in _DEVICE)}, **_KEYS}


def twin_columns(row: Row) -> dict[str, Any]:
    """Return the columns of a twin that was found."""
    return {"version": row["twin_version"], "body": row["twin_body"]}


def counting(hub: str, leaf: Leaf, most: int) -> Statement:
    """Return a SELECT of how many a leaf of a plan finds, counted up to `most`."""
    some = _select(hub, leaf).limit(most).subquery()
    return statement(select(func.count().label("count")).select_from(some))


def next_of(hub: str, leaves: Sequence[Leaf], after: str, limit: int) -> Statement:
    """Return a SELECT of the next devices by their ids, `limit` candidates of a plan, with their twins.

    `subject` is a candidate; a row without `hub` is of one that is gone.
    """
    parts = [_some(_select(hub, leaf), after, limit) for leaf in leaves]
    if not any(isinstance(leaf, Everything | Named | NamedWithin) for leaf in leaves):
        parts += [_some(_unindexed(hub, state), after, limit) for state in (TO_INDEX, BEYOND_INDEX)]
    if len(parts) == 1:
        candidates = parts[0].subquery()
    else:
        each = union_all(*(select(part.subquery().c.subject) for part in parts)).subquery()
        candidates = select(each.c.subject).distinct().order_by(each.c.subject).limit(limit).subquery()
    subject = candidates.c.subject
    known = candidates.outerjoin(devices, and_(devices.c.hub == hub, devices.c.device_id == subject)).outerjoin(
        twins, and_(twins.c.hub == hub, twins.c.device_id == subject)
    )
    twin = twins.c.version.label("twin_version"), twins.c.body.label("twin_body")
    return statement(select(subject, *_DEVICE, *twin).select_from(known).order_by(subject))


def _some(found: Any, after: str, limit: int) -> Any:
    subject = found.selected_columns.subject
    return found.where(subject.element > after).order_by(subject.element).limit(limit)


def _unindexed(hub: str, state: int) -> Any:
    is_so = twins.c.unindexed == literal_column(str(state))
    return select(twins.c.device_id.label("subject")).where(is_so, twins.c.hub == hub)


def _select(hub: str, leaf: Leaf) -> Any:  # noqa: PLR0911 - one for each form
    """Return a SELECT of the subjects that a leaf finds, some more than once."""
    found = select(devices.c.device_id.label("subject")).where(devices.c.hub == hub)
    match leaf:
        case Everything():
            return found
        case Named(names=names):
            return found.where(devices.c.device_id.in_([literal(name, Text) for name in names]))
        case NamedWithin(span=span):
            return found.where(*_within(devices.c.device_id, span))
        case Off():
            return found.where(devices.c.enabled == literal_column("0"))
        case Edge():
            return found.where(devices.c.iot_edge == literal_column("1"))
        case With(path=path, values=(value,)):
            return _terms(hub, path).where(terms.c.value == value)
        case With(path=path, values=values):
            return _terms(hub, path).where(terms.c.value.in_([literal(value, Text) for value in values]))
        case Within(path=path, span=span):
            return _terms(hub, path).where(*_within(terms.c.value, span))


def _terms(hub: str, path: str) -> Any:
    return select(terms.c.subject.label("subject")).where(terms.c.place == hub, terms.c.path == path)


def _within(column: Any, span: Span) -> list[Any]:
    parts = [column >= span.low]
    if span.high is not None:
        parts.append(column <= span.high if span.with_high else column < span.high)
    return parts
