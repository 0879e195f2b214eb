"""Query language of fleet indexing (developer guide, "Query syntax"): text to a tree of conditions.

`thingName:pump*`, `attributes.site:7 AND NOT shadow.reported.on:true`, `attributes.load > 4`, `attributes.load:[1 TO
9]`, `"two words"`. Adjacent terms are joined with AND. A wildcard is allowed only at the end of a value.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import TypeAlias

from birthmark.errors import InvalidRequestError

MAX_CHARS, MAX_TERMS, MAX_LEVELS = 1000, 32, 10
MAX_VALUE = 256
"""Maximum indexed length of a value; longer values are compared by their first part."""


ANY_OF: Mapping[str, str] = {"registry": "*registry", "groups": "*groups"}
"""Sources of values, with the combined field of each source.

The combined field repeats the values of its source, for terms without a field.
"""


class SearchIndex(Enum):
    """Search index, with its name at AWS."""

    THINGS = "AWS_Things"
    GROUPS = "AWS_ThingGroups"


class QueryInvalidError(InvalidRequestError):
    """The query cannot be parsed."""

    code = "awsiot.query_invalid"
    message = "The query is not valid: {detail}"
    fix = (
        "Use terms such as thingName:pump*, attributes.site:7 or attributes.load:[1 TO 9]. Combine terms with AND, "
        "OR, NOT and parentheses. To match all things, use the wildcard *: `aws iot search-index --query-string "
        "'thingName:*'`"
    )
    detail: str


@dataclass(frozen=True, slots=True)
class FieldEquals:
    """A field with a value; `begins` matches a value prefix.

    Without a field, it matches any name or description field.
    """

    field: str
    value: str
    begins: bool = False


@dataclass(frozen=True, slots=True)
class FieldRange:
    """A field within a range; each bound is inclusive or exclusive, and None is open.

    `counts` means that both bounds are numbers.
    """

    field: str
    low: str | None
    high: str | None
    with_low: bool = True
    with_high: bool = True

    @property
    def counts(self) -> bool:
        return all(number_of(one) is not None for one in (self.low, self.high) if one is not None)


@dataclass(frozen=True, slots=True)
class MatchAll:
    """Query that matches everything."""


@dataclass(frozen=True, slots=True)
class NoTerm:
    """Negation of a condition."""

    one: "Query"


@dataclass(frozen=True, slots=True)
class AllTerms:
    """Conjunction of conditions."""

    parts: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class AnyTerm:
    """Disjunction of conditions."""

    parts: tuple["Query", ...]


Leaf: TypeAlias = FieldEquals | FieldRange | MatchAll
Query: TypeAlias = Leaf | NoTerm | AllTerms | AnyTerm


def count_terms(query: Query) -> int:
    """Return the number of terms that a query tests for each subject."""
    match query:
        case AllTerms(parts=parts) | AnyTerm(parts=parts):
            return sum(map(count_terms, parts))
        case NoTerm(one=one):
            return count_terms(one)
        case _:
            return 1


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<open>\() | (?P<close>\))
      | (?P<quoted>"(?:[^"\\]|\\.)*")
      | (?P<range>[\[{][^\]}\[{]*[\]}])
      | (?P<compare>[<>]=?)
      | (?P<colon>:)
      | (?P<word>(?:[^\s()"\[\]{}<>:\\]|\\.)(?:[^\s()"\[\]{}<>\\:]|\\.)*)
    )""",
    re.VERBOSE | re.DOTALL,
)
_RANGE = re.compile(r"([\[{])\s*(\S+)\s+TO\s+(\S+)\s*([\]}])", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?")
_FIELDS: Mapping[SearchIndex, re.Pattern[str]] = {
    SearchIndex.THINGS: re.compile(
        r"thing(?:Name|Id|TypeName|GroupNames)|attributes\.\S+|connectivity\.(?:connected|timestamp|disconnectReason)"
        r"|registry\.version|shadow\.(?:name\.[a-zA-Z0-9_-]+\.)?(?:desired|reported)\.\S+"
        r"|shadow\.(?:name\.[a-zA-Z0-9_-]+\.)?(?:version|hasDelta)"
    ),
    SearchIndex.GROUPS: re.compile(r"thingGroup(?:Name|Id|Description)|description|parentGroupNames|attributes\.\S+"),
}
_OTHER_NAMES = {"description": "thingGroupDescription"}
_WORDS = frozenset({"AND", "OR", "NOT"})
_Token: TypeAlias = tuple[str, str]


def number_of(text: str) -> float | None:
    """Return the number in a text, or None if it is not a finite number."""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if isfinite(number) else None


def parse_query(text: str, index: SearchIndex = SearchIndex.THINGS) -> Query:
    """Return the query. Raise `QueryInvalidError`."""
    if len(text) > MAX_CHARS:
        raise QueryInvalidError(detail=f"it has more than {MAX_CHARS} characters")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise QueryInvalidError(detail="it contains characters that are not allowed")
    tokens = tuple(_tokens(text))
    if not tokens:
        raise QueryInvalidError(detail="it is empty")
    parser = _Parser(tokens, index)
    found = parser.either()
    if parser.at < len(tokens):
        raise QueryInvalidError(detail=f"{tokens[parser.at][1][:40]!r} is not expected")
    return found


def is_field(name: str, index: SearchIndex) -> bool:
    """Return whether this field is searchable."""
    return _FIELDS[index].fullmatch(name) is not None


def leaves(query: Query) -> Iterator[Leaf]:
    """Yield the leaf conditions of the tree."""
    match query:
        case AllTerms(parts=parts) | AnyTerm(parts=parts):
            for part in parts:
                yield from leaves(part)
        case NoTerm(one=one):
            yield from leaves(one)
        case _:
            yield query


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    count = 0
    while at < end:
        if (found := _TOKEN.match(text, at)) is None or found.lastgroup is None:
            raise QueryInvalidError(detail=f"{text[at : at + 40]!r} cannot be read")
        if (count := count + 1) > 4 * MAX_TERMS + 4 * MAX_LEVELS:
            raise QueryInvalidError(detail=f"it has more than {MAX_TERMS} terms")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()


class _Parser:
    """Recursive-descent parser, from OR down to terms."""

    def __init__(self, tokens: tuple[_Token, ...], index: SearchIndex) -> None:
        self._tokens = tokens
        self._place = index
        self._levels = self._terms = 0
        self.at = 0

    def either(self) -> Query:
        """Parse conditions joined by OR."""
        parts = [self._together()]
        while self._takes("word", "OR"):
            parts.append(self._together())
        return parts[0] if len(parts) == 1 else AnyTerm(tuple(parts))

    def _together(self) -> Query:
        parts = [self._one()]
        while self._takes("word", "AND") or self._goes_on():
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else AllTerms(tuple(parts))

    def _goes_on(self) -> bool:
        kind, text = self._next()
        return kind in {"open", "quoted", "range"} or (kind == "word" and text not in {"AND", "OR"})

    def _one(self) -> Query:
        if self._takes("word", "NOT"):
            return self._deeper(lambda: NoTerm(self._one()))
        if self._takes("open"):
            found = self._deeper(self.either)
            if not self._takes("close"):
                raise QueryInvalidError(detail="a parenthesis is not closed")
            return found
        return self._term()

    def _deeper(self, read: Callable[[], Query]) -> Query:
        self._levels += 1
        if self._levels > MAX_LEVELS:
            raise QueryInvalidError(detail=f"it has more than {MAX_LEVELS} levels")
        found = read()
        self._levels -= 1
        return found

    def _term(self) -> Query:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise QueryInvalidError(detail=f"it has more than {MAX_TERMS} terms")
        kind, text = self._take()
        if kind == "quoted":
            return _bounded(FieldEquals("", _unquoted(text)))
        if kind != "word" or text in _WORDS:
            raise QueryInvalidError(detail=f"a term is missing before {text[:40]!r}" if text else "a term is missing")
        if self._next()[0] == "compare":
            return self._compared(self._field(text), self._take()[1])
        if not self._takes("colon"):
            return MatchAll() if text == "*" else _word("", text)
        return self._value(self._field(text))

    def _value(self, field: str) -> Query:
        kind, text = self._take()
        match kind:
            case "compare":
                return self._compared(field, text)
            case "range":
                return _range(field, text)
            case "quoted":
                return _bounded(FieldEquals(field, _unquoted(text)))
            case "word":
                while self._next()[0] == "colon":  # a value with colons, such as a time
                    self.at += 1
                    kind, more = self._next()
                    text += ":" + (more if kind == "word" else "")
                    self.at += kind == "word"
                return _word(field, text)
            case _:
                raise QueryInvalidError(detail=f"{field} has no value")

    def _compared(self, field: str, sign: str) -> Query:
        kind, text = self._take()
        if kind not in {"word", "quoted"}:
            raise QueryInvalidError(detail=f"{field} is compared with nothing")
        value = _unquoted(text) if kind == "quoted" else _plain(text)
        is_same = sign.endswith("=")
        above = sign.startswith(">")
        return _bounded(FieldRange(field, value if above else None, None if above else value, is_same, is_same))

    def _field(self, text: str) -> str:
        name = _ESCAPED.sub(r"\1", text)
        if not is_field(name, self._place):
            raise QueryInvalidError(detail=f"the field {name[:80]!r} does not exist in {self._place.value}")
        return _OTHER_NAMES.get(name, name)

    def _next(self) -> _Token:
        return self._tokens[self.at] if self.at < len(self._tokens) else ("", "")

    def _take(self) -> _Token:
        found = self._next()
        self.at += 1
        return found

    def _takes(self, kind: str, text: str | None = None) -> bool:
        found = self._next()
        if found[0] != kind or text not in {None, found[1]}:
            return False
        self.at += 1
        return True


def _word(field: str, text: str) -> Query:
    begins = text.endswith("*") and not text.endswith("\\*")
    return _bounded(FieldEquals(field, _plain(text[:-1] if begins else text), begins))


def _plain(text: str) -> str:
    """Return the literal value of a word. Raise `QueryInvalidError` if it has a wildcard."""
    if re.search(r"(?<!\\)[*?]", text):
        raise QueryInvalidError(detail=f"{text[:40]!r} has a wildcard other than one * at its end")
    return _ESCAPED.sub(r"\1", text)


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1])


def _range(field: str, text: str) -> Query:
    if (found := _RANGE.fullmatch(text)) is None:
        raise QueryInvalidError(detail=f"{text[:40]!r} is not a range such as [1 TO 9]")
    low, high = (None if one == "*" else _plain(one.strip('"')) for one in (found[2], found[3]))
    return _bounded(FieldRange(field, low, high, found[1] == "[", found[4] == "]"))


def _bounded(query: FieldEquals | FieldRange) -> Query:
    """Truncate values to their indexed length."""
    if isinstance(query, FieldEquals):
        return FieldEquals(query.field, query.value[:MAX_VALUE], query.begins or len(query.value) > MAX_VALUE)
    low, high = (None if one is None else one[:MAX_VALUE] for one in (query.low, query.high))
    return FieldRange(query.field, low, high, query.with_low, query.with_high)
