"""Conditions of policy statements (IAM reference, "Condition operators"): a table of operators.

As in IAM, an unknown key fails an operator and passes its negation (`StringNotEquals`); `…IfExists` passes.
`ForAllValues:` and `ForAnyValue:` evaluate all values of a multivalued key.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from typing import Any

from birthmark.awsiot.rules.policy_variables import PolicyVariables, is_plain, substitute

CURRENT_TIME, EPOCH_TIME = "aws:currenttime", "aws:epochtime"
_FOR_ALL, _FOR_ANY = "ForAllValues:", "ForAnyValue:"
_IF_EXISTS = "IfExists"


class UnknownOperatorError(ValueError):
    """The operator is unknown, or does not support the value."""


# Each takes the fact's value and the policy's value as text.
Test = Callable[[str, str], bool]


def _moment(text: str) -> datetime:
    if text.lstrip("-").isdigit():
        return datetime.fromtimestamp(int(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _compared(read: Callable[[str], Any], holds: Callable[[Any, Any], bool]) -> Test:
    return lambda given, wanted: holds(read(given), read(wanted))


def _never(_given: str, _wanted: str) -> bool:
    return False  # pattern operators do not reach this function


_ORDERS = {"Equals": eq, "LessThan": lt, "LessThanEquals": le, "GreaterThan": gt, "GreaterThanEquals": ge}
_POSITIVE: Mapping[str, Test] = {
    "StringEquals": lambda given, wanted: given == wanted,
    "StringEqualsIgnoreCase": lambda given, wanted: given.casefold() == wanted.casefold(),
    "StringLike": _never,
    "ArnEquals": _never,
    "ArnLike": _never,
    "Bool": lambda given, wanted: given.lower() == wanted.lower(),
    **{f"Numeric{name}": _compared(float, holds) for name, holds in _ORDERS.items()},
    **{f"Date{name}": _compared(_moment, holds) for name, holds in _ORDERS.items()},
    "IpAddress": lambda given, wanted: ipaddress.ip_address(given) in ipaddress.ip_network(wanted, strict=False),
}
_NEGATIVE: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}
_BY_PATTERN = frozenset({"StringLike", "ArnEquals", "ArnLike"})
# Sample value of each type, to reject an invalid one at policy creation instead of at device connection.
_SAMPLES = (("Numeric", "1"), ("Date", "2026-01-01T00:00:00Z"), ("IpAddress", "192.0.2.1"))


@dataclass(frozen=True, slots=True)
class PolicyCondition:
    """One key under one operator; any of `wanted` must match (for a negation: none may)."""

    operator: str
    is_negated: bool
    quantifier: str
    if_exists: bool
    key: str
    wanted: tuple[str, ...]

    @property
    def asks_time(self) -> bool:
        return self.key.lower() in {CURRENT_TIME, EPOCH_TIME}

    def holds(self, facts: PolicyVariables, now: datetime) -> bool:
        """Return whether the condition is met."""
        given = self._given(facts, now)
        if self.operator == "Null":
            return (not given) == (self.wanted[0].lower() == "true")
        if not given:
            return self.if_exists or self.is_negated or self.quantifier == _FOR_ALL
        if self.quantifier == _FOR_ANY:
            return any(self._fits(value, facts) for value in given)
        if self.quantifier == _FOR_ALL:
            return all(self._fits(value, facts) for value in given)
        return self._fits(given[0], facts)

    def _given(self, facts: PolicyVariables, now: datetime) -> tuple[str, ...]:
        match self.key.lower():
            case "aws:currenttime":
                return (now.isoformat(),)
            case "aws:epochtime":
                return (str(int(now.timestamp())),)
            case _:
                return facts.all(self.key)

    def _fits(self, value: str, facts: PolicyVariables) -> bool:
        return any(self._test(value, wanted, facts) for wanted in self.wanted) is not self.is_negated

    def _test(self, value: str, expected: str, facts: PolicyVariables) -> bool:
        if self.operator in _BY_PATTERN:
            glob = substitute(expected, facts)
            return glob is not None and glob.matches(value)
        if not is_plain(expected):
            glob = substitute(expected.replace("*", "${*}").replace("?", "${?}"), facts)
            if glob is None:
                return False
            expected = glob.chunks[0]
        try:
            return _POSITIVE[self.operator](value, expected)
        except (ValueError, OverflowError):
            return False  # the fact is no number, date or address


def parse_condition(name: str, key: str, wanted: Sequence[str]) -> PolicyCondition:
    """Return the condition of an operator name in the document. Raise `UnknownOperatorError`."""
    quantifier = next((prefix for prefix in (_FOR_ALL, _FOR_ANY) if name.startswith(prefix)), "")
    operator = name.removeprefix(quantifier)
    if_exists = operator.endswith(_IF_EXISTS)
    operator = operator.removesuffix(_IF_EXISTS)
    is_negated = operator in _NEGATIVE
    operator = _NEGATIVE.get(operator, operator)
    if operator not in _POSITIVE and operator != "Null":
        raise UnknownOperatorError(f"unknown condition operator {name!r}")
    if not wanted or not key:
        raise UnknownOperatorError(f"{name} has no {'value' if key else 'key'}")
    sample = next((value for prefix, value in _SAMPLES if operator.startswith(prefix)), None)
    for value in wanted:
        try:
            if sample is not None and is_plain(value):
                _POSITIVE[operator](sample, value)
        except (ValueError, OverflowError) as error:
            raise UnknownOperatorError(f"{name} cannot use the value {value!r}") from error
    return PolicyCondition(operator, is_negated, quantifier, if_exists, key, tuple(wanted))
