"""What things and groups are found by: terms, each a field with a value, written with what they are terms of.

`source` says by which part of a subject they came, so that each part replaces its own. What reads as a number is one,
too, in the order of numbers.
"""

from sqlalchemy import Index, Table, Text, bindparam, literal, select, update

from birthmark.store import insert, metadata, partial_index, statement
from birthmark.store.columns import number, text
from birthmark.store.keyed import among, find, remove
from birthmark.store.words import ordered_text

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
