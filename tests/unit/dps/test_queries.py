"""Queries of enrollments: what may be asked, and which ids what fits can have."""

from typing import Any

import pytest

from birthmark.documents.query_evaluator import fits
from birthmark.dps.rules.queries import QueryInvalidError, QueryNotServedError, ids_of, query_view, read_query


def where(text: str, kind: str = "enrollments") -> Any:
    return read_query(f"SELECT * FROM {kind} WHERE {text}", kind)


@pytest.mark.parametrize("text", ["", "SELECT *", "select * from enrollments;", "SELECT * FROM enrollments"])
def test_all_are_asked_for(text: str) -> None:
    assert read_query(text, "enrollments") is None


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM devices",
        "SELECT * FROM enrollmentGroups",
        "SELECT TOP 3 * FROM enrollments",
        "SELECT registrationId FROM enrollments",
        "SELECT COUNT() AS n FROM enrollments",
    ],
)
def test_what_is_no_page_of_whole_records_is_refused(text: str) -> None:
    with pytest.raises(QueryNotServedError):
        read_query(text, "enrollments")


@pytest.mark.parametrize(
    "text", ["SELECT * FROM enrollments WHERE", "all of them", "SELECT * FROM enrollments WHERE status = 'disabled'"]
)
def test_what_cannot_be_read_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(QueryInvalidError, match=text.replace("*", r"\*")):
        read_query(text, "enrollments")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("registrationId = 'Pump-1'", {"pump-1"}),
        ("registrationId IN ['a', 'B', 3]", {"a", "b"}),
        ("registrationId = 'a' AND provisioningStatus = 'disabled'", {"a"}),
        ("registrationId IN ['a', 'b'] AND registrationId IN ['b', 'c']", {"b"}),
        ("registrationId = 'a' OR registrationId = 'b'", {"a", "b"}),
        ("registrationId = 'a' OR deviceId = 'b'", None),
        ("NOT registrationId = 'a'", None),
        ("registrationId > 'a'", None),
    ],
)
def test_a_query_by_id_names_what_fits(text: str, ids: set[str] | None) -> None:
    assert ids_of(where(text), "registrationId") == ids


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("provisioningStatus = 'enabled'", True),
        ("ProvisioningStatus = 'disabled'", False),
        ("registrationId = 'PUMP-1'", True),
        ("starts_with(registrationId, 'PUMP')", True),
        ("attestation.type = 'symmetricKey'", True),
        ("is_null(attestation.symmetricKey.primaryKey)", True),
        ("capabilities.iotEdge = false", True),
        ("allocationPolicy = 'hashed'", True),
        ("initialTwin.tags.site = 'north'", True),
        ("createdDateTimeUtc > '2026-01-01'", True),
        ("registrationState.status = 'unassigned'", True),
    ],
)
def test_it_is_asked_of_a_record_as_it_is_shown(text: str, *, is_so: bool) -> None:
    view = {
        "registrationId": "pump-1",
        "provisioningStatus": "enabled",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": None, "secondaryKey": None}},
        "initialTwin": {"tags": {"site": "north"}},
        "createdDateTimeUtc": "2026-11-01T00:00:00.0000000Z",
        "registrationState": {"status": "unassigned"},
    }
    assert fits(where(text), query_view(view, "enrollments")) is is_so
