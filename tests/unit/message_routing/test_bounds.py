"""Whatever is written and whatever is sent: a documented answer, and not for long."""

import base64
import contextlib
import inspect
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions import RoutedSubject, holds, parse_condition
from birthmark.message_routing.rules.sql import (
    SqlMistake,
    TooMuchError,
    evaluate,
    fill,
    new_meter,
    parse,
    parse_template,
)
from birthmark.message_routing.rules.sql.functions import FUNCTIONS
from birthmark.message_routing.rules.sql.syntax_tree import Version
from birthmark.message_routing.rules.sql.values import MAX_BYTES, MAX_DEPTH, read_payload
from support.fakes import SeededEntropy

_TEXT = (
    "SELECT FROM WHERE AS AND OR NOT CASE WHEN THEN ELSE END VALUE SET IN LIKE a b.c @v * , . ( ) [ ] { } : = <> < "
    "<= > >= + - / % 'a/b' 'x' \"y\" 5 2.5 1E900 true null undefined cast( Int String topic() ${ } $$ $body $twin"
)
_WORDS = _TEXT.split()
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcv") | st.text(), inner, max_size=4),
    max_leaves=12,
)
_PAYLOADS = st.binary(max_size=40) | _JSON.map(lambda value: json.dumps(value).encode())


def _expressions() -> st.SearchStrategy[str]:
    leaves = st.sampled_from(
        ["a", "a.b", "b", "missing", "5", "-2.5", "1E900", "'x'", "'7'", "''", "true", "null", "undefined", "[]", "{}"]
    )

    def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pairs = st.tuples(inner, inner)
        # A constant pattern that is none is refused when the statement is read, and so is a scheme.
        calls = st.sampled_from(
            sorted(name for name in FUNCTIONS if name not in {"encode", "decode", "get_thing_shadow"})
        )
        return st.one_of(
            st.tuples(
                inner, st.sampled_from(["+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">=", "AND", "OR"]), inner
            ).map(lambda one: f"({one[0]} {one[1]} {one[2]})"),
            inner.map(lambda one: f"(NOT {one})"),
            inner.map(lambda one: f"(- {one})"),
            inner.map(lambda one: f"[{one}, a]"),
            pairs.map(lambda one: f"{{'k': {one[0]}, 'l': {one[1]}}}"),
            pairs.map(lambda one: f"CASE {one[0]} WHEN {one[1]} THEN 1 ELSE {one[0]} END"),
            pairs.map(lambda one: f"(SELECT VALUE {{'m': a}} FROM {one[0]} WHERE {one[1]} = a)"),
            st.tuples(inner, st.sampled_from(["String", "Int", "Decimal", "Double", "Boolean"])).map(
                lambda one: f"cast({one[0]} as {one[1]})"
            ),
            st.tuples(calls, st.lists(inner, max_size=3)).map(lambda one: f"{one[0]}({', '.join(one[1])})"),
        )

    return st.recursive(leaves, bigger, max_leaves=8)


def _evaluated(sql: str, payload: bytes) -> Any:
    try:
        statement = parse(sql)
    except SqlMistake as mistake:
        assert 0 <= mistake.where <= len(sql)
        assert mistake.what.endswith((".", "…"))
        assert mistake.instead.endswith(".")
        return None
    try:
        selected = evaluate(statement, RoutableMessage("a/b", payload), entropy=SeededEntropy())
    except TooMuchError:
        return None
    if selected is not None and not statement.is_whole and selected.payload:
        assert len(selected.payload) <= MAX_BYTES
        return json.loads(selected.payload)
    return selected


@given(st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=25).map(" ".join), _PAYLOADS)
def test_any_text_is_a_statement_or_says_what_is_wrong(text: str, payload: bytes) -> None:
    _evaluated(text, payload)
    _evaluated(f"SELECT {text}", payload)


@given(_expressions(), _PAYLOADS)
def test_any_expression_makes_json_of_any_message(expression: str, payload: bytes) -> None:
    _evaluated(f"SELECT {expression} AS made, * FROM 'a' WHERE isUndefined({expression}) OR true", payload)
    _evaluated(f"SET @v = {expression} SELECT VALUE [@v, @v] FROM 'a'", payload)


@given(_expressions(), _PAYLOADS)
def test_any_template_is_filled_with_text(expression: str, payload: bytes) -> None:
    try:
        filled = fill(
            parse_template(f"a/${{{expression}}}/b"), RoutableMessage("a/b", payload), entropy=SeededEntropy()
        )
    except (SqlMistake, TooMuchError):
        return
    assert filled.startswith("a/")
    assert filled.endswith("/b")
    filled.encode()


@given(st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=25).map(" ".join), _PAYLOADS)
def test_any_text_is_a_condition_or_says_what_is_wrong(text: str, payload: bytes) -> None:
    try:
        condition = parse_condition(text)
    except SqlMistake as mistake:
        assert 0 <= mistake.where <= len(text)
        return
    system = (("contentType", "application/json"), ("contentEncoding", "utf-8"))
    message = RoutableMessage("a", payload, system_properties=system)
    assert holds(condition, RoutedSubject(message, {"tags": {"a": 1}})) in {True, False}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT VALUE " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT VALUE " + "[" * 5000,
        "SELECT VALUE " + "abs(" * 5000,
        "SELECT VALUE (" + "- " * 5000 + "1)",
        "SELECT VALUE (" + "NOT " * 5000 + "a)",
        "SELECT VALUE (" + "a + " * 5000 + "a)",
        "SELECT VALUE a" + ".a" * 5000,
        "SELECT VALUE (" + "CASE a WHEN 1 THEN " * 5000,
        "SELECT VALUE " + "(SELECT VALUE a FROM " * 5000,
        "SELECT 1 AS a" + ".a" * 5000,
        "SELECT '" + "x" * 300_000 + "' AS a",
        "SELECT \ud800 FROM 'a'",
        "SELECT VALUE @" + "a" * 200_000,
    ],
    ids=lambda sql: sql[:40].encode("ascii", "replace").decode(),
)
def test_what_is_too_long_or_too_deep_is_a_mistake(sql: str) -> None:
    with pytest.raises(SqlMistake) as refused:
        parse(sql)
    assert len(str(refused.value)) < 600


def test_long_chains_are_no_deep_trees() -> None:
    chain = " AND ".join(["a = 1"] * 600)
    assert _evaluated(f"SELECT * FROM 'a' WHERE {chain}", b'{"a":1}') is not None
    assert _evaluated("SELECT VALUE (" + " + ".join(["a"] * 1900) + ") FROM 'a'", b'{"a":1}') == 1900


LARGE = json.dumps({"text": "a" * 120_000}).encode()
LIST = json.dumps({"list": [1] * 40_000}).encode()
NUMBERS = json.dumps({"list": [10**300] * 400}).encode()
OBJECTS = json.dumps({"list": [{"a": 1}] * 12_000}).encode()


@pytest.mark.parametrize(
    ("sql", "payload"),
    [
        ("SELECT " + ", ".join(f"lower(text) AS a{at}" for at in range(900)), LARGE),
        ("SELECT " + ", ".join(f"list = list AS a{at}" for at in range(600)), LIST),
        ("SELECT " + ", ".join(f"regexp_matches(text, '(a?){{400}}b{{300}}{at}') AS a{at}" for at in range(50)), LARGE),
        ("SELECT regexp_replace(text, 'a', 'aaaaaaaaaaaaaaaa') AS x", LARGE),
        ("SELECT regexp_replace(text, 'a.*;|a', '') AS x", LARGE),
        ("SELECT regexp_replace(text, 'a([^b]*b)?', '') AS x", LARGE),
        ("SELECT regexp_replace(text, '(a[a-z]{500}b)|a', '') AS x", LARGE),
        (f"SELECT regexp_replace(text, '{'()' * 500}', '') AS x", LARGE),
        (f"SELECT regexp_replace(text, '(x?)', '{'$1' * 30_000}') AS x", LARGE),
        ("SELECT replace(text, 'a', 'bb') AS x", LARGE),
        ("SELECT " + ", ".join(f"text = text AS a{at}" for at in range(900)), LARGE),
        ("SET " + ", ".join(f"@v{at} = list" for at in range(900)) + " SELECT 1 AS x", LIST),
        ("SELECT " + ", ".join(f"length(cast(list AS String)) AS a{at}" for at in range(90)), LIST),
        ("SELECT (SELECT VALUE n" + " * n" * 40 + " FROM list AS n) AS x", NUMBERS),
        ("SELECT [" + ", ".join(["text"] * 1900) + "] AS x", LARGE),
        ("SELECT VALUE concat(" + ", ".join(["list"] * 1900) + ")", LIST),
        ("SELECT (SELECT VALUE '" + "x" * 60_000 + "' FROM list) AS x", LIST),
        ("SELECT " + ", ".join(f"(SELECT VALUE a FROM list) AS a{at}" for at in range(300)), OBJECTS),
        (
            "SET @v0 = 'x'" + "".join(f", @v{at + 1} = [@v{at}, @v{at}]" for at in range(200)) + " SELECT @v200 AS x",
            b"{}",
        ),
        ("SET @v0 = 'x'" + "".join(f", @v{at + 1} = [@v{at}]" for at in range(200)) + " SELECT @v200 AS x", b"{}"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_costs_too_much_is_given_up(sql: str, payload: bytes) -> None:
    statement = parse(f"{sql} FROM 'a'")
    with pytest.raises(TooMuchError):
        evaluate(statement, RoutableMessage("a", payload), entropy=SeededEntropy())


@pytest.mark.parametrize("pattern", ["[^ -~]", r"\\\\s+", "[0-9a-f]{2}", "a|b", "(a|b)c?"])
def test_an_everyday_pattern_may_match_thousands_of_times(pattern: str) -> None:
    payload = json.dumps({"text": "a1 \u00e9" * 6000}).encode()
    assert _evaluated(f"SELECT regexp_replace(text, '{pattern}', '') AS x FROM 'a'", payload) is not None


def test_a_rule_pays_for_all_it_does_with_one_message() -> None:
    statement, message = parse("SELECT lower(text) AS x FROM 'a'"), RoutableMessage("a", LARGE)
    meter = new_meter()
    evaluate(statement, message, entropy=SeededEntropy(), meter=meter)
    meter.left //= 200
    with pytest.raises(TooMuchError):
        evaluate(statement, message, entropy=SeededEntropy(), meter=meter)


@pytest.mark.parametrize(
    "pattern",
    [r"\pL{12}b", r"[\pL\pN]{12}", r"\p{Lo}{16}b", "(?i)" + r"\pL" * 300, r"[\pL\pN]{20}", "(a{99}b{99}c{99})" * 40],
)
def test_the_patterns_of_a_rule_are_made_ready_within_its_steps(pattern: str) -> None:
    meter, many = new_meter(), itertools.count(time.monotonic_ns())
    began = time.thread_time()
    with contextlib.suppress(SqlMistake):
        for _ in range(600):
            with contextlib.suppress(SqlMistake):
                parse(f"SELECT regexp_matches(text, '{pattern}{next(many)}') AS x FROM 'a'", meter=meter)
            if meter.left < 0:
                break
    assert meter.left < 0
    assert time.thread_time() - began < 0.5  # some 60 ms on a machine that does nothing else


def test_a_hundred_patterns_of_a_rule_and_its_templates_are_taken() -> None:
    meter, many = new_meter(), itertools.count(time.monotonic_ns())
    terms = " OR ".join(f"regexp_matches(text, '^sensor-[a-z]+-[0-9]{{3}}-{next(many)}$')" for _ in range(100))
    parse(f"SELECT * FROM 'a' WHERE {terms}", meter=meter)
    parse_template(f"${{regexp_substr(text, '[0-9]+-{next(many)}')}}", meter=meter)


def test_patterns_that_messages_bring_do_not_make_a_statements_own_cost_more() -> None:
    own = parse("SELECT regexp_matches(text, 'its own') AS x FROM 'a'")
    brought = parse("SELECT regexp_matches('', pattern) AS x FROM 'a'")

    def cost() -> int:
        meter = new_meter()
        evaluate(own, RoutableMessage("a", b'{"text":""}'), entropy=SeededEntropy(), meter=meter)
        return new_meter().left - meter.left

    before = cost()
    for number in range(1000):
        evaluate(brought, RoutableMessage("a", json.dumps({"pattern": f"p{number}"}).encode()), entropy=SeededEntropy())
    assert cost() == before


def test_a_payload_deeper_than_the_limit_is_bytes() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert _evaluated("SELECT VALUE isUndefined(a) FROM 'a'", nested(MAX_DEPTH)) is False
    assert _evaluated("SELECT VALUE isUndefined(a) FROM 'a'", nested(MAX_DEPTH + 1)) is True
    assert _evaluated("SELECT VALUE isUndefined(a) FROM 'a'", nested(60_000)) is True


def test_a_number_of_many_digits_goes_through_as_it_is() -> None:
    digits = b"9" * 4000
    statement = parse("SELECT a FROM 'a'")
    selected = evaluate(statement, RoutableMessage("a", b'{"a":%s}' % digits), entropy=SeededEntropy())
    assert selected is not None
    assert selected.payload == b'{"a":%s}' % digits


def test_what_base64_holds_may_be_as_large_as_a_message() -> None:
    large = base64.b64encode(json.dumps({"a": "x" * 90_000}).encode()).decode()
    payload = json.dumps({"packed": large}).encode()
    assert _evaluated("SELECT VALUE length(decode(packed, 'base64').a) FROM 'a'", payload) == 90_000


@pytest.mark.parametrize("read", [parse, parse_condition], ids=["statement", "condition"])
def test_a_caller_deep_in_its_own_calls_gets_a_mistake(read: Callable[[str], object]) -> None:
    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            read("(" * 30 + "1" + ")" * 30 if read is parse_condition else "SELECT VALUE " + "[" * 30 + "1" + "]" * 30)

    with pytest.raises(SqlMistake, match="nested"):
        deeper(sys.getrecursionlimit() - len(inspect.stack()) - 100)


@pytest.mark.parametrize(
    "expression", ["@h * @h", "@h = 1.5", "abs(@h)", "cast(@h as Int)", "@h - 1", "floor(@h)", "@h < 1.5"]
)
def test_long_numbers_are_calculated_with_at_the_cost_of_short_ones(expression: str) -> None:
    statement = parse(f"SET @h = h SELECT 1 AS o FROM 't' WHERE EXISTS (SELECT n FROM a AS n WHERE {expression})")

    def cost(digits: int) -> float:
        message = RoutableMessage("t", b'{"h":%s,"a":[%s]}' % (b"9" * digits, b",".join([b"1"] * 3000)))
        began = time.thread_time()
        evaluate(statement, message, entropy=SeededEntropy())
        return time.thread_time() - began

    assert min(cost(4200) for _ in range(3)) < 4 * min(cost(30) for _ in range(3))


def test_an_alias_of_many_parts_is_refused_at_the_first_that_is_too_many() -> None:
    with pytest.raises(SqlMistake, match=r"32 parts\. \(at character 77\)"):
        parse("SELECT a AS " + "a." * 100_000 + "a FROM 't'")


def test_the_name_of_a_zone_has_at_most_64_characters() -> None:
    assert (
        _evaluated("SELECT VALUE parse_time('HH', 0, z) FROM 'a'", b'{"z": "%s"}' % (b"A/" * 50 + b"A")).payload == b""
    )


_LARGE = b'{"%s":"%s",%s}' % (b"n" * 1000, b"v" * 100_000, b",".join(b'"N%d":%d' % (one, one) for one in range(8000)))
_AS_JSON = (("contentType", "application/json"), ("contentEncoding", "utf-8"))


def _cost_of_conditions(text: str, count: int) -> float:
    conditions = [parse_condition(text) for _ in range(count)]
    began = time.thread_time()
    subject = RoutedSubject(RoutableMessage("t", _LARGE, system_properties=_AS_JSON))
    with contextlib.suppress(TooMuchError):
        for condition in conditions:
            holds(condition, subject)
    return time.thread_time() - began


@pytest.mark.parametrize(
    "text", ["$body.n1 = 1", "$body.none = 1", f"$body.{'n' * 1000} = 'v'", f"$body.{'n' * 1000} < lower('V')"]
)
def test_a_hundred_conditions_cost_a_large_message_little_more_than_one(text: str) -> None:
    assert min(_cost_of_conditions(text, 100) for _ in range(3)) < 10 * min(
        _cost_of_conditions(text, 1) for _ in range(3)
    )


def test_conditions_share_the_steps_of_a_message() -> None:
    subject = RoutedSubject(RoutableMessage("t", _LARGE, system_properties=_AS_JSON))
    condition = parse_condition(" AND ".join([f"length($body.{'n' * 1000}) > 0"] * 14))
    assert holds(condition, subject)
    assert holds(condition, subject)
    with pytest.raises(TooMuchError):
        holds(condition, subject)


def test_a_name_in_another_letter_case_is_the_first_one_written_so() -> None:
    subject = RoutedSubject(RoutableMessage("t", b'{"Level": 1, "LEVEL": 2}', system_properties=_AS_JSON))
    assert holds(parse_condition("$body.level = 1 AND $body.LEVEL = 2"), subject)


def test_a_byte_order_mark_before_a_messages_json_says_nothing() -> None:
    for version in Version:
        assert read_payload(b'\xef\xbb\xbf{"t": 1}', version) == {"t": 1}
