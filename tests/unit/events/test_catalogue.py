"""The catalogue: every action of the audit trail has a type, and each type is told of in the page."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import birthmark
from birthmark.events.event_types import CHANGED, KINDS, RENEWED, event_of, type_of
from birthmark.events.json_schema import schema
from birthmark.events.merged_event_feed import PlaceInvalidError, parse_place, place_of
from birthmark.events.model import OperationEvent

ROOT = Path(birthmark.__file__).parent
PAGE = ROOT.parents[1] / "docs" / "howto" / "events.md"


def audited() -> set[str]:
    """Return the actions that the source names as they are."""
    found: set[str] = set()
    for path in ROOT.rglob("*.py"):
        found |= set(re.findall(r"\"([a-z_]+\.[a-z_.]+)\"", path.read_text()))
    return found


def test_no_action_is_told_as_two_types() -> None:
    actions = [action for kind in KINDS for action in kind.actions]
    assert len(actions) == len(set(actions))


@pytest.mark.parametrize("action", [action for kind in KINDS for action in kind.actions])
def test_every_action_of_the_catalogue_is_one_of_the_audit_trail(action: str) -> None:
    known = audited()
    by_verb = {"ca.rollover.next", "ca.rollover.back"}
    assert action in known | by_verb


def test_an_action_that_has_no_type_of_its_own_is_a_change() -> None:
    assert type_of("people.user_create", {}) == CHANGED


def test_a_certificate_that_renews_another_is_told_as_that() -> None:
    assert type_of("certificate.issue", {"renews": "ab"}) == RENEWED != type_of("certificate.issue", {})


def test_an_event_is_one_of_cloudevents() -> None:
    at = datetime(2026, 6, 1, 12, tzinfo=UTC)
    event = event_of(
        OperationEvent("main", 7, at, "device", "dps.register", "pump-1", {"hub": "h"}), "birthmark://here"
    )
    assert event == {
        "specversion": "1.0",
        "id": "main/7",
        "source": "birthmark://here",
        "type": "birthmark.device.registered",
        "subject": "pump-1",
        "time": "2026-06-01T12:00:00+00:00",
        "datacontenttype": "application/json",
        "data": {"action": "dps.register", "actor": "device", "hub": "h"},
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_the_page_tells_of_each_type(kind: object) -> None:
    assert f"`{kind.type}`" in PAGE.read_text()  # type: ignore[attr-defined]


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 2**63 - 1), max_size=5))
def test_a_place_comes_back_as_it_was(places: dict[str, int]) -> None:
    assert parse_place(place_of(places)) == places


@given(st.text(max_size=200))
def test_any_other_text_is_refused_as_no_place(text: str) -> None:
    try:
        parse_place(text)
    except PlaceInvalidError:
        pass


def test_the_schema_on_paper_is_that_of_the_catalogue() -> None:
    written = json.loads((PAGE.parents[1] / "reference" / "events.schema.json").read_text())
    assert written == schema(), "run: python tools/make_events.py"


@pytest.mark.parametrize(
    "action", sorted({action for kind in KINDS for action in kind.actions} | {"people.user_create"})
)
def test_every_event_is_one_of_the_schema(action: str) -> None:
    jsonschema_rs.validate(schema(), an_event(action))


@pytest.mark.parametrize(
    "change",
    [
        {"type": "birthmark.device.vanished"},
        {"data": {"action": "dps.register"}},
        {"data": {"action": "certificate.issue", "actor": "device"}},
        {"specversion": "0.3"},
        {"subject": 1},
    ],
)
def test_what_is_no_event_is_none_of_the_schema(change: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(schema(), {**an_event("dps.register"), **change})


def an_event(action: str) -> dict[str, Any]:
    at = datetime(2026, 6, 1, 12, tzinfo=UTC)
    return dict(event_of(OperationEvent("main", 7, at, "device", action, "pump-1", {"hub": "h"}), "birthmark://here"))
