"""Index of device names by the prefix of any word, for each place where they are registered.

A row is a name from one of its words on, in lower case. The prefix of a word is thus the prefix of a row, which an
index finds on both engines. Two consecutive words find a name as well. Rows are written in the commit that adds or
removes the name.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Table, Text, bindparam, func, or_, select, tuple_

from birthmark.pki.names_and_registration_ids import fold
from birthmark.store.compiled_statements import statement
from birthmark.store.core_tables import metadata
from birthmark.store.database import DatabaseReader
from birthmark.store.plain_and_encrypted_column_types import text
from birthmark.store.table_statements import find, insert, is_in_list, remove
from birthmark.store.unit_of_work import Changes

Ordered = Text().with_variant(Text(collation="C"), "postgresql")
"""Column type for such text: a prefix corresponds to a range."""


def ordered_text(name: str, *, key: bool = False) -> Column[Any]:
    """Return a text column that sorts by code point."""
    return Column(name, Ordered, primary_key=key, nullable=False)


MAX_WORDS, MAX_CHARS = 8, 64
"""Limits per name: words that are indexed, and characters per row."""
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
        tuple_(words.c.word, words.c.name) > _FROM,  # the only lower bound: of two, PostgreSQL may use the smaller
        words.c.word <= bindparam("last"),
    )
    .order_by(words.c.word, words.c.name)
    .limit(bindparam("limit"))
)

_IS_WHOLE = or_(func.length(words.c.name) == func.length(words.c.word), func.length(words.c.word) >= MAX_CHARS)
WHOLE = find(words, "place", is_in_list(words.c.word), _IS_WHOLE, of=("name",))
"""Select names that equal one of several folded names, or start with it if it is truncated."""


async def find_spellings(database: DatabaseReader, scope: str, name: str) -> set[str]:
    """Return the case variants of a name at a place where names are case-sensitive."""
    rows = await database.all(_SPELLED, place=scope, word=words_of(name)[0])
    return {row["name"] for row in rows if fold(row["name"]) == fold(name)}


def words_of(name: str) -> Sequence[str]:
    """Return the rows of a name: its folded text from each word on, the full name first."""
    folded = fold(name).replace("\0", "")
    starts = dict.fromkeys([0, *(found.start() for found in _WORD.finditer(folded))])
    return [folded[start : start + MAX_CHARS] for start in list(starts)[:MAX_WORDS]]


def is_first(word: str, name: str, begin: str) -> bool:
    """Return whether a row represents its name in the results: the first word with this prefix."""
    return next((one for one in words_of(name) if one.startswith(begin)), None) == word


def folded(begin: str) -> str:
    """Return a prefix in the folded form of the rows."""
    return fold(begin).replace("\0", "")[:MAX_CHARS]


def range_of(begin: str, after_word: str = "", after: str = "") -> dict[str, str]:
    """Return the parameters of `FIND` for a folded prefix, after a word of a name."""
    word, name = max((begin, ""), (after_word, after))
    return {"from_word": word, "from_name": name, "last": begin + _LAST}


def found(scope: str, name: str) -> Changes:
    """Return the changes that index a name at a place."""
    changes = Changes()
    for word in words_of(name):
        changes.run(_ADD, place=scope, word=word, name=name)
    return changes


def unindex_name(scope: str, name: str) -> Changes:
    """Return the changes that remove a name from the index."""
    changes = Changes()
    for word in words_of(name):
        changes.run(_REMOVE, place=scope, word=word, name=name)
    return changes
