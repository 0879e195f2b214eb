"""Twin index terms, and statements that search devices by them.

A twin's terms are written after its commits; until then the twin is marked, and a search can read it as well.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Index,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
    update,
)

from birthmark.iothub.model import TwinConfiguration
from birthmark.iothub.rules.twin_query_plans import (
    AllTwins,
    DisabledTwins,
    Edge,
    Leaf,
    NamedWithin,
    TwinsByName,
    TwinsByRange,
    TwinsByTerm,
    ValueSpan,
)
from birthmark.iothub.store import CHANGED, UNINDEXED, devices, modules, twins
from birthmark.store import Changes, Statement, metadata, statement
from birthmark.store.compiled_statements import BoundParameters, Engine
from birthmark.store.database import Row
from birthmark.store.device_name_prefix_index import ordered_text
from birthmark.store.plain_and_encrypted_column_types import text
from birthmark.store.table_statements import find, insert_into, is_in_list, remove

terms = Table(
    "hub_terms",
    metadata,
    text("place", key=True),
    *(ordered_text(name, key=True) for name in ("path", "value", "subject")),
    sqlite_with_rowid=False,
)
Index("hub_terms_subject", terms.c.subject, terms.c.place)


def _twin(hub: str, device_id: str, *, is_kept: bool) -> Any:
    """Return a SELECT of a twin's name that locks it against deletion, or with `is_kept` also against changes.

    It skips locked twins. An indexer of many twins waits for no lock, as it could deadlock with a worker that waits for
    it.
    """
    named = select(twins.c.device_id).where(twins.c.hub == bindparam(hub), twins.c.device_id == bindparam(device_id))
    return named.with_for_update(skip_locked=True, key_share=True, read=not is_kept).correlate(None)


def _adding(engine: Engine) -> Any:
    twin = _twin("place", "subject", is_kept=False).subquery()
    place, path, value = (bindparam(name, type_=terms.c[name].type) for name in ("place", "path", "value"))
    # Without a condition, SQLite takes ON CONFLICT for a condition of the join.
    found = select(place, path, value, twin.c.device_id).where(twin.c.device_id.is_not(None))
    made = insert_into(engine, terms)
    return made.from_select([column.name for column in terms.columns], found).on_conflict_do_nothing()


ADD_TERM = Statement(_adding)
"""Add a term only while the twin exists; otherwise the term would never be deleted."""
DROP_TERM = remove(
    terms,
    *("place", "path", "value"),
    terms.c.subject == _twin("place", "subject", is_kept=False).scalar_subquery(),
)
DROP_TERMS = remove(terms, "place", "subject")
_DROP_BELOW = remove(
    terms, "place", terms.c.subject >= bindparam("first", type_=Text), terms.c.subject < bindparam("beyond", type_=Text)
)
DROP_PLACE = remove(terms, "place")
# Uses the subject index: a place has very many rows.
TERMS_OF = find(terms, terms.c.place + literal("", Text) == bindparam("place"), is_in_list(terms.c.subject))

_IN_STATE = UNINDEXED, twins.c.unindexed == bindparam("state")
_AFTER = tuple_(bindparam("hub", type_=Text), bindparam("device_id", type_=Text))
NEXT_UNINDEXED = statement(
    select(twins)
    .where(*_IN_STATE, tuple_(twins.c.hub, twins.c.device_id) > _AFTER)
    .order_by(twins.c.hub, twins.c.device_id)
    .limit(bindparam("limit"))
)
_SOME = select(literal(1)).where(*_IN_STATE).limit(bindparam("limit")).subquery()
WAITING = statement(select(func.count().label("count")).select_from(_SOME))
"""Count of twins in a state, up to a limit."""
INDEXED = statement(
    update(twins)
    .where(
        twins.c.hub == bindparam("key_hub"),
        twins.c.device_id == _twin("key_hub", "key_device_id", is_kept=True).scalar_subquery(),
    )
    .values(
        unindexed=case(
            (
                and_(twins.c.version == bindparam("key_version"), twins.c.body == bindparam("key_body")),
                bindparam("state", type_=twins.c.unindexed.type),
            ),
            else_=literal_column(str(CHANGED)),
        )
    )
)
"""Removes the mark of a twin that is unchanged since it was read; a changed one stays marked."""

_DEVICE = [column for column in devices.columns if not column.name.endswith("_key")]
_KEYS = {column.name: None for column in devices.columns if column.name.endswith("_key")}


def without_terms(hub: str, name: str) -> Changes:
    """Return changes that delete the terms of a device and its modules, or of a module."""
    changes = Changes().run(DROP_TERMS, place=hub, subject=name)
    return changes.run(_DROP_BELOW, place=hub, first=f"{name}/", beyond=f"{name}0")  # the character after the slash


class _Values(msgspec.Struct, array_like=True):
    """A section with its values only."""

    values: dict[str, Any]
    stamps: msgspec.Raw


class TwinIndexEntry(msgspec.Struct, array_like=True):
    """Indexed parts of a twin."""

    tags: dict[str, Any]
    desired: _Values
    reported: _Values
    model_id: str = ""
    configurations: dict[str, TwinConfiguration] = {}


values_of = msgspec.msgpack.Decoder(TwinIndexEntry).decode


def device_row_of(row: Row) -> dict[str, Any]:
    """Return the row of a device from a search result, which has no keys."""
    return {**{name: row[name] for name in (column.name for column in _DEVICE)}, **_KEYS}


_TWIN = twins.c.version.label("twin_version"), twins.c.body.label("twin_body")
_MODULE = [column for column in modules.columns if not column.name.endswith("_key")]
_NAME = modules.c.device_id + "/" + modules.c.module_id
_OF_DEVICE = and_(devices.c.hub == modules.c.hub, devices.c.device_id == modules.c.device_id)
MODULES_PAGE = statement(
    select(*_MODULE, devices.c.enabled, *_TWIN)
    .select_from(
        modules.join(devices, _OF_DEVICE).outerjoin(
            twins, and_(twins.c.hub == modules.c.hub, twins.c.device_id == _NAME)
        )
    )
    .where(
        modules.c.hub == bindparam("hub"),
        tuple_(modules.c.device_id, modules.c.module_id)
        > tuple_(bindparam("device_id", type_=Text), bindparam("module_id", type_=Text)),
    )
    .order_by(modules.c.device_id, modules.c.module_id)
    .limit(bindparam("limit"))
)


DEVICES_NAMED = statement(
    select(devices.c.device_id.label("subject"), *_DEVICE, *_TWIN)
    .select_from(devices.outerjoin(twins, and_(twins.c.hub == devices.c.hub, twins.c.device_id == devices.c.device_id)))
    .where(devices.c.hub == bindparam("hub"), is_in_list(devices.c.device_id))
)


def module_row_of(row: Row) -> dict[str, Any]:
    """Return the row of a module from a search result, which has no keys."""
    names = (*(column.name for column in _MODULE), "enabled")
    return {**{name: row[name] for name in names}, **_KEYS}


def twin_columns(row: Row) -> dict[str, Any]:
    """Return the twin columns of a search result."""
    return {"version": row["twin_version"], "body": row["twin_body"]}


def counting(hub: str, leaf: Leaf, limit: int) -> Statement:
    """Return a SELECT of the number of matches of a leaf, counted up to `limit`."""
    given = BoundParameters()
    some = _select(given, hub, leaf).limit(limit).subquery()
    return given.statement(select(func.count().label("count")).select_from(some))


def next_of(hub: str, leaves: Sequence[Leaf], states: Sequence[int], after: str, limit: int) -> Statement:
    """Return a SELECT of the next `limit` devices by id, candidates of a plan or in one of the states.

    `subject` is a candidate; a row without `hub` is of a deleted one.
    """
    given = BoundParameters()
    parts = [_some(_select(given, hub, leaf, after), limit) for leaf in leaves]
    parts += [_some(_unindexed(given, hub, state, after), limit) for state in states]
    if len(parts) == 1:
        candidates = parts[0].subquery()
    else:
        each = union_all(*(select(part.subquery().c.subject) for part in parts)).subquery()
        candidates = select(each.c.subject).distinct().order_by(each.c.subject).limit(limit).subquery()
    subject = candidates.c.subject
    known = candidates.outerjoin(devices, and_(devices.c.hub == given(hub), devices.c.device_id == subject)).outerjoin(
        twins, and_(twins.c.hub == given(hub), twins.c.device_id == subject)
    )
    return given.statement(select(subject, *_DEVICE, *_TWIN).select_from(known).order_by(subject))


def _some(value: Any, limit: int) -> Any:
    return value.order_by(value.selected_columns.subject.element).limit(limit)


def _unindexed(parameters: BoundParameters, hub: str, state: int, after: str) -> Any:
    is_so = twins.c.unindexed == literal_column(str(state))
    named = select(twins.c.device_id.label("subject"))
    return named.where(UNINDEXED, is_so, twins.c.hub == parameters(hub), twins.c.device_id > parameters(after))


def _select(parameters: BoundParameters, hub: str, leaf: Leaf, after: str = "") -> Any:  # noqa: PLR0911 - one per form
    """Return a SELECT of the subjects that match a leaf, after a given subject."""
    if isinstance(leaf, TwinsByTerm | TwinsByRange):
        named = select(terms.c.subject.label("subject"))
        found = named.where(
            terms.c.place == parameters(hub),
            terms.c.path == parameters(leaf.path),
            *_behind(parameters, terms.c.subject, after),
        )
        return found.where(*_valued(parameters, leaf))
    found = select(devices.c.device_id.label("subject")).where(devices.c.hub == parameters(hub))
    if isinstance(leaf, NamedWithin) and leaf.span.low > after:  # of two lower bounds, an index uses either
        return found.where(*_within(parameters, devices.c.device_id, leaf.span))
    found = found.where(*_behind(parameters, devices.c.device_id, after))
    match leaf:
        case TwinsByName(names=()):  # IN cannot be empty
            return found.where(literal_column("1") == literal_column("0"))
        case TwinsByName(names=names):
            return found.where(devices.c.device_id.in_([parameters(name, Text) for name in names]))
        case NamedWithin(span=span):
            return found.where(*_within(parameters, devices.c.device_id, span)[1:])
        case DisabledTwins():
            return found.where(devices.c.enabled == literal_column("0"))
        case Edge():
            return found.where(devices.c.iot_edge == literal_column("1"))
        case AllTwins():
            return found


def _behind(parameters: BoundParameters, column: Any, after: str) -> list[Any]:
    return [column > parameters(after)] if after else []


def _valued(parameters: BoundParameters, leaf: TwinsByTerm | TwinsByRange) -> list[Any]:
    if isinstance(leaf, TwinsByRange):
        return _within(parameters, terms.c.value, leaf.span)
    if len(leaf.values) == 1:
        return [terms.c.value == parameters(leaf.values[0])]
    return [terms.c.value.in_([parameters(value, Text) for value in leaf.values])]


def _within(parameters: BoundParameters, column: Any, span: ValueSpan) -> list[Any]:
    parts = [column >= parameters(span.low)]
    if span.high is not None:
        parts.append(column <= parameters(span.high) if span.with_high else column < parameters(span.high))
    return parts
