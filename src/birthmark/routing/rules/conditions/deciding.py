"""A condition made ready, and whether it holds for a message and its device's twin.

Values are what JSON has, with numbers of double precision, and `UNDEFINED`. Comparing things of two types is Undefined;
of Undefined and false AND makes false, of Undefined and true OR makes true.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeAlias

from birthmark.routing.model import Message
from birthmark.routing.rules.conditions.functions import FUNCTIONS, finite, is_number
from birthmark.routing.rules.conditions.parsing import MAX_CHARS, Parser
from birthmark.routing.rules.conditions.syntax import (
    ArrayOf,
    Binary,
    Call,
    Compare,
    Expression,
    Literal,
    Logic,
    Not,
    Place,
    Reference,
)
from birthmark.routing.rules.sql.mistakes import mistake
from birthmark.routing.rules.sql.values import UNDEFINED, Meter, Value
from birthmark.text import decode_json

MAX_BODY_BYTES = 256 * 1024
"""What a hub takes as one message."""
_MAX_STEPS = 50_000
_ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16", "utf-32": "utf-32"}
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


class _Scope:
    """What one message answers; each part is read when it is first asked for."""

    __slots__ = ("_application", "_body", "_message", "_system", "meter", "twin")

    def __init__(self, message: Message, twin: Mapping[str, Any] | None) -> None:
        self._message, self.twin = message, twin
        self.meter = Meter(_MAX_STEPS, may_grow=False)
        self._body: Value = None
        self._application: dict[str, str] | None = None
        self._system: dict[str, str] | None = None

    def application(self, name: str) -> Value:
        if self._application is None:
            self._application = {key.lower(): value for key, value in self._message.user_properties}
        return self._application.get(name, UNDEFINED)

    def system(self, name: str) -> Value:
        if self._system is None:
            self._system = {key.lower(): value for key, value in self._message.system_properties}
            if self._message.content_type is not None:
                self._system.setdefault("contenttype", self._message.content_type)
        found = self._system.get(name, UNDEFINED)
        # A name of the device's own may begin with $, too.
        return self.application(f"${name}") if found is UNDEFINED else found

    @property
    def body(self) -> Value:
        if self._body is None:
            self._body = self._read_body()
        return self._body

    def _read_body(self) -> Value:
        kind, encoding = self.system("contenttype"), self.system("contentencoding")
        if kind is UNDEFINED or kind.split(";")[0].strip().lower() != "application/json":
            return UNDEFINED
        codec = _ENCODINGS.get(encoding.lower()) if encoding is not UNDEFINED else None
        payload = self._message.payload
        if codec is None or len(payload) > MAX_BODY_BYTES:
            return UNDEFINED
        try:
            read = decode_json(payload if codec == "utf-8" else payload.decode(codec))
        except (ValueError, RecursionError):
            return UNDEFINED
        return read if type(read) is dict else UNDEFINED


_Compiled: TypeAlias = Callable[[_Scope], Value]


@dataclass(frozen=True, slots=True)
class Condition:
    """A route's condition: parse it once, ask it about each message."""

    text: str
    needs_twin: bool
    """It looks into the twin: hand one in."""
    expression: Expression
    _holds: _Compiled


def parse_condition(text: str) -> Condition:
    """Return the condition that a text is. Raise `SqlMistake`."""
    if len(text) > MAX_CHARS:
        mistake(0, "The condition is longer than 16384 characters.", "Make several routes of it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        mistake(error.start, "The text has half of a character.", "Send it as UTF-8.")
    expression = Parser(text).condition()
    needs_twin = any(isinstance(one, Reference) and one.place is Place.TWIN for one in _walk(expression))
    return Condition(text, needs_twin, expression, _compile(expression))


def holds(condition: Condition, message: Message, twin: Mapping[str, Any] | None = None) -> bool:
    """Say whether the condition is true; Null, Undefined and all else are not. Raise `TooMuchError`.

    `twin` is the document that a service reads: `tags`, `properties.desired`, `properties.reported`.
    """
    return condition._holds(_Scope(message, twin)) is True  # noqa: SLF001 - this file's own


def _walk(node: Any) -> Iterator[Any]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting.extend(one)
        elif is_dataclass(one):
            yield one
            waiting.extend(getattr(one, part.name) for part in fields(one))


def _compile(expression: Expression) -> _Compiled:
    return _COMPILERS[type(expression)](expression)


def _reference(reference: Reference) -> _Compiled:
    path = reference.path
    match reference.place:
        case Place.APPLICATION:
            name = str(path[0])
            return lambda scope: scope.application(name)
        case Place.SYSTEM:
            name = str(path[0])
            return lambda scope: scope.system(name)
        case Place.BODY:
            return lambda scope: _within(scope.body, path, scope.meter)
        case Place.TWIN:
            return lambda scope: _within(scope.twin, path, scope.meter)


def _within(value: Value, path: tuple[str | int, ...], meter: Meter) -> Value:
    if not path:
        return UNDEFINED  # the whole of it is no operand
    for part in path:
        if type(part) is int:
            if type(value) is not list or part >= len(value):
                return UNDEFINED
            value = value[part]
        elif isinstance(value, Mapping):
            value = _member(value, str(part), meter)
        else:
            return UNDEFINED
    return value


def _member(value: Mapping[str, Any], name: str, meter: Meter) -> Value:
    """Return a member; its name is written as one likes, and the one written the same goes before."""
    if name in value:
        return value[name]
    meter.take(1 + len(value) // 8)
    wanted = name.lower()
    return next((found for key, found in value.items() if key.lower() == wanted), UNDEFINED)


def _literal(literal: Literal) -> _Compiled:
    value = literal.value
    return lambda _scope: value


def _array(array: ArrayOf) -> _Compiled:
    parts = [_compile(one) for one in array.items]
    return lambda scope: [part(scope) for part in parts]


def _call(call: Call) -> _Compiled:
    run = FUNCTIONS[call.name].call
    parts = [_compile(one) for one in call.arguments]
    return lambda scope: run(scope.meter, *[part(scope) for part in parts])


def _binary(binary: Binary) -> _Compiled:
    first = _compile(binary.first)
    rest = [(sign, _compile(one)) for sign, one in binary.rest]

    def calculated(scope: _Scope) -> Value:
        value = first(scope)
        for sign, part in rest:
            value = _calculate(sign, value, part(scope))
        return value

    return calculated


def _calculate(sign: str, left: Value, right: Value) -> Value:
    if not is_number(left) or not is_number(right):
        return UNDEFINED
    try:
        match sign:
            case "+":
                made = float(left) + right
            case "-":
                made = float(left) - right
            case "*":
                made = float(left) * right
            case "/":
                made = float(left) / right
            case _:
                made = math.fmod(left, right)
    except (ValueError, OverflowError, ZeroDivisionError):
        return UNDEFINED
    return finite(made)


def _same(left: Value, right: Value) -> Value:
    if left is None and right is None:
        return True
    if is_number(left) and is_number(right):
        return left == right
    if type(left) is type(right) and type(left) in {str, bool}:
        return left == right
    return UNDEFINED


def _compare(compare: Compare) -> _Compiled:
    left, right = _compile(compare.left), _compile(compare.right)
    if compare.sign == "IN":

        def among(scope: _Scope) -> Value:
            one, others = left(scope), right(scope)
            if one is UNDEFINED or type(others) is not list:
                return UNDEFINED
            scope.meter.take(len(others))
            return any(_same(one, other) is True for other in others)

        return among
    if compare.sign in {"=", "!="}:
        wanted = compare.sign == "="

        def same(scope: _Scope) -> Value:
            found = _same(left(scope), right(scope))
            return UNDEFINED if found is UNDEFINED else found is wanted

        return same
    order = _ORDERS[compare.sign]

    def ordered(scope: _Scope) -> Value:
        one, other = left(scope), right(scope)
        if (is_number(one) and is_number(other)) or (type(one) is str and type(other) is str):
            return order(one, other)
        return UNDEFINED

    return ordered


def _logic(logic: Logic) -> _Compiled:
    parts, decides = [_compile(one) for one in logic.parts], logic.decides

    def decided(scope: _Scope) -> Value:
        result: Value = not decides
        for part in parts:
            value = part(scope)
            if value is decides:
                return decides
            if type(value) is not bool:
                result = UNDEFINED
        return result

    return decided


def _not(negated: Not) -> _Compiled:
    inner = _compile(negated.value)

    def turned(scope: _Scope) -> Value:
        value = inner(scope)
        return not value if type(value) is bool else UNDEFINED

    return turned


_COMPILERS: Mapping[type, Callable[[Any], _Compiled]] = {
    Reference: _reference,
    Literal: _literal,
    ArrayOf: _array,
    Call: _call,
    Binary: _binary,
    Compare: _compare,
    Logic: _logic,
    Not: _not,
}
