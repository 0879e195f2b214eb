"""Condition parser (IoT Hub query language, Expressions and conditions).

Input: at most `MAX_CHARS` characters, `MAX_TERMS` terms, nested `MAX_NESTING` deep. Raises `SqlMistake` with position,
problem and suggestion.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import isinf
from typing import NoReturn, TypeAlias

from birthmark.message_routing.rules.conditions.functions import FUNCTIONS
from birthmark.message_routing.rules.sql.errors import mistake
from birthmark.message_routing.rules.sql.values import UNDEFINED


class ReferenceSource(Enum):
    """Source of a reference."""

    APPLICATION = "application property"
    SYSTEM = "system property"
    BODY = "body"
    TWIN = "twin"


@dataclass(frozen=True, slots=True)
class Reference:
    """A property, or a path into the body or twin: names and element indexes."""

    place: ReferenceSource
    path: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ConditionLiteral:
    value: object


@dataclass(frozen=True, slots=True)
class ConditionArray:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class ConditionCall:
    name: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """A chain of binary operators of equal precedence, left-associative."""

    first: "Expression"
    rest: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class ConditionComparison:
    sign: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Logic:
    """AND, decided by one false operand, or OR, decided by one true operand."""

    decides: bool
    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class NotCondition:
    value: "Expression"


Expression: TypeAlias = (
    Reference | ConditionLiteral | ConditionArray | ConditionCall | Binary | ConditionComparison | Logic | NotCondition
)


MAX_CHARS = 16 * 1024
MAX_TERMS = 500
MAX_NESTING = 32
_MAX_DIGITS = 300
_MAX_INDEX_DIGITS = 6

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<hex>0[xX][0-9a-fA-F]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    # A hyphen within a name belongs to the name; an operator needs spaces.
    r"|(?P<name>\$?[^\W\d][\w$]*(?:-\w+)*)"
    # A name that is no plain word, as in twin queries.
    r"|(?P<bracketed>\[\[[^\[\]'\",]+\]\])"
    r"|(?P<string>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<sign>!=|<>|<=|>=|[-=<>+*/%()\[\],.])",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:(['\"\\])|u([0-9a-fA-F]{4})|(.?))", re.DOTALL)
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None, "UNDEFINED": UNDEFINED}
_COMPARISONS = frozenset({"=", "!=", "<>", "<", "<=", ">", ">="})
_RESERVED = frozenset({"AND", "OR", "NOT", "IN", "NIN"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    where: int
    end: int

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "name" else ""

    @property
    def name(self) -> str:
        """The name of a property, without its brackets."""
        return self.text[2:-2].strip() if self.kind == "bracketed" else self.text


class ConditionParser:
    """Parser of one condition."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._terms = self._depth = 0
        self._token = self._next(0)

    def condition(self) -> Expression:
        """Parse the complete condition."""
        try:
            made = self._expression()
        except RecursionError:  # the caller's stack may already be deep
            mistake(self._token.where, "The condition is nested too deep.", "Make two routes of it.")
        if self._token.kind != "end":
            self._unexpected("an operator or the end")
        return made

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_NESTING:
            mistake(self._token.where, "The condition is nested deeper than 32 levels.", "Make two routes of it.")
        made = self._logic("OR", lambda: self._logic("AND", self._not))
        self._depth -= 1
        return made

    def _logic(self, word: str, part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while self._token.word == word:
            self._advance()
            parts.append(part())
        return Logic(word == "OR", tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self) -> Expression:
        times = 0
        while self._token.word == "NOT":
            self._count()
            self._advance()
            times += 1
        made = self._comparison()
        for _ in range(min(times, 2 - times % 2)):
            made = NotCondition(made)
        return made

    def _comparison(self) -> Expression:
        left = self._sum()
        sign = self._token
        if sign.word in {"IN", "NIN"}:
            self._advance()
            found = ConditionComparison("IN", left, self._sum())
            return NotCondition(found) if sign.word == "NIN" else found
        if sign.kind != "sign" or sign.text not in _COMPARISONS:
            return left
        self._advance()
        made = ConditionComparison("!=" if sign.text == "<>" else sign.text, left, self._sum())
        if self._token.kind == "sign" and self._token.text in _COMPARISONS:
            mistake(self._token.where, "Comparisons cannot be chained.", "Write a < b AND b < c.")
        return made

    def _sum(self) -> Expression:
        return self._chain("+-", lambda: self._chain("*/%", self._sign))

    def _chain(self, signs: str, part: Callable[[], Expression]) -> Expression:
        first, rest = part(), []
        while self._token.kind == "sign" and self._token.text in signs:
            sign = self._token.text
            self._advance()
            rest.append((sign, part()))
        return Binary(first, tuple(rest)) if rest else first

    def _sign(self) -> Expression:
        times = 0
        while self._token.kind == "sign" and self._token.text == "-":
            self._count()
            self._advance()
            times += 1
        made = self._primary()
        return Binary(ConditionLiteral(0), (("-" if times % 2 else "+", made),)) if times else made

    def _primary(self) -> Expression:
        token = self._token
        self._count()
        match token.kind:
            case "number" | "hex":
                self._advance()
                return ConditionLiteral(_number(token))
            case "string":
                self._advance()
                return ConditionLiteral(_unescaped(token))
            case "name" | "bracketed":
                return self._word(token)
            case "sign" if token.text == "(":
                self._advance()
                made = self._expression()
                self._expect(")")
                return made
            case "sign" if token.text == "[":
                self._advance()
                return ConditionArray(self._list("]"))
        return self._unexpected("a value")

    def _word(self, token: _Token) -> Expression:
        if token.word in _RESERVED:
            self._unexpected("a value")
        self._advance()
        if token.kind == "name" and self._token.kind == "sign" and self._token.text == "(":
            name = token.text.lower()
            function = FUNCTIONS.get(name)
            if function is None:
                mistake(
                    token.where,
                    f"Function {token.text[:64]}() does not exist.",
                    "Take one of docs/reference/rules-sql.md.",
                )
            self._advance()
            arguments = self._list(")")
            if not function.least <= len(arguments) <= function.most:
                mistake(token.where, f"{name.upper()}() takes another number of arguments.", function.usage)
            return ConditionCall(name, arguments)
        if token.word in _CONSTANTS and not (self._token.kind == "sign" and self._token.text == "."):
            return ConditionLiteral(_CONSTANTS[token.word])
        return self._reference(token)

    def _reference(self, token: _Token) -> Reference:
        path: list[str | int] = [token.name]
        while self._token.kind == "sign" and self._token.text in {".", "["}:
            is_member = self._token.text == "."
            self._count()
            self._advance()
            part = self._token
            if is_member:
                if part.kind not in {"name", "bracketed"}:
                    self._unexpected("a property's name")
                path.append(part.name)
                self._advance()
                continue
            if part.kind != "number" or not part.text.isdigit() or len(part.text) > _MAX_INDEX_DIGITS:
                mistake(part.where, "An element has a number.", "Write [0].")
            path.append(int(part.text))
            self._advance()
            self._expect("]")
        first = token.text.lower()
        if first in {"$body", "$twin"}:
            return Reference(ReferenceSource.BODY if first == "$body" else ReferenceSource.TWIN, tuple(path[1:]))
        if any(isinstance(one, int) for one in path):
            mistake(
                token.where, "A property of a message is a string: it has no elements.", "Begin with $body or $twin."
            )
        name = ".".join(map(str, path))
        if name.startswith("$") and token.kind == "name":
            return Reference(ReferenceSource.SYSTEM, (name[1:].lower(),))
        return Reference(ReferenceSource.APPLICATION, (name.lower(),))

    def _list(self, closing: str) -> tuple[Expression, ...]:
        items: list[Expression] = []
        while not (self._token.kind == "sign" and self._token.text == closing):
            if items:
                self._expect(",")
            items.append(self._expression())
        self._advance()
        return tuple(items)

    def _next(self, position: int) -> _Token:
        text = self._text
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                return _complain(text, position)
            position = match.end()
            if match.lastgroup != "space":
                return _Token(match.lastgroup or "", match.group(), match.start(), match.end())
        return _Token("end", "", len(text), len(text))

    def _advance(self) -> None:
        self._token = self._next(self._token.end)

    def _expect(self, sign: str) -> None:
        if self._token.kind != "sign" or self._token.text != sign:
            self._unexpected(sign)
        self._advance()

    def _count(self) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            mistake(self._token.where, "The condition has more than 500 terms.", "Make two routes of it.")

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._token
        found = "end of the text" if token.kind == "end" else f"{token.text[:64]!r}"
        mistake(token.where, f"Unexpected {found}.", f"Write {expected}.")


def _complain(text: str, position: int) -> NoReturn:
    char = text[position]
    if char in "'\"":
        mistake(position, "A string is not terminated.", f"Close it with {char}; inside, write \\{char}.")
    shown = char if char.isprintable() else f"U+{ord(char):04X}"
    mistake(
        position,
        f"{shown} means nothing here.",
        "A name has letters, digits, _ and -. Put other names in brackets: [[two words]].",
    )


def _number(token: _Token) -> int | float:
    if len(token.text) > _MAX_DIGITS:
        mistake(token.where, "A number is out of range.", "Write a smaller one.")
    if token.kind == "hex":
        return int(token.text, 16)
    value = float(token.text)
    if isinf(value):
        mistake(token.where, "A number is out of range.", "Write a smaller one.")
    return int(token.text) if token.text.isdigit() else value


def _unescaped(token: _Token) -> str:
    def meant(match: re.Match[str]) -> str:
        quoted, code, other = match.groups()
        if other is not None:
            mistake(token.where + match.start(), "A string has an unknown escape.", "Write \\\\ for a backslash.")
        return quoted or chr(int(code, 16))

    made = _ESCAPE.sub(meant, token.text[1:-1])
    try:
        # Joins two surrogates that were written separately.
        return made.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return mistake(token.where, "A string has half of a character.", "Write both of its \\u escapes.")
