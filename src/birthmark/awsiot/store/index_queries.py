"""Fleet indexing queries as SQL over terms: the next subjects and whether each matches.

A plan names the terms whose subjects include every match. Each candidate is then tested against the complete query by
its own terms. The caller bounds the number of candidates.
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
    FieldEquals,
    FieldRange,
    Leaf,
    MatchAll,
    NoTerm,
    Query,
    number_of,
)
from birthmark.documents.query_evaluator import ordered
from birthmark.store import Statement, insert, metadata, partial_index, statement
from birthmark.store.compiled_statements import BoundParameters
from birthmark.store.device_name_prefix_index import ordered_text
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.table_statements import find, is_in_list, remove

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
    condition=_COUNTED,
)
ADD = insert(terms, ignore_existing=True)
DROP_SOURCE = remove(terms, "place", "subject", "source")
DROP = remove(terms, "place", "subject")
DROP_ONE = remove(terms)
DROP_VALUE = remove(terms, "place", "field", "value")
DROP_SOME = remove(terms, "place", is_in_list(terms.c.subject))
REPLACE_VALUE = statement(
    update(terms)
    .where(
        terms.c.place == bindparam("key_place"),
        terms.c.field == bindparam("key_field"),
        terms.c.value == bindparam("key_value"),
    )
    .values(value=bindparam("value"))
)
# Uses the subject index: a field has very many rows.
_OF = terms.c.place + literal("", Text) == bindparam("place"), terms.c.field + literal("", Text) == bindparam("field")
VALUES_OF = find(terms, *_OF, is_in_list(terms.c.subject), of=("value",))
SOME_OF = find(terms, *_OF, is_in_list(terms.c.subject), of=("subject", "value"))
SUBJECTS_AT = statement(select(terms.c.subject).where(terms.c.place == bindparam("place")).limit(bindparam("limit")))


_LAST = "\U0010ffff"
_AFTER: ColumnElement[str] = bindparam("after", type_=Text())
_LIMIT: ColumnElement[int] = bindparam("limit", type_=BigInteger())


def count_statement(index_name: str, leaf: FieldEquals | FieldRange, limit: int) -> Statement:
    """Return a SELECT that counts the terms of a condition, up to `most`."""
    given = BoundParameters()
    some = (
        select(literal(1)).where(terms.c.place == given(index_name), _fits(given, leaf, terms)).limit(limit).subquery()
    )
    return given.statement(select(func.count().label("count")).select_from(some))


@dataclass(frozen=True, slots=True)
class Walk:
    """Candidate subjects from the terms of a plan, tested against a query.

    Subject names are terms of `name_field`.
    """

    place: str
    name_field: str
    plan: Sequence[Leaf]
    query: Query


def next_of(walk: Walk) -> Statement:
    """Return a SELECT of the next `limit` subjects after `after`, and whether each matches."""
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


def _subjects(parameters: BoundParameters, walk: Walk, leaf: Leaf) -> Any:
    """Return a SELECT of the subjects that match a condition, in order; an exact value needs no sort."""
    if isinstance(leaf, MatchAll):
        where = [terms.c.field == parameters(walk.name_field), terms.c.value > _AFTER]
        return (
            select(terms.c.subject)
            .where(terms.c.place == parameters(walk.place), *where)
            .order_by(terms.c.value)
            .limit(_LIMIT)
        )
    if isinstance(leaf, FieldEquals) and leaf.field and not leaf.begins:
        found = select(terms.c.subject).where(
            terms.c.place == parameters(walk.place), _fits(parameters, leaf, terms), terms.c.subject > _AFTER
        )
        return found.order_by(terms.c.subject).limit(_LIMIT)
    # Avoids the subject index: few subjects have such a value, and many subjects follow.
    subject = (terms.c.subject + literal("", Text)).label("subject")
    found = (
        select(subject)
        .distinct()
        .where(terms.c.place == parameters(walk.place), _fits(parameters, leaf, terms), subject.element > _AFTER)
    )
    return found.order_by(subject).limit(_LIMIT)


def _holds(
    parameters: BoundParameters, index_name: str, query: Query, subject: ColumnElement[Any]
) -> ColumnElement[bool]:
    match query:
        case MatchAll():
            return literal(1) == 1
        case AllTerms(parts=parts):
            return and_(*(_holds(parameters, index_name, part, subject) for part in parts))
        case AnyTerm(parts=parts):
            return or_(*(_holds(parameters, index_name, part, subject) for part in parts))
        case NoTerm(one=one):
            return not_(_holds(parameters, index_name, one, subject))
        case _:
            # Subjects that have a value are found by index; for the others the few terms of the one subject are
            # scanned.
            has = terms.alias()
            is_there = isinstance(query, FieldEquals) and not query.begins
            at = has.c.place if is_there else has.c.place + literal("", Text)
            return exists().where(
                at == parameters(index_name),
                has.c.subject == subject,
                _fits(parameters, query, has, of_one=not is_there),
            )


def _fits(
    parameters: BoundParameters, leaf: FieldEquals | FieldRange, at: Any, *, of_one: bool = False
) -> ColumnElement[bool]:
    """Return the condition on a row of terms; with `of_one`, it scans the few terms of a single subject."""
    field, value, number = at.c.field, at.c.value, at.c.number
    if of_one:  # otherwise by field, which has very many
        field, value, number = field + literal("", Text), value + literal("", Text), number + literal(0, BigInteger)
    if isinstance(leaf, FieldEquals):
        named = field == parameters(leaf.field)
        if not leaf.field:
            named = field.in_([literal(name, Text) for name in ANY_OF.values()])
        if not leaf.begins:
            return and_(named, value == parameters(leaf.value))
        return (
            and_(named, value >= parameters(leaf.value), value <= parameters(leaf.value + _LAST))
            if leaf.value
            else named
        )
    column: Any = number if leaf.counts else value
    parts = [field == parameters(leaf.field), column.is_not(None)]
    if leaf.low is not None:
        low = _bound(parameters, leaf, leaf.low)
        parts.append(column >= low if leaf.with_low else column > low)
    if leaf.high is not None:
        high = _bound(parameters, leaf, leaf.high)
        parts.append(column <= high if leaf.with_high else column < high)
    return and_(*parts)


def _bound(parameters: BoundParameters, leaf: FieldRange, text: str) -> Any:
    return parameters(ordered(number_of(text) or 0.0), BigInteger) if leaf.counts else parameters(text, Text)
