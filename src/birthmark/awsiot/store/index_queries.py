"""Queries as SQL over terms: which subjects come next, and which of them fit.

A plan names the terms by which subjects are gone through, so that all that fit are among them; each is then asked the
whole query by its own few terms. What is gone through is bounded by whoever asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    Table,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    union_all,
    update,
)

from birthmark.awsiot.wire.index_query import (
    ANY_OF,
    AllTerms,
    AnyTerm,
    EveryThing,
    FieldEquals,
    FieldRange,
    Leaf,
    NoTerm,
    Query,
    number_of,
)
from birthmark.documents.query_evaluator import ordered
from birthmark.store import Statement, insert, metadata, partial_index, statement
from birthmark.store.columns import number, text
from birthmark.store.crud_statements import among, find, remove
from birthmark.store.name_index import ordered_text
from birthmark.store.statements import BoundParameters

terms = Table(
    "aws_terms",
    metadata,
    text("place", key=True),
    *(ordered_text(name, key=True) for name in ("field", "value", "subject")),
    text("source"),
    number("number", optional=True),
    sqlite_with_rowid=False,
)
Index("aws_terms_subject", terms.c.subject, terms.c.place, terms.c.source)
_COUNTED = terms.c.number.is_not(None)
partial_index(
    "aws_terms_number",
    terms.c.place,
    terms.c.field,
    terms.c.number,
    terms.c.subject,
    where=_COUNTED,
)
ADD = insert(terms, ignore_existing=True)
DROP_SOURCE = remove(terms, "place", "subject", "source")
DROP = remove(terms, "place", "subject")
DROP_ONE = remove(terms)
DROP_VALUE = remove(terms, "place", "field", "value")
DROP_SOME = remove(terms, "place", among(terms.c.subject))
REPLACE_VALUE = statement(
    update(terms)
    .where(
        terms.c.place == bindparam("key_place"),
        terms.c.field == bindparam("key_field"),
        terms.c.value == bindparam("key_value"),
    )
    .values(value=bindparam("value"))
)
# By their subjects: by their field there are very many.
_OF = terms.c.place + literal("", Text) == bindparam("place"), terms.c.field + literal("", Text) == bindparam("field")
VALUES_OF = find(terms, *_OF, among(terms.c.subject), of=("value",))
SOME_OF = find(terms, *_OF, among(terms.c.subject), of=("subject", "value"))
SUBJECTS_AT = statement(select(terms.c.subject).where(terms.c.place == bindparam("place")).limit(bindparam("limit")))


_LAST = "\U0010ffff"
_AFTER: ColumnElement[str] = bindparam("after", type_=Text())
_LIMIT: ColumnElement[int] = bindparam("limit", type_=BigInteger())


def counting(place: str, leaf: FieldEquals | FieldRange, most: int) -> Statement:
    """Return a SELECT of how many terms a condition has, counted up to `most`."""
    given = BoundParameters()
    some = select(literal(1)).where(terms.c.place == given(place), _fits(given, leaf, terms)).limit(most).subquery()
    return given.statement(select(func.count().label("count")).select_from(some))


@dataclass(frozen=True, slots=True)
class Walk:
    """Subjects by the terms of a plan, each asked a query; their names are terms of `name_field`."""

    place: str
    name_field: str
    plan: Sequence[Leaf]
    query: Query


def next_of(walk: Walk) -> Statement:
    """Return a SELECT of the next `limit` subjects behind `after`, and whether each fits."""
    place, name_field, plan, query = walk.place, walk.name_field, walk.plan, walk.query
    given = BoundParameters()
    parts = [_subjects(given, walk, leaf) for leaf in plan]
    if len(parts) == 1:
        candidates = parts[0].subquery()
    else:
        each = union_all(*(select(part.subquery().c.subject) for part in parts)).subquery()
        candidates = select(each.c.subject).distinct().order_by(each.c.subject).limit(_LIMIT).subquery()
    subject = candidates.c.subject
    here = exists().where(
        terms.c.place == given(place),
        terms.c.field == given(name_field),
        terms.c.value == subject,
        terms.c.subject == subject,
    )
    fits = and_(here, _holds(given, place, query, subject))
    return given.statement(select(subject, fits.label("fits")).order_by(subject))


def _subjects(given: BoundParameters, walk: Walk, leaf: Leaf) -> Any:
    """Subjects that a condition finds, in their order; one by its value alone needs no sorting."""
    if isinstance(leaf, EveryThing):
        where = [terms.c.field == given(walk.name_field), terms.c.value > _AFTER]
        return (
            select(terms.c.subject)
            .where(terms.c.place == given(walk.place), *where)
            .order_by(terms.c.value)
            .limit(_LIMIT)
        )
    if isinstance(leaf, FieldEquals) and leaf.field and not leaf.begins:
        found = select(terms.c.subject).where(
            terms.c.place == given(walk.place), _fits(given, leaf, terms), terms.c.subject > _AFTER
        )
        return found.order_by(terms.c.subject).limit(_LIMIT)
    # By no index of subjects: few have such a value, and many follow.
    subject = (terms.c.subject + literal("", Text)).label("subject")
    found = (
        select(subject)
        .distinct()
        .where(terms.c.place == given(walk.place), _fits(given, leaf, terms), subject.element > _AFTER)
    )
    return found.order_by(subject).limit(_LIMIT)


def _holds(given: BoundParameters, place: str, query: Query, subject: ColumnElement[Any]) -> ColumnElement[bool]:
    match query:
        case EveryThing():
            return literal(1) == 1
        case AllTerms(parts=parts):
            return and_(*(_holds(given, place, part, subject) for part in parts))
        case AnyTerm(parts=parts):
            return or_(*(_holds(given, place, part, subject) for part in parts))
        case NoTerm(one=one):
            return not_(_holds(given, place, one, subject))
        case _:
            # Who has a value is found by that; for the others the few terms of the one subject are looked through.
            has = terms.alias()
            is_there = isinstance(query, FieldEquals) and not query.begins
            at = has.c.place if is_there else has.c.place + literal("", Text)
            return exists().where(
                at == given(place), has.c.subject == subject, _fits(given, query, has, of_one=not is_there)
            )


def _fits(
    given: BoundParameters, leaf: FieldEquals | FieldRange, at: Any, *, of_one: bool = False
) -> ColumnElement[bool]:
    """The condition on one row of terms; `of_one`: of one subject, whose few terms are looked through."""
    field, value, number = at.c.field, at.c.value, at.c.number
    if of_one:  # else by the field, of which there are very many
        field, value, number = field + literal("", Text), value + literal("", Text), number + literal(0, BigInteger)
    if isinstance(leaf, FieldEquals):
        named = field == given(leaf.field)
        if not leaf.field:
            named = field.in_([literal(name, Text) for name in ANY_OF.values()])
        if not leaf.begins:
            return and_(named, value == given(leaf.value))
        return and_(named, value >= given(leaf.value), value <= given(leaf.value + _LAST)) if leaf.value else named
    column: Any = number if leaf.counts else value
    parts = [field == given(leaf.field), column.is_not(None)]
    if leaf.low is not None:
        low = _bound(given, leaf, leaf.low)
        parts.append(column >= low if leaf.with_low else column > low)
    if leaf.high is not None:
        high = _bound(given, leaf, leaf.high)
        parts.append(column <= high if leaf.with_high else column < high)
    return and_(*parts)


def _bound(given: BoundParameters, leaf: FieldRange, text: str) -> Any:
    return given(ordered(number_of(text) or 0.0), BigInteger) if leaf.counts else given(text, Text)
