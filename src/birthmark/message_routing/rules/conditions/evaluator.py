"""Evaluation of compiled conditions on a message and its device's twin.

Values are those of JSON, with double-precision numbers, and `UNDEFINED`. Comparing values of two types is Undefined.
AND of Undefined and false is false; OR of Undefined and true is true.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeAlias

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions.functions import FUNCTIONS, finite, is_number
from birthmark.message_routing.rules.conditions.parser import (
    MAX_CHARS,
    Binary,
    ConditionArray,
    ConditionCall,
    ConditionComparison,
    ConditionLiteral,
    ConditionParser,
    Expression,
    Logic,
    NotCondition,
    Reference,
    ReferenceSource,
)
from birthmark.message_routing.rules.sql.errors import mistake
from birthmark.message_routing.rules.sql.values import CHARS_PER_STEP, UNDEFINED, Meter, Value
from birthmark.untrusted_json_and_text import decode_json

MAX_BODY_BYTES = 256 * 1024
"""Maximum message size of a hub."""
MAX_STEPS = 50_000
"""Maximum steps per message, over all conditions."""
_ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16", "utf-32": "utf-32"}
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


class RoutedSubject:
    """A message and its device's twin, shared by all conditions of a hub: parsed once, with a common step limit.

    `twin` is the document that a service reads: `tags`, `properties.desired`, `properties.reported`.
    """

    __slots__ = ("_application", "_body", "_folded", "_message", "_system", "meter", "twin")

    def __init__(self, message: RoutableMessage, twin: Mapping[str, Any] | None = None) -> None:
        self._message, self.twin = message, twin
        self.meter = Meter(MAX_STEPS, may_grow=False)
        self._body: Value = None
        self._application: dict[str, str] | None = None
        self._system: dict[str, str] | None = None
        self._folded: dict[int, dict[str, Any]] = {}

    def member(self, value: Mapping[str, Any], name: str) -> Value:
        """Return a member by case-insensitive name; an exact match has precedence."""
        if name in value:
            return value[name]
        if (folded := self._folded.get(id(value))) is None:  # values live as long as the subject
            self.meter.take(1 + len(value) // 8 + sum(map(len, value)) // CHARS_PER_STEP)
            folded = self._folded[id(value)] = {}
            for key, one in value.items():
                folded.setdefault(key.lower(), one)
        return folded.get(name.lower(), UNDEFINED)

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
        # A device's own property name may begin with $, too.
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


_Compiled: TypeAlias = Callable[[RoutedSubject], Value]


@dataclass(frozen=True, slots=True)
class RouteCondition:
    """A compiled route condition: parse once, evaluate per message."""

    text: str
    needs_twin: bool
    """Whether the condition reads the twin, which must then be passed."""
    expression: Expression
    _holds: _Compiled


def parse_condition(text: str) -> RouteCondition:
    """Parse a routing condition. Raise `SqlMistake`."""
    if len(text) > MAX_CHARS:
        mistake(0, "The condition is longer than 16384 characters.", "Make several routes of it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        mistake(error.start, "The text has half of a character.", "Send it as UTF-8.")
    expression = ConditionParser(text).condition()
    needs_twin = any(isinstance(one, Reference) and one.place is ReferenceSource.TWIN for one in _walk(expression))
    return RouteCondition(text, needs_twin, expression, _compile(expression))


def holds(condition: RouteCondition, subject: RoutedSubject) -> bool:
    """Return whether the condition is true; Null, Undefined and other values are not. Raise `TooMuchError`."""
    return condition._holds(subject) is True  # noqa: SLF001 - same module


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
        case ReferenceSource.APPLICATION:
            name = str(path[0])
            return lambda subject: subject.application(name)
        case ReferenceSource.SYSTEM:
            name = str(path[0])
            return lambda subject: subject.system(name)
        case ReferenceSource.BODY:
            return lambda subject: _within(subject, subject.body, path)
        case ReferenceSource.TWIN:
            return lambda subject: _within(subject, subject.twin, path)


def _within(subject: RoutedSubject, value: Value, path: tuple[str | int, ...]) -> Value:
    if not path:
        return UNDEFINED  # a complete value is none
    for part in path:
        if type(part) is int:
            if type(value) is not list or part >= len(value):
                return UNDEFINED
            value = value[part]
        elif isinstance(value, Mapping):
            value = subject.member(value, str(part))
        else:
            return UNDEFINED
    return value


def _literal(literal: ConditionLiteral) -> _Compiled:
    value = literal.value
    return lambda _subject: value


def _array(array: ConditionArray) -> _Compiled:
    parts = [_compile(one) for one in array.items]
    return lambda subject: [part(subject) for part in parts]


def _call(call: ConditionCall) -> _Compiled:
    run = FUNCTIONS[call.name].call
    parts = [_compile(one) for one in call.arguments]
    return lambda subject: run(subject.meter, *[part(subject) for part in parts])


def _binary(binary: Binary) -> _Compiled:
    first = _compile(binary.first)
    rest = [(sign, _compile(one)) for sign, one in binary.rest]

    def calculated(subject: RoutedSubject) -> Value:
        value = first(subject)
        for sign, part in rest:
            value = _calculate(sign, value, part(subject))
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


def _same(left: Value, right: Value, meter: Meter) -> Value:
    if left is None and right is None:
        return True
    if is_number(left) and is_number(right):
        return left == right
    if type(left) is str and type(right) is str:
        meter.take(min(len(left), len(right)) // CHARS_PER_STEP)
        return left == right
    return left == right if type(left) is bool and type(right) is bool else UNDEFINED


def _compare(compare: ConditionComparison) -> _Compiled:
    left, right = _compile(compare.left), _compile(compare.right)
    if compare.sign == "IN":

        def among(subject: RoutedSubject) -> Value:
            one, others = left(subject), right(subject)
            if one is UNDEFINED or type(others) is not list:
                return UNDEFINED
            subject.meter.take(len(others))
            return any(_same(one, other, subject.meter) is True for other in others)

        return among
    if compare.sign in {"=", "!="}:
        wanted = compare.sign == "="

        def same(subject: RoutedSubject) -> Value:
            found = _same(left(subject), right(subject), subject.meter)
            return UNDEFINED if found is UNDEFINED else found is wanted

        return same
    order = _ORDERS[compare.sign]

    def ordered(subject: RoutedSubject) -> Value:
        one, other = left(subject), right(subject)
        if type(one) is str and type(other) is str:
            subject.meter.take(min(len(one), len(other)) // CHARS_PER_STEP)
            return order(one, other)
        return order(one, other) if is_number(one) and is_number(other) else UNDEFINED

    return ordered


def _logic(logic: Logic) -> _Compiled:
    parts, decides = [_compile(one) for one in logic.parts], logic.decides

    def decided(subject: RoutedSubject) -> Value:
        result: Value = not decides
        for part in parts:
            value = part(subject)
            if value is decides:
                return decides
            if type(value) is not bool:
                result = UNDEFINED
        return result

    return decided


def _not(negated: NotCondition) -> _Compiled:
    inner = _compile(negated.value)

    def turned(subject: RoutedSubject) -> Value:
        value = inner(subject)
        return not value if type(value) is bool else UNDEFINED

    return turned


_COMPILERS: Mapping[type, Callable[[Any], _Compiled]] = {
    Reference: _reference,
    ConditionLiteral: _literal,
    ConditionArray: _array,
    ConditionCall: _call,
    Binary: _binary,
    ConditionComparison: _compare,
    Logic: _logic,
    NotCondition: _not,
}
