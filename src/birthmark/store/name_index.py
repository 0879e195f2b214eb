"""Names of devices by the beginning of any of their words, at each place where they are on record.

A row is a name from one of its words on, in lower case: the beginning of a word is then the beginning of a row, which
an index finds on both engines, and a name of several words is found by two of them in a row, too. Rows are written in
the commit that puts the name on record or takes it off.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Table, Text, bindparam, func, or_, select, tuple_

from birthmark.pki.names import fold
from birthmark.store.columns import text
from birthmark.store.crud_statements import among, find, remove
from birthmark.store.database import DatabaseReader
from birthmark.store.schema import metadata
from birthmark.store.statements import insert, statement
from birthmark.store.unit_of_work import Changes

Ordered = Text().with_variant(Text(collation="C"), "postgresql")
"""The type of such text: a beginning is then a range."""


def ordered_text(name: str, *, key: bool = False) -> Column[Any]:
    """Return a column of text in the order of code points."""
    return Column(name, Ordered, primary_key=key, nullable=False)


MAX_WORDS, MAX_CHARS = 8, 64
"""Of one name: later words are not found, and no more of one than this."""
_LAST = "\U0010ffff"
_WORD = re.compile(r"[0-9a-z\u0080-\U0010ffff]+")

words = Table(
    "words",
    metadata,
    text("place", key=True),
    ordered_text("word", key=True),
    ordered_text("name", key=True),
    sqlite_with_rowid=False,
)
_ADD, _REMOVE = insert(words, ignore_existing=True), remove(words)
_SPELLED = find(words, "place", "word", of=("name",))
FORGET_PLACE = remove(words, "place")
_FROM = tuple_(bindparam("from_word", type_=Text), bindparam("from_name", type_=Text))
FIND = statement(
    select(words.c.word, words.c.name)
    .where(
        words.c.place == bindparam("place"),
        tuple_(words.c.word, words.c.name) > _FROM,  # the one lower bound: of two, PostgreSQL may begin at the lesser
        words.c.word <= bindparam("last"),
    )
    .order_by(words.c.word, words.c.name)
    .limit(bindparam("limit"))
)

_IS_WHOLE = or_(func.length(words.c.name) == func.length(words.c.word), func.length(words.c.word) >= MAX_CHARS)
WHOLE = find(words, "place", among(words.c.word), _IS_WHOLE, of=("name",))
"""Names that are one of some folded ones, or begin so where those are cut."""


async def spelled(database: DatabaseReader, place: str, name: str) -> set[str]:
    """Return how a name is written at a place, where letter case counts."""
    rows = await database.all(_SPELLED, place=place, word=words_of(name)[0])
    return {row["name"] for row in rows if fold(row["name"]) == fold(name)}


def words_of(name: str) -> Sequence[str]:
    """Return a name from each of its words on, as rows have it; whole first."""
    folded = fold(name).replace("\0", "")
    starts = dict.fromkeys([0, *(found.start() for found in _WORD.finditer(folded))])
    return [folded[start : start + MAX_CHARS] for start in list(starts)[:MAX_WORDS]]


def is_first(word: str, name: str, begin: str) -> bool:
    """Say whether a row is the one by which a name is told: the first of its words that begins so."""
    return next((one for one in words_of(name) if one.startswith(begin)), None) == word


def folded(begin: str) -> str:
    """Return a beginning as rows have it."""
    return fold(begin).replace("\0", "")[:MAX_CHARS]


def range_of(begin: str, after_word: str = "", after: str = "") -> dict[str, str]:
    """Return the parameters of `FIND` for a folded beginning, behind a word of a name."""
    word, name = max((begin, ""), (after_word, after))
    return {"from_word": word, "from_name": name, "last": begin + _LAST}


def found(place: str, name: str) -> Changes:
    """Return what has a name found at a place from now on."""
    changes = Changes()
    for word in words_of(name):
        changes.run(_ADD, place=place, word=word, name=name)
    return changes


def lost(place: str, name: str) -> Changes:
    """Return what has it found no more."""
    changes = Changes()
    for word in words_of(name):
        changes.run(_REMOVE, place=place, word=word, name=name)
    return changes
