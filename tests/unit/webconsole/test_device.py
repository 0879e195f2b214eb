"""What a device's page says to do next, and what happened to it: each thing once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from birthmark.webconsole.device import history
from birthmark.webconsole.device_next_steps import next_steps
from birthmark.webconsole.i18n import PageLocale, reader

NOW = datetime(2026, 11, 25, 9, 41, tzinfo=UTC)
ENABLE = "birthmark hub device enable pump-17 --hub birthmark"


@pytest.fixture(autouse=True)
def _somebody_who_reads() -> None:
    reader.set(PageLocale())


def a_refusal(minute: int = 30, message: str = "Device pump-17 is disabled", fix: str = "") -> dict[str, Any]:
    at = NOW.replace(minute=minute).isoformat()
    return {"id": f"id-{minute}", "at": at, "code": "iothub.device_disabled", "message": message, "fix": fix}


def a_part(state: str = "disabled") -> dict[str, Any]:
    return {"place": "hub birthmark", "what": "device", "id": "pump-17", "state": state, "detail": ""}


def test_what_a_refusal_says_to_type_is_not_said_again() -> None:
    refused = a_refusal(fix=f"Enable it: `{ENABLE}`")
    steps = next_steps([a_part()], (), [refused], NOW, quoted="pump-17")
    assert [(one.said, one.fix) for one in steps] == [(refused["message"], refused["fix"])]


def test_a_device_that_is_refused_for_another_reason_is_told_that_it_is_disabled_too() -> None:
    steps = next_steps([a_part()], (), [a_refusal(fix="Renew: `birthmark agent renew`")], NOW, quoted="pump-17")
    assert [one.command for one in steps] == ["", ENABLE]


def test_refusals_that_say_the_same_are_one_line_with_their_number() -> None:
    same, other = [a_refusal(minute) for minute in (33, 32, 31)], a_refusal(20, "Device pump-17 is not known")
    rows = history((), (), [*same, other])
    assert [(row["id"], row["times"]) for row in rows] == [("id-33", 3), ("id-20", 1)]


def test_what_happened_between_two_refusals_parts_them() -> None:
    saved = {
        "at": NOW.replace(minute=32).isoformat(),
        "action": "iothub.device_save",
        "actor": "operator",
        "detail": {},
    }
    rows = history([saved], (), [a_refusal(33), a_refusal(31)])
    assert [row["times"] for row in rows] == [1, 1, 1]


@pytest.mark.parametrize(("state", "kind"), [("disabled", "off"), ("enabled", "bad")])
def test_a_refusal_of_what_an_operator_disabled_is_not_urgent(state: str, kind: str) -> None:
    steps = next_steps([a_part(state)], (), [a_refusal()], NOW, quoted="pump-17")
    assert steps[0].kind == kind


@pytest.mark.parametrize(("age", "rest", "count"), [(40, 13, 0), (300, 13, 1), (0.01, 0.9, 0), (0.9, 0.01, 1)])
def test_a_certificate_expires_soon_in_the_last_fifth_of_its_lifetime(age: float, rest: float, count: int) -> None:
    begin, end = NOW - timedelta(days=age), NOW + timedelta(days=rest)
    certificate = {"revoked": None, "not_before": begin.isoformat(), "not_after": end.isoformat()}
    steps = next_steps([], [certificate], [], NOW, quoted="pump-17")
    assert [one.command for one in steps] == ["birthmark pki ls pump-17"] * count
