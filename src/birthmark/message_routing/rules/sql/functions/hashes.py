"""Hash functions of UTF-8 text, in lower-case hex (developer guide, Hashing functions)."""

import hashlib
from collections.abc import Callable

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import SqlFunction
from birthmark.message_routing.rules.sql.values import UNDEFINED, Value, text_of


def _hash(name: str) -> SqlFunction:
    def call(run: EvaluationContext, value: Value) -> Value:
        text = text_of(value, run.meter)
        if text is UNDEFINED:
            return UNDEFINED
        run.meter.take_for(len(text))
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    made: Callable[[EvaluationContext, Value], Value] = call
    return SqlFunction(name, made, 1, 1)


FUNCTIONS = tuple(_hash(name) for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"))
