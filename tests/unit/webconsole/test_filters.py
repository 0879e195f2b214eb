"""What an address of a page asks for, and the command that asks for the same."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from birthmark.iam.model import RIGHTS_OF, UserRole
from birthmark.webconsole import audit, devices, refusals, settings
from birthmark.webconsole.approvals import readable
from birthmark.webconsole.events_and_alerts import words_of_types
from birthmark.webconsole.i18n import PageLocale, reader
from birthmark.webconsole.users import RIGHTS, ROLES, explained, format_roles

ID = "f5d28096-4cc8-4508-b1b4-f180ffba9dee"


@pytest.fixture(autouse=True)
def somebody() -> Iterator[None]:
    reads = reader.set(PageLocale())
    yield
    reader.reset(reads)


def asked(**query: str) -> Request:
    return Request({"type": "http", "query_string": urlencode(query).encode(), "headers": []})


@pytest.mark.parametrize("typed", [ID, f"Reference: {ID}", f"  '{ID}', said the device"])
def test_of_pasted_text_with_a_tracking_id_that_one_is_asked_for(typed: str) -> None:
    assert refusals.RefusalFilter.of(asked(subject=typed)).subject == ID


def test_refusals_are_asked_for_by_the_same_command() -> None:
    assert refusals.RefusalFilter.of(asked(back="7d")).command == "birthmark why --reasons --last 7d"
    assert refusals.RefusalFilter.of(asked(back="a year")).back == "24h"
    found = refusals.RefusalFilter.of(asked(subject="pump 1", code="dps.disabled"))
    assert found.command == "birthmark why 'pump 1' --code dps.disabled --limit 50"
    assert found.address(ID) == f"/refusals?subject=pump+1&code=dps.disabled&before={ID}"


def test_rows_of_the_audit_trail_are_asked_for_by_the_same_command() -> None:
    found = audit.AuditRowFilter.of(asked(by="user:anna", action="dps."))
    assert found.command == "birthmark server audit ls --by user:anna --action dps."
    assert found.address(about="pump-1") == "/audit?by=user%3Aanna&action=dps.&about=pump-1"
    assert audit.AuditRowFilter.of(asked()).address() == "/audit"


def test_settings_are_asked_for_by_the_same_command() -> None:
    found = settings.SettingFilter.of(asked(begin="est.", changed="yes"))
    assert found.command == "birthmark server settings --changed --where 'key=est.*'"
    assert not found.takes({"key": "est.user", "is_changed": False})
    assert settings.grouped([{"key": "a.b"}, {"key": "data"}]) == [("", [{"key": "data"}]), ("a", [{"key": "a.b"}])]


def test_what_waits_is_readable_and_an_empty_body_says_nothing() -> None:
    assert readable("{}") == ""
    assert readable('{"name":"é"}') == '{\n  "name": "é"\n}'
    assert readable("{not json") == "{not json"


def test_who_was_refused_is_called_by_the_surest_name() -> None:
    assert refusals.find_client_name({"user": "u", "common_name": "c", "device_id": "d"}) == "d"
    assert refusals.find_client_name({"operation": "simpleenroll"}) == ""


def test_each_role_is_explained_with_all_that_it_may() -> None:
    assert set(ROLES) == set(UserRole)
    assert [(one["role"], one["rights"]) for one in explained()["explained"]] == [
        (role.value, [RIGHTS[right] for right in RIGHTS_OF[role]]) for role in UserRole
    ]
    roles = [{"role": "viewer", "place": "*"}, {"role": "admin", "place": "hub/x"}]
    assert format_roles(roles) == ["viewer", "admin at hub/x"]
    assert words_of_types(["*"]) == words_of_types([]) == "everything"


def test_devices_are_asked_for_by_the_same_command() -> None:
    found = devices.DevicesFilter.of(asked(begin="pump", state="revoked", order="ends"))
    assert found.command == "birthmark device find pump --state revoked --sort ends"
    assert found.address == "/devices?begin=pump&state=revoked&order=ends"


def test_pages_of_devices_go_on_and_back() -> None:
    second = devices.DevicesFilter().following("a")
    third = second.following("b")
    assert (third.number, third.after) == (3, "b")
    assert third.previous == second
    assert second.previous == devices.DevicesFilter()
    assert devices.DevicesFilter().previous is None


def test_back_over_very_many_pages_is_bounded_and_leads_to_the_first() -> None:
    page = devices.DevicesFilter()
    for number in range(100):
        page = page.following(str(number))
    assert len(page.address) < 1000
    while page.back:
        page = page.previous or page
    assert page.previous == devices.DevicesFilter()


@pytest.mark.parametrize("page", ["-1", "x", "\uff19", "9" * 50, ""])
def test_a_page_number_that_is_none_is_the_first(page: str) -> None:
    assert devices.DevicesFilter.of(asked(page=page)).number == 1


def test_rows_of_people_and_of_a_time_are_asked_for_by_the_same_command() -> None:
    found = audit.AuditRowFilter.of(asked(people="yes", last="24h"))
    assert found.command == "birthmark server audit ls --people --last 24h"
    assert audit.AuditRowFilter.of(asked(last="a year")).last == ""
