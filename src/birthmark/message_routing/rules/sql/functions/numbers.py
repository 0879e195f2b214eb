"""Functions of numbers (developer guide, Functions). Angles are radians."""

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import SqlFunction
from birthmark.message_routing.rules.sql.values import (
    CONTEXT,
    DIGITS,
    UNDEFINED,
    Value,
    calculate,
    int_of,
    number_of,
    settled,
    whole,
)


def double(run: EvaluationContext, value: float) -> Value:
    """Return a double as a Decimal; a non-finite number is Undefined."""
    if not math.isfinite(value):
        return UNDEFINED
    made = Decimal(repr(value))
    return whole(made) if run.is_whole else made


def _of_doubles(name: str, compute: Callable[..., float], count: int = 1) -> SqlFunction:
    def call(run: EvaluationContext, *values: Value) -> Value:
        numbers = [number_of(one) for one in values]
        if any(one is UNDEFINED for one in numbers):
            return UNDEFINED
        try:
            return double(run, compute(*map(float, numbers)))  # type: ignore[arg-type]
        except (ValueError, OverflowError, ZeroDivisionError):
            return UNDEFINED

    return SqlFunction(name, call, count, count)


def _to_int(rounding: str) -> Callable[[EvaluationContext, Value], Value]:
    def call(_run: EvaluationContext, value: Value) -> Value:
        number = number_of(value)
        if number is UNDEFINED or type(number) is int:
            return number
        return int(number.to_integral_value(rounding))  # type: ignore[union-attr]

    return call


def absolute(run: EvaluationContext, value: Value) -> Value:
    number = number_of(value)
    if number is UNDEFINED:
        return UNDEFINED
    return settled(abs(number) if type(number) is int else CONTEXT.abs(number), is_whole=run.is_whole)


def sign(_run: EvaluationContext, value: Value) -> Value:
    number = number_of(value)
    return UNDEFINED if number is UNDEFINED else (number > 0) - (number < 0)


def remainder(run: EvaluationContext, left: Value, right: Value) -> Value:
    return calculate("%", left, right, run.meter, is_whole=run.is_whole)


def trunc(run: EvaluationContext, value: Value, places: Value) -> Value:
    number, wanted = number_of(value), int_of(places)
    if number is UNDEFINED or wanted is UNDEFINED or type(places) is str:
        return UNDEFINED
    if type(number) is int:
        return number
    step = Decimal(1).scaleb(-min(max(wanted, 0), DIGITS))
    if number.as_tuple().exponent >= step.as_tuple().exponent:  # type: ignore[union-attr, operator]
        made = number
    else:
        made = number.quantize(step, ROUND_DOWN, CONTEXT)  # type: ignore[union-attr]
    return UNDEFINED if made.is_nan() else _stripped(run, made)  # type: ignore[union-attr, arg-type]


def _stripped(run: EvaluationContext, value: Decimal) -> Value:
    if value == value.to_integral_value() and value.adjusted() < DIGITS:
        return int(value)
    return settled(CONTEXT.normalize(value), is_whole=run.is_whole)


def _of_bits(name: str, compute: Callable[[int, int], int]) -> SqlFunction:
    def call(_run: EvaluationContext, left: Value, right: Value) -> Value:
        one, other = int_of(left), int_of(right)
        return UNDEFINED if one is UNDEFINED or other is UNDEFINED else compute(one, other)

    return SqlFunction(name, call, 2, 2)


def bitnot(_run: EvaluationContext, value: Value) -> Value:
    number = int_of(value)
    return UNDEFINED if number is UNDEFINED else ~number


def nanvl(_run: EvaluationContext, value: Value, otherwise: Value) -> Value:
    return otherwise if value is UNDEFINED or value is None else value


def rand(run: EvaluationContext) -> Value:
    """Return a random number in [0, 1) with 53 bits of precision."""
    return double(run, (int.from_bytes(run.entropy.token(7), "big") >> 3) / (1 << 53))


FUNCTIONS = (
    SqlFunction("abs", absolute, 1, 1),
    _of_doubles("acos", math.acos),
    _of_doubles("asin", math.asin),
    _of_doubles("atan", math.atan),
    _of_doubles("atan2", math.atan2, 2),
    _of_doubles("cos", math.cos),
    _of_doubles("cosh", math.cosh),
    _of_doubles("exp", math.exp),
    _of_doubles("ln", math.log),
    _of_doubles("log", math.log10),
    _of_doubles("power", math.pow, 2),
    _of_doubles("sin", math.sin),
    _of_doubles("sinh", math.sinh),
    _of_doubles("sqrt", math.sqrt),
    _of_doubles("tan", math.tan),
    _of_doubles("tanh", math.tanh),
    SqlFunction("ceil", _to_int(ROUND_CEILING), 1, 1),
    SqlFunction("floor", _to_int(ROUND_FLOOR), 1, 1),
    SqlFunction("round", _to_int(ROUND_HALF_UP), 1, 1),  # half away from zero, as in the guide's examples
    SqlFunction("sign", sign, 1, 1),
    SqlFunction("mod", remainder, 2, 2),
    SqlFunction("remainder", remainder, 2, 2),
    SqlFunction("trunc", trunc, 2, 2),
    _of_bits("bitand", int.__and__),
    _of_bits("bitor", int.__or__),
    _of_bits("bitxor", int.__xor__),
    SqlFunction("bitnot", bitnot, 1, 1),
    SqlFunction("nanvl", nanvl, 2, 2),
    SqlFunction("rand", rand, 0, 0),
)
