"""A step of a function costs about what another step costs, whatever the arguments are."""

import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions import RoutedSubject, holds, parse_condition
from birthmark.message_routing.rules.conditions.functions import FUNCTIONS as CONDITION_FUNCTIONS
from birthmark.message_routing.rules.sql import TooMuchError, evaluate, new_meter, parse
from birthmark.message_routing.rules.sql.functions import FUNCTIONS
from support.fakes import SeededEntropy

_TEXT = "a" * 29_990
_WORDS: list[Any] = [{"w": "a" * 97 + "ba"}] * 400
_NUMBERS: list[Any] = [{"w": one + 0.5} for one in range(400)]
_ENCODED = base64.b64encode(b"[" + b",".join([b"1e1"] * 1000) + b"]").decode()
_DATES: list[Any] = [{"w": "2026-11-27 10:11:12.345"}] * 400

_OF_TEXT = ("@t", _TEXT, _WORDS)
_OF_PART = ("@t, n.w", _TEXT, _WORDS)
_OF_NUMBER = ("n.w", "", _NUMBERS)
_OF_NUMBERS = ("n.w, n.w", "", _NUMBERS)
_OF_NOTHING = ("", "", _NUMBERS)
_WORST: dict[str, tuple[str, str, list[Any]]] = {
    **dict.fromkeys(("length", "numbytes", "lower", "upper", "trim", "ltrim", "rtrim"), _OF_TEXT),
    **dict.fromkeys(("md5", "sha1", "sha224", "sha256", "sha384", "sha512"), _OF_TEXT),
    **dict.fromkeys(("indexof", "startswith", "endswith"), _OF_PART),
    **dict.fromkeys(("abs", "acos", "asin", "atan", "cos", "cosh", "exp", "ln", "log", "sin", "sinh"), _OF_NUMBER),
    **dict.fromkeys(("sqrt", "tan", "tanh", "ceil", "floor", "round", "sign", "bitnot", "chr"), _OF_NUMBER),
    **dict.fromkeys(("isnull", "isundefined"), _OF_NUMBER),
    **dict.fromkeys(("atan2", "power", "mod", "remainder", "bitand", "bitor", "bitxor", "nanvl"), _OF_NUMBERS),
    **dict.fromkeys(("rand", "topic", "timestamp", "clientid", "principal", "accountid", "traceid"), _OF_NOTHING),
    **dict.fromkeys(("sourceip", "sql_version", "newuuid"), _OF_NOTHING),
    "concat": ("@t, n.w, @t", "a" * 3000, _WORDS),
    "lpad": ("n.w, 2000", "", _WORDS),
    "rpad": ("n.w, 2000", "", _WORDS),
    "substring": ("@t, 1", _TEXT, _WORDS),
    "replace": ("@t, n.w, ''", _TEXT, _WORDS),
    "trunc": ("n.w, 2", "", _NUMBERS),
    "regexp_matches": ("@t, 'a.*b'", _TEXT, _WORDS),
    "regexp_substr": ("@t, 'a.*b'", _TEXT, _WORDS),
    "regexp_replace": ("@t, 'a.*b', ''", _TEXT, _WORDS),
    "parse_time": ("'yyyy-MM-dd HH:mm:ss', n.w, 'Europe/Berlin'", "", _NUMBERS),
    "time_to_epoch": ("n.w, 'yyyy-MM-dd HH:mm:ss.SSS'", "", _DATES),
    "get": ("words, 399", "", _WORDS),
    "get_or_default": ("n.missing, n.w", "", _WORDS),
    "encode": ("@t, 'base64'", _TEXT, _WORDS),
    "decode": ("@t, 'base64'", _ENCODED, _WORDS),
    "transform": ("'enrichArray', n, words", "", [{"w": 1}] * 40),
    "get_mqtt_property": ("'correlation_data'", "", _NUMBERS),
    "get_user_properties": ("'k'", "", _NUMBERS),
}
_ASKS_THE_SERVICE = {"get_thing_shadow"}
"""How many of them a statement may ask for is bounded by itself."""

_PROPERTIES = tuple((f"k{one}", "v") for one in range(1000))


def _per_step(measured: Callable[[], int]) -> float:
    """Return the seconds of the processor for each step, the best of three."""

    def once() -> float:
        began = time.thread_time()
        steps = measured()
        return (time.thread_time() - began) / steps

    return min(once() for _ in range(3))


def _statement_cost(expression: str, text: str, words: list[Any]) -> float:
    where = f"EXISTS (SELECT n FROM words AS n WHERE {expression})"
    statement = parse(f"SET @t = text SELECT 1 AS x FROM 't' WHERE {where}")
    payload = json.dumps({"text": text, "words": words}).encode()
    message = RoutableMessage("t", payload, user_properties=_PROPERTIES, correlation_data=b"c" * 60_000)

    def measured() -> int:
        meter = new_meter()
        most = meter.left
        with contextlib.suppress(TooMuchError):
            for _ in range(20):
                evaluate(statement, message, entropy=SeededEntropy(), meter=meter)
        return most - max(meter.left, 0)

    return _per_step(measured)


def _reference() -> float:
    return _statement_cost("n.w + 1 > n.w + 2", "", _NUMBERS)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - _ASKS_THE_SERVICE))
def test_a_step_of_a_function_costs_a_rule_a_few_of_a_sum(name: str) -> None:
    arguments, text, words = _WORST[name]
    assert _statement_cost(f"{name}({arguments}) = -1", text, words) < 3 * _reference()


def test_a_step_costs_the_same_where_each_match_reads_to_the_end() -> None:
    assert _statement_cost("regexp_replace(@t, 'a.*;|a', '') = -1", _TEXT, _WORDS) < 3 * _reference()


_OF_CONDITIONS = {
    **dict.fromkeys(("length", "lower", "upper"), "$body.t"),
    **dict.fromkeys(("index_of", "starts_with", "ends_with", "contains"), "$body.t, $body.w"),
    "concat": "$body.t, $body.w",
    "substring": "$body.t, 1",
    "power": "$body.n, $body.n",
}


def _condition_cost(expression: str) -> tuple[float, int]:
    """Return the seconds of the processor, and the steps, of a condition that asks forty times."""
    condition = parse_condition(" AND ".join([f"NOT ({expression})"] * 40))
    body = json.dumps({"t": _TEXT, "w": "a" * 97 + "ba", "n": 2.5}).encode()
    system = (("contentType", "application/json"), ("contentEncoding", "utf-8"))

    def once() -> tuple[float, int]:
        subject = RoutedSubject(RoutableMessage("t", body, system_properties=system))
        most = subject.meter.left
        began = time.thread_time()
        with contextlib.suppress(TooMuchError):
            for _ in range(20):
                holds(condition, subject)
        return time.thread_time() - began, most - subject.meter.left

    return min(once() for _ in range(5))


@pytest.mark.parametrize("name", sorted(CONDITION_FUNCTIONS))
def test_a_step_of_a_function_costs_a_condition_a_few_of_a_sum(name: str) -> None:
    took, steps = _condition_cost(f"{name}({_OF_CONDITIONS.get(name, '$body.n')}) = -1")
    terms, _ = _condition_cost("$body.n + 1 > $body.n + 2")
    assert took < 3 * (terms + steps * _reference())
