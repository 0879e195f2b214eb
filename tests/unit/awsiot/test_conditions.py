"""Each operator of a condition: what it is met by, and what it is not."""

import pytest

from birthmark.awsiot.rules.policy_conditions import UnknownOperatorError, parse_condition
from birthmark.awsiot.rules.policy_variables import ConnectionContext, PolicyVariables, facts_of
from support.fakes import NOON
from support.pki.pki_builders import a_device

AT = int(NOON.timestamp())


def facts(client_id: str = "7") -> PolicyVariables:
    certificate = a_device().certificate
    return facts_of(certificate, ConnectionContext(certificate, client_id, "192.0.2.7", ""))


def holds(operator: str, key: str, *wanted: str, known: PolicyVariables | None = None) -> bool:
    return parse_condition(operator, key, wanted).holds(known or facts(), NOON)


@pytest.mark.parametrize(
    ("operator", "below", "same", "above"),
    [
        ("NumericEquals", False, True, False),
        ("NumericNotEquals", True, False, True),
        ("NumericLessThan", False, False, True),
        ("NumericLessThanEquals", False, True, True),
        ("NumericGreaterThan", True, False, False),
        ("NumericGreaterThanEquals", True, True, False),
    ],
)
def test_numbers_are_compared_with_the_policys(operator: str, below: bool, same: bool, above: bool) -> None:
    assert [holds(operator, "iot:ClientId", wanted) for wanted in ("6.5", "7.0", "8")] == [below, same, above]


@pytest.mark.parametrize(
    ("operator", "before", "same", "after"),
    [
        ("DateEquals", False, True, False),
        ("DateNotEquals", True, False, True),
        ("DateLessThan", False, False, True),
        ("DateLessThanEquals", False, True, True),
        ("DateGreaterThan", True, False, False),
        ("DateGreaterThanEquals", True, True, False),
    ],
)
def test_moments_are_compared_in_any_form(operator: str, before: bool, same: bool, after: bool) -> None:
    earlier, now, later = "2026-06-01T11:59:59Z", "2026-06-01T12:00:00", str(AT + 1)
    for key in ("aws:CurrentTime", "aws:EpochTime"):
        assert [holds(operator, key, wanted) for wanted in (earlier, now, later)] == [before, same, after]


@pytest.mark.parametrize("operator", ["NumericEquals", "DateEquals", "IpAddress"])
def test_a_fact_that_is_no_number_date_or_address_fits_nothing(operator: str) -> None:
    wanted = {"IpAddress": "0.0.0.0/0"}.get(operator, "7")
    assert not holds(operator, "iot:ClientId", wanted, known=facts("words"))


@pytest.mark.parametrize(
    ("operator", "wanted", "is_met"),
    [
        ("StringEqualsIgnoreCase", "PUMP", True),
        ("StringNotEqualsIgnoreCase", "PUMP", False),
        ("StringNotLike", "pu*", False),
        ("ArnEquals", "p?mp", True),
        ("ArnNotLike", "v*", True),
        ("StringEquals", "${iot:ClientId}", True),
        ("StringEquals", "${no:such}", False),
        ("StringEquals", "${*}", False),
    ],
)
def test_words_are_compared_as_they_stand_or_by_pattern(operator: str, wanted: str, is_met: bool) -> None:
    assert holds(operator, "iot:ClientId", wanted, known=facts("pump")) is is_met


def test_a_key_that_is_known_is_not_null() -> None:
    assert holds("Null", "iot:ClientId", "false")
    assert not holds("Null", "iot:ClientId", "true")


@pytest.mark.parametrize(
    ("operator", "key", "wanted"),
    [
        ("StringSounds", "k", ("a",)),
        ("StringEquals", "", ("a",)),
        ("StringEquals", "k", ()),
        ("NumericEquals", "k", ("seven",)),
        ("DateEquals", "k", ("noon",)),
        ("DateEquals", "k", ("9" * 30,)),
        ("IpAddress", "k", ("nowhere",)),
    ],
)
def test_what_an_operator_cannot_use_is_refused_when_the_policy_is_made(
    operator: str, key: str, wanted: tuple[str, ...]
) -> None:
    with pytest.raises(UnknownOperatorError):
        parse_condition(operator, key, wanted)
