"""How the engine is called: what a caller may hold on to."""

import pytest

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.sql import (
    ShadowLookup,
    ShadowWantedError,
    SqlMistake,
    evaluate,
    fill,
    parse,
    parse_template,
)
from support.fakes import SeededEntropy

MESSAGE = RoutableMessage("plant/7/state", b'{"temperature": 50, "on": true}')


def test_a_statement_is_parsed_once_and_says_its_filter() -> None:
    statement = parse("SELECT * FROM 'plant/+/state' WHERE temperature > 30")
    assert statement.filter == "plant/+/state"
    assert not statement.needs_shadow


def test_select_star_hands_on_the_very_bytes() -> None:
    selected = evaluate(parse("SELECT * FROM 'a' WHERE temperature > 30"), MESSAGE, entropy=SeededEntropy())
    assert selected is not None
    assert selected.payload is MESSAGE.payload


def test_what_where_does_not_take_is_none() -> None:
    assert evaluate(parse("SELECT * FROM 'a' WHERE temperature > 90"), MESSAGE, entropy=SeededEntropy()) is None


def test_a_shadow_is_not_asked_for_where_the_message_is_not_taken_anyway() -> None:
    statement = parse("SELECT * FROM 'a' WHERE temperature > 90 AND get_thing_shadow('7', 'role').on = true")
    assert evaluate(statement, MESSAGE, entropy=SeededEntropy()) is None


def test_templates_see_the_message_and_the_variables_of_the_statement() -> None:
    selected = evaluate(parse("SET @half = temperature / 2 SELECT * FROM 'a'"), MESSAGE, entropy=SeededEntropy())
    assert selected is not None
    template = parse_template("$$aws/${topic(2)}/${@half}")
    filled = fill(template, MESSAGE, entropy=SeededEntropy(), variables=selected.variables)
    assert filled == "$aws/7/25"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("$", "$"),
        ("a$b", "a$b"),
        ("$${topic()}", "${topic()}"),
        ("${missing}|${null}|${ {'a': [1, 2.50]} }", '|null|{"a":[1,2.50]}'),
        ("${get({'a': '}'}, 'a')}", "}"),
    ],
)
def test_a_template_is_filled(text: str, filled: str) -> None:
    assert fill(parse_template(text), MESSAGE, entropy=SeededEntropy()) == filled


@pytest.mark.parametrize(
    "text", ["${", "${}", "${topic()", "${topic() topic()}", "${SELECT a}", "${*}", "${[1" + ",1" * 2500]
)
def test_a_template_that_is_none_says_where(text: str) -> None:
    with pytest.raises(SqlMistake):
        parse_template(text)


def test_many_expressions_of_one_template_are_bounded_together() -> None:
    with pytest.raises(SqlMistake, match="2000 terms"):
        parse_template("${a + b + c + d}" * 600)


def test_a_shadow_is_asked_for_by_name_and_handed_in() -> None:
    statement = parse("SELECT get_thing_shadow(topic(2), 'role').state.reported.limit AS most FROM 'a'")
    assert statement.needs_shadow
    wanted = None
    try:
        evaluate(statement, MESSAGE, entropy=SeededEntropy())
    except ShadowWantedError as error:
        wanted = (error.thing, error.name)
    assert wanted == ("7", None)
    known = ShadowLookup({("7", None): {"state": {"reported": {"limit": 9}}}})
    selected = evaluate(statement, MESSAGE, entropy=SeededEntropy(), lookups=known)
    assert selected is not None
    assert selected.payload == b'{"most":9}'
