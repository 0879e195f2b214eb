"""SQL functions by topic, registered under lower-case names.

A function takes the run and its argument values. It returns `UNDEFINED` for invalid arguments and for too few or too
many (developer guide, Data types).
"""

from collections.abc import Mapping, Sequence

from birthmark.message_routing.rules.sql.errors import mistake
from birthmark.message_routing.rules.sql.functions import (
    hashes,
    json_values,
    message_metadata,
    numbers,
    regular_expressions,
    strings,
    times,
)
from birthmark.message_routing.rules.sql.functions.sql_function import SqlFunction
from birthmark.message_routing.rules.sql.syntax_tree import Expression, SqlLiteral
from birthmark.message_routing.rules.sql.values import Meter

FUNCTIONS: Mapping[str, SqlFunction] = {
    one.name: one
    for theme in (strings, numbers, hashes, regular_expressions, times, json_values, message_metadata)
    for one in theme.FUNCTIONS
}

ELSEWHERE: Mapping[str, str] = {
    "aws_lambda": "Send the message to the program by an http action.",
    "get_dynamodb": "Store the value in the thing's shadow and read it with get_thing_shadow().",
    "get_registry_data": "Store the value in the thing's shadow and read it with get_thing_shadow().",
    "get_secret": "Keep the secret at the destination of the action.",
    "machinelearning_predict": "Send the message to the model by an http action.",
    "md2": "Write md5() or sha256().",
}
"""Unsupported functions that need another service or library, with their alternatives."""

_SCHEMES = {"encode": 1, "decode": 1}


def check_arguments(name: str, arguments: Sequence[Expression], position: int, meter: Meter) -> None:
    """Raise `SqlMistake` for a literal argument that can never be valid; `meter` is charged for patterns."""
    for at, one in enumerate(arguments):
        if not isinstance(one, SqlLiteral):
            continue
        if _SCHEMES.get(name) == at and one.value != "base64":
            mistake(position, f"{name}() knows base64 alone.", f"Write {name}(value, 'base64').")
        if at == 1 and name.startswith("regexp_") and isinstance(one.value, str):
            regular_expressions.check_pattern(one.value, position, meter)
