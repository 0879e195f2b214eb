"""*Certificates* by HTTP: found by the week they end, told whole, and taken back by who may, a CA by two."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from support.console.people import ServerServices, said
from support.server.servers import a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("certificates")) as server:
        yield ServerServices(server)


def monday(day: datetime) -> str:
    return (day - timedelta(days=day.weekday())).date().isoformat()


def test_a_week_shows_what_ends_in_it_and_the_command_finds_the_same(rooms: ServerServices) -> None:
    anna, thumbprint = rooms.person("anna"), rooms.issued("d-week")
    end = datetime.fromisoformat(rooms.asked("GET", f"/certificates/{thumbprint}")["not_after"])
    page = anna.get(f"/certificates?week={end.date().isoformat()}").text  # any day is its week
    assert "d-week" in page
    assert f"birthmark pki ls --unrevoked --ends-from {monday(end)} --ends-to" in said(page)
    assert "d-week" not in anna.get(f"/certificates?week={monday(end + timedelta(days=7))}").text
    begin, until = monday(end), monday(end + timedelta(days=7))
    rows = rooms.server.rows("pki", "ls", "--unrevoked", "--ends-from", begin, "--ends-to", until)
    assert "d-week" in [row["device"] for row in rows]
    now = anna.get("/certificates?week=now").text
    assert ("d-week" in now) == (monday(end) == monday(datetime.now(UTC)))


def test_a_filter_is_in_the_address_and_what_is_none_is_no_mistake(rooms: ServerServices) -> None:
    berta, thumbprint = rooms.person("berta"), rooms.issued("d-filter")
    assert "d-filter" in berta.get("/certificates?profile=device&issuer=issuing&state=valid").text
    assert "No matching certificates" in berta.get("/certificates?profile=nobodys").text
    assert thumbprint in berta.get("/certificates?find=d-filter").text
    assert "pki ls d-filter" in said(berta.get("/certificates?find=d-filter").text)
    for odd in ("week=x", "week=9999-12-31", "week=0001-01-01", "state=x", "find=%3Cb%3E", "profile=%E2%80%AE"):
        assert berta.get(f"/certificates?{odd}").status_code == 200, odd
    assert berta.get("/certificates?after=x").status_code == 400


def test_what_ends_soon_is_led_to_from_the_first_page_and_says_what_it_leaves_out(rooms: ServerServices) -> None:
    lotte = rooms.person("lotte")
    rooms.issued("d-soon")
    assert 'href="/devices?state=ending"' in lotte.get("/").text
    soon = lotte.get("/devices?state=ending").text
    assert "d-soon" in soon
    assert "does not know the expiration dates" in said(soon)
    assert 'href="/certificates?state=ending"' in soon
    dates = lotte.get("/certificates?state=ending").text
    assert ("d-soon" in dates, "does not know the expiration dates" in said(dates)) == (True, True)
    assert "it does not know" not in said(lotte.get("/devices").text)


def test_the_first_page_tells_what_people_changed_from_what_devices_did(rooms: ServerServices) -> None:
    otto = rooms.person("otto")
    for number in range(12):  # more than the page has lines for
        rooms.issued(f"d-busy-{number}")
    page = said(otto.get("/").text)
    people, devices = page.partition("Recent changes")[2].split("Devices and programs", 1)
    assert "operator" in people
    assert "d-busy" not in people
    assert "certificate" in devices.partition("hours:")[2]


def test_the_preview_of_a_devices_end_has_times_as_who_reads_writes_them(rooms: ServerServices) -> None:
    ludwig = rooms.person("ludwig", "operator")
    end = datetime.fromisoformat(rooms.asked("GET", f"/certificates/{rooms.issued('d-whole')}")["not_after"])
    preview = ludwig.get("/take-back?device=d-whole").text
    assert f'<time datetime="{end.replace(second=0).isoformat()}"' in preview
    assert "until it is released: birthmark pki release d-whole" in " ".join(said(preview).split())


def test_pages_of_the_list_follow_one_another(rooms: ServerServices) -> None:
    carl = rooms.person("carl")
    for number in range(51):
        rooms.issued(f"d-page-{number}")
    first = carl.get("/certificates?profile=device").text
    following = first.partition('<div class="pager">')[2].partition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert following.startswith("/certificates?profile=device&after=")
    second = carl.get(following).text
    assert all((f">d-page-{number}<" in first) != (f">d-page-{number}<" in second) for number in range(51))


def test_whoever_may_takes_a_certificate_back_once_and_the_later_one_is_told(rooms: ServerServices) -> None:
    dora, emil, thumbprint = rooms.person("dora", "operator"), rooms.person("emil", "operator"), rooms.issued("d-back")
    path = f"/certificates/{thumbprint}"
    assert "CN=d-back" in said(dora.get(path).text)
    preview = dora.get(f"{path}/revoke").text
    assert "no changes yet" in preview
    assert rooms.asked("GET", path)["revoked"] is None
    fields, later = dora.fields(f"{path}/revoke"), emil.fields(f"{path}/revoke")
    done = [dora.post(f"{path}/revoke", fields | {"reason": "superseded"}) for _ in range(2)]  # a double press
    assert [one.status_code for one in done] == [303, 303]
    assert rooms.asked("GET", path)["reason"] == "superseded"
    too_late = emil.post(f"{path}/revoke", later | {"reason": "keyCompromise"})
    assert (too_late.status_code, "ca.already_revoked" in too_late.text) == (409, True)
    assert "revoked" in dora.get(path).text


def test_who_may_look_alone_revokes_nothing(rooms: ServerServices) -> None:
    fritz, thumbprint = rooms.person("fritz"), rooms.issued("d-stays")
    path = f"/certificates/{thumbprint}/revoke"
    done = fritz.submit(path, reason="keyCompromise")
    assert (done.status_code, 'lang="en"' in done.text) == (403, True)
    assert rooms.asked("GET", f"/certificates/{thumbprint}")["revoked"] is None


def test_a_ca_is_taken_back_by_two(rooms: ServerServices) -> None:
    one, two = rooms.person("gerda", "admin"), rooms.person("hans", "admin")
    issuing = next(row for row in rooms.asked("GET", "/lists")["items"] if row["purpose"] == "issuing")
    rooms.issued("d-below")
    path = f"/certificates/{issuing['thumbprint']}/revoke"
    preview = said(one.get(path).text)
    assert "certificates issued by this CA are valid" in preview
    assert "A second user must approve it" in preview
    asked = one.submit(path, reason="cACompromise")
    assert (asked.status_code, "people.second_person_wanted" in asked.text) == (422, True)
    (waits,) = rooms.asked("GET", "/people/approvals")["items"]
    assert two.operator("POST", f"/people/approvals/{waits['id']}/reject").ok  # so that this server goes on
    assert rooms.asked("GET", f"/certificates/{issuing['thumbprint']}")["revoked"] is None


def test_a_ca_is_taken_back_when_the_same_is_done_again_after_the_approval(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with a_server(tmp_path_factory.mktemp("two")) as server:
        rooms = ServerServices(server)
        one, two = rooms.person("gerda", "admin"), rooms.person("hans", "admin")
        issuing = next(row for row in rooms.asked("GET", "/lists")["items"] if row["purpose"] == "issuing")
        path = f"/certificates/{issuing['thumbprint']}/revoke"
        fields = one.fields(path) | {"reason": "cACompromise"}
        assert one.post(path, fields).status_code == 422
        (waits,) = rooms.asked("GET", "/people/approvals")["items"]
        assert two.operator("POST", f"/people/approvals/{waits['id']}/approve").ok
        assert one.post(path, fields).status_code == 303
        assert rooms.asked("GET", f"/certificates/{issuing['thumbprint']}")["revoked"] is not None


def test_a_list_is_told_and_handed_out(rooms: ServerServices) -> None:
    ida = rooms.person("ida")
    page = ida.get("/certificates/lists").text
    assert "OCSP" in page
    name = rooms.asked("GET", "/lists")["items"][0]["name"]
    got = ida.get(f"/certificates/lists/{name}.crl")
    assert got.content.startswith(b"-----BEGIN X509 CRL-----")
    assert got.headers["content-disposition"] == f'attachment; filename="{name}.crl.pem"'
    assert ida.get("/certificates/lists/nobody.crl").status_code == 400
    assert ida.get(f"/certificates/{'00' * 32}").status_code == 404
    assert ida.get("/certificates/x").status_code == 404
