"""Which certificates an address asks for, in what order of the calendar, and how each is called."""

from datetime import UTC, date, datetime, timedelta

import pytest
from starlette.requests import Request

from birthmark.webconsole.certificates import CertificateFilter, describe_state, monday_of
from birthmark.webconsole.i18n import PageLocale, reader

NOW = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)  # a Wednesday


def asked(query: str) -> CertificateFilter:
    return CertificateFilter.of(Request({"type": "http", "query_string": query.encode(), "headers": []}), NOW)


@pytest.mark.parametrize(
    ("text", "monday"),
    [
        ("now", date(2026, 11, 23)),
        ("2026-11-23", date(2026, 11, 23)),
        ("2026-11-29", date(2026, 11, 23)),
        ("2027-01-01", date(2026, 12, 28)),
        ("", None),
        ("x", None),
        ("2026-13-01", None),
        ("9999-12-31", None),
        ("0001-01-01", None),
        ("2026-W48-1" * 100, None),
    ],
)
def test_a_week_is_that_of_a_day(text: str, monday: date | None) -> None:
    assert monday_of(text, NOW) == monday


def test_a_week_shows_what_was_not_taken_back_until_somebody_says_otherwise() -> None:
    assert asked("week=now").state == "unrevoked"
    assert asked("week=now&state=").state == ""
    assert asked("").state == ""
    assert asked("week=now").query == {
        "unrevoked": "true",
        "ends_from": "2026-11-23T00:00:00+00:00",
        "ends_to": "2026-11-30T00:00:00+00:00",
    }


def test_the_command_asks_for_the_same_and_what_strangers_write_is_one_word() -> None:
    found = asked("week=now&profile=a%3B+rm+-rf&issuer=edge&state=revoked")
    ends = "--ends-from 2026-11-23 --ends-to 2026-11-30"
    assert found.command == f"birthmark pki ls --revoked {ends} --cert-profile 'a; rm -rf' --issuer edge"
    assert asked("").command == "birthmark pki ls --all"
    assert asked("find=d-1&state=revoked").command == "birthmark pki ls d-1"
    assert asked("state=nobodys").asked == {}


def test_the_weeks_beside_keep_the_rest_of_the_filter() -> None:
    found = asked("week=now&profile=device&after=x")
    assert found.shift_weeks(1).address() == "/certificates?week=2026-11-30&state=unrevoked&profile=device"
    assert found.shift_weeks(-1).week == date(2026, 11, 16)


@pytest.mark.parametrize(
    ("revoked", "begin", "end", "kind"),
    [
        (None, -1, 99, ""),
        (None, -99, 1, "warn"),
        (None, -99, -1, "off"),
        (None, 1, 99, "off"),
        ("2026-11-01T00:00:00+00:00", -1, 99, "bad"),
    ],
)
def test_a_certificate_is_marked_by_how_it_stands(revoked: str | None, begin: int, end: int, kind: str) -> None:
    reader.set(PageLocale())
    row = {
        "not_before": (NOW + timedelta(days=begin)).isoformat(),
        "not_after": (NOW + timedelta(days=end)).isoformat(),
    }
    assert describe_state({**row, "revoked": revoked}, NOW)[1] == kind
