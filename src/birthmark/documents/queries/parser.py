"""Parser of the query language of Azure's services (IoT Hub, "Query language").

`SELECT [TOP n] * | items FROM collection [WHERE condition] [GROUP BY paths]`. Keywords are case-insensitive. A name
that is not a plain word is written in double brackets, `tags.[[two words]]`, or quoted in brackets, `tags['two
words']`. Text is written in single or double quotes; a quote inside is doubled, or escaped by a backslash.

Limits for size, nesting and number of conditions bound the parsing time.
"""

import re
from collections.abc import Callable
from math import isfinite
from typing import TypeVar

from birthmark.documents.queries.syntax_tree import (
    Alternative,
    Comparison,
    Condition,
    Conjunction,
    Contains,
    DocumentQuery,
    FieldPath,
    InSet,
    Negation,
    Operand,
    Operator,
    PathPart,
    Primitive,
    QueryKind,
    SelectedField,
    Sum,
    TypeCheck,
    Value,
)

_SHOWN = 30
_SPACE = re.compile(r"\s*")
WORD = re.compile(r"[^\W\d][\w$-]*|\$[\w$-]+")


class QueryProblem(Exception):  # noqa: N818 - base of each service's error
    """An invalid query; `position` counts characters from 1, `detail` describes the error there."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__()
        self.position = position
        self.detail = detail

    def __str__(self) -> str:
        return f"at position {self.position} {self.detail}"


class Scanner:
    """Scanner over the unread rest of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()

    def _peek(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._skip()
        return pattern.match(self._text, self._at)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if (found := self._peek(pattern)) is not None:
            self._at = found.end()
        return found

    def _need(self, char: str) -> None:
        self._skip()
        if not self._text.startswith(char, self._at):
            raise self._problem(char)
        self._at += 1

    def _has_word(self, wanted: str) -> bool:
        word = self._peek(WORD)
        if word is None or word[0].lower() != wanted:
            return False
        self._at = word.end()
        return True

    def _need_word(self, word: str, written: str) -> None:
        if not self._has_word(word):
            raise self._problem(written)

    def _problem(self, expected: str, *, position: int | None = None) -> QueryProblem:
        self._skip()
        place = self._at if position is None else position
        rest = self._text[place : place + _SHOWN]
        found = f"not {rest!r}" if rest else "but the text ends"
        return QueryProblem(place + 1, f"{expected} is expected, {found}")

    def _wrong(self, detail: str, *, position: int | None = None) -> QueryProblem:
        return QueryProblem((self._at if position is None else position) + 1, detail)


MAX_CHARS, MAX_CONDITIONS, MAX_VALUES, MAX_LEVELS, MAX_ITEMS, MAX_STEPS = 8192, 100, 500, 20, 20, 20
MAX_TOP = 1_000_000_000
_NO_CHARACTER = "the text contains a NUL or an unpaired surrogate, which no value can contain"
_T = TypeVar("_T")

_STEP = re.compile(r"[\w$-]+")
_BRACKETED = re.compile(r"\[\[(.+?)\]\](?!\])", re.DOTALL)
_NUMBER = re.compile(
    r"-?0[xX][0-9a-fA-F]{1,13}(?![\w.])|[+-]?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,3})?(?![\w.])"
)
_TEXT = re.compile(r"'((?:[^'\\]|''|\\.)*)'|\"((?:[^\"\\]|\"\"|\\.)*)\"", re.DOTALL)
_ESCAPED = re.compile(r"''|\"\"|\\u([0-9a-fA-F]{4})|\\(.)", re.DOTALL)
_COUNT, _COLLECTION = re.compile(r"\d{1,10}(?![\w.])"), re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)?")
_STAR, _COMMA, _DOT, _OPEN, _CLOSE = (re.compile(re.escape(char)) for char in "*,.()")
_QUOTED_STEP, _CALL = re.compile(r"\[\s*['\"]"), re.compile(r"\s*\(")
_OPERATOR = re.compile(r"<>|!=|<=|>=|=|<|>")
_KEYWORDS = frozenset({"select", "top", "from", "where", "group", "by", "as", "and", "or", "not", "in", "nin"})
_LITERALS: dict[str, Primitive] = {"true": True, "false": False, "null": None}
_OTHER_NAMES = {"startswith": "starts_with", "endswith": "ends_with", "is_boolean": "is_bool"}
_OPERATORS = {one.value: one for one in Operator} | {"<>": Operator.OTHER}
_KINDS, _PARTS, _SUMS = (
    {one.value: one for one in QueryKind},
    {one.value: one for one in PathPart},
    {one.value: one for one in Sum},
)
_TURNED = {
    Operator.BELOW: Operator.ABOVE,
    Operator.ABOVE: Operator.BELOW,
    Operator.UP_TO: Operator.FROM,
    Operator.FROM: Operator.UP_TO,
}


def parse_query(text: str) -> DocumentQuery:
    """Return the query. Raise `QueryProblem`."""
    if len(text) > MAX_CHARS:
        raise QueryProblem(MAX_CHARS + 1, f"the query exceeds the maximum of {MAX_CHARS} characters")
    for position, char in enumerate(text, 1):
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise QueryProblem(position, _NO_CHARACTER)
    return _Reader(text).query()


class _Reader(Scanner):
    """Recursive-descent parser."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rstrip().removesuffix(";"))
        self._levels = self._conditions = self._values = 0

    def query(self) -> DocumentQuery:
        self._need_word("select", "SELECT")
        top = self._top()
        items = self._items()
        self._need_word("from", "FROM")
        collection = self._collection()
        where = self._either() if self._has_word("where") else None
        group_by: tuple[FieldPath, ...] = ()
        if self._has_word("group"):
            self._need_word("by", "BY")
            group_by = tuple(self._listed(self._path))
        self._skip()
        if self._at < len(self._text):
            raise self._problem(_following(has_where=where is not None, is_grouped=bool(group_by)))
        query = DocumentQuery(collection, where, items, group_by, top)
        _check_groups(query, self._wrong)
        return query

    # ---- clauses

    def _top(self) -> int | None:
        if not self._has_word("top"):
            return None
        found = self._take(_COUNT)
        if found is None or not 1 <= int(found[0]) <= MAX_TOP:
            raise self._problem(
                f"a number of rows from 1 to {MAX_TOP}", position=None if found is None else found.start()
            )
        return int(found[0])

    def _items(self) -> tuple[SelectedField, ...]:
        if self._take(_STAR) is not None:
            return ()
        found = self._listed(self._item)
        numbered = 0
        items: list[SelectedField] = []
        for item in found:
            name = item.name
            if not name:
                numbered += 1
                name = f"${numbered}"
            if any(name == other.name for other in items):
                raise self._wrong(f"two items of the list have the name {name!r}: rename one of them with AS")
            items.append(SelectedField(name, item.path, item.sum))
        return tuple(items)

    def _item(self) -> SelectedField:
        word = self._peek(WORD)
        name = "" if word is None else word[0].lower()
        if word is not None and name in _SUMS and self._is_called(word):
            sum_, path = _SUMS[name], None
            self._at = word.end()
            self._need("(")
            if sum_ is not Sum.COUNT or self._peek(_CLOSE) is None:
                path = self._path()
            self._need(")")
            return SelectedField(self._alias() or "", path, sum_)
        path = self._path()
        return SelectedField(self._alias() or path.steps[-1], path)

    def _alias(self) -> str | None:
        if not self._has_word("as"):
            return None
        if (bracketed := self._take(_BRACKETED)) is not None:
            return bracketed[1]
        if (word := self._take(WORD)) is None:
            raise self._problem("a name")
        return word[0]

    def _collection(self) -> str:
        word = self._take(_COLLECTION)
        if word is None:
            raise self._problem("a collection such as devices")
        return word[0].lower()

    # ---- conditions

    def _either(self) -> Condition:
        parts = [self._together()]
        while self._has_word("or"):
            parts.append(self._together())
        return parts[0] if len(parts) == 1 else Alternative(tuple(parts))

    def _together(self) -> Condition:
        parts = [self._one()]
        while self._has_word("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Conjunction(tuple(parts))

    def _one(self) -> Condition:
        if self._has_word("not"):
            return self._deeper(lambda: Negation(self._one()))
        if self._take(_OPEN) is not None:
            found = self._deeper(self._either)
            self._need(")")
            return self._parse_comparison(found) if isinstance(found, FieldPath | Value) else found
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise self._wrong(f"is one more than the {MAX_CONDITIONS} conditions that a query may have")
        word = self._peek(WORD)
        if word is not None and self._is_called(word):
            return self._call(word)
        return self._parse_comparison(self._operand())

    def _parse_comparison(self, left: Operand) -> Condition:
        """Parse the operator and the operand to compare with."""
        if (sign := self._take(_OPERATOR)) is not None:
            operator, right = _OPERATORS[sign[0]], self._operand()
            if isinstance(left, Value) and isinstance(right, FieldPath):
                left, right, operator = right, left, _TURNED.get(operator, operator)
            return Comparison(left, operator, right)
        for word, is_not in (("in", False), ("nin", True)):
            if self._has_word(word):
                among = InSet(left, self._array())
                return Negation(among) if is_not else among
        if isinstance(left, Value) and not isinstance(left.value, bool):
            raise self._problem("a comparison")
        return left

    def _call(self, word: re.Match[str]) -> Condition:
        name = word[0].lower()
        name = _OTHER_NAMES.get(name, name)
        if name not in _KINDS and name not in _PARTS:
            raise self._problem(f"a supported function ({', '.join([*_KINDS, *_PARTS])})", position=word.start())
        self._at = word.end()
        self._need("(")
        made: Condition
        if name in _KINDS:
            made = TypeCheck(_KINDS[name], self._path())
        else:
            one = self._operand()
            self._need(",")
            made = Contains(_PARTS[name], one, self._operand())
        self._need(")")
        return made

    def _array(self) -> tuple[Primitive, ...]:
        close = ")" if self._take(_OPEN) is not None else "]"
        if close == "]":
            self._need("[")
        found: list[Primitive] = []
        while True:
            found.append(self._literal("a value"))
            if self._take(_COMMA) is None:
                self._need(close)
                return tuple(found)

    # ---- values and names

    def _operand(self) -> Operand:
        word = self._peek(WORD)
        if word is not None and word[0].lower() not in _LITERALS:
            return self._path()
        if self._peek(_BRACKETED) is not None:
            return self._path()
        return Value(self._literal("a name or a value"))

    def _literal(self, expected: str) -> Primitive:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._wrong(f"is one more than the {MAX_VALUES} values that a query may have")
        if (text := self._take(_TEXT)) is not None:
            return self._unescaped(text)
        if (number := self._take(_NUMBER)) is not None:
            digits = number[0].lower()
            made = float(int(digits, 16)) if "0x" in digits else float(digits)
            if not isfinite(made):
                raise self._wrong("the number is too large", position=number.start())
            return made
        word = self._peek(WORD)
        if word is not None and word[0].lower() in _LITERALS:
            self._at = word.end()
            return _LITERALS[word[0].lower()]
        raise self._problem(expected)

    def _unescaped(self, match: re.Match[str]) -> str:
        def one(escape: re.Match[str]) -> str:
            if escape[1] is not None:
                char = chr(int(escape[1], 16))
                if char == "\0" or "\ud800" <= char <= "\udfff":
                    raise self._wrong(_NO_CHARACTER, position=match.start())
                return char
            if escape[2] is not None and escape[2] not in "'\"\\":
                raise self._problem(r"one of \' \" \\ \uXXXX", position=match.start())
            return escape[2] or escape[0][0]

        quote = match[0][0]
        inner = match[0][1:-1]
        if quote == "'":
            return _ESCAPED.sub(lambda escape: escape[0] if escape[0] == '""' else one(escape), inner)
        return _ESCAPED.sub(lambda escape: escape[0] if escape[0] == "''" else one(escape), inner)

    def _path(self) -> FieldPath:
        steps: list[str] = []
        if (bracketed := self._take(_BRACKETED)) is not None:
            steps.append(bracketed[1])
        else:
            word = self._peek(WORD)
            if word is None or word[0].lower() in _KEYWORDS | _LITERALS.keys():
                raise self._problem("a name")
            self._at = word.end()
            steps.append(word[0])
        while (step := self._step()) is not None:
            steps.append(step)
            if len(steps) > MAX_STEPS:
                raise self._wrong(f"is one more than the {MAX_STEPS} steps that a name may have")
        return FieldPath(tuple(steps))

    def _step(self) -> str | None:
        """Parse the next step of a path, if one follows."""
        if self._take(_DOT) is not None:
            found = self._take(_BRACKETED)
            if found is not None:
                return found[1]
            if (plain := self._take(_STEP)) is None:
                raise self._problem("a name")
            return plain[0]
        if (found := self._take(_BRACKETED)) is not None:
            return found[1]
        if self._peek(_QUOTED_STEP) is not None:
            self._need("[")
            text = self._take(_TEXT)
            if text is None:
                raise self._problem("a name in quotes")
            self._need("]")
            return self._unescaped(text)
        return None

    def _is_called(self, word: re.Match[str]) -> bool:
        """Return whether an argument list follows a word."""
        return word[0].lower() not in _KEYWORDS and _CALL.match(self._text, word.end()) is not None

    # ---- lists and nesting

    def _listed(self, read: Callable[[], _T]) -> list[_T]:
        found = [read()]
        while self._take(_COMMA) is not None:
            if len(found) == MAX_ITEMS:
                raise self._wrong(f"the list has more than {MAX_ITEMS} items, the maximum")
            found.append(read())
        return found

    def _deeper(self, read: Callable[[], Condition]) -> Condition:
        self._levels += 1
        if self._levels > MAX_LEVELS:
            raise self._wrong(f"is one more than the {MAX_LEVELS} levels of parentheses and NOT that a query may have")
        found = read()
        self._levels -= 1
        return found


def _following(*, has_where: bool, is_grouped: bool) -> str:
    """Return the tokens that may follow in a query."""
    if is_grouped:
        return "a comma or the end"
    return "AND, OR, GROUP BY or the end" if has_where else "WHERE, GROUP BY or the end"


def _check_groups(query: DocumentQuery, problem: Callable[[str], QueryProblem]) -> None:
    """Raise `QueryProblem` if a row of a group would show a value that its documents do not share."""
    if not query.is_summed:
        return
    if not query.items:
        raise problem("a query with GROUP BY selects *: select COUNT() AS n and the paths of GROUP BY")
    for item in query.items:
        if item.sum is None and item.path not in query.group_by:
            raise problem(
                f"GROUP BY {item.path} is missing: paths that are selected with COUNT or a similar function must "
                "be in GROUP BY"
            )
