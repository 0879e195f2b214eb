"""People at browsers: how they sign in, what a session may, how it ends, and what strangers get of it."""

import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import warm
from support.console.browsers import Browser
from support.console.chromium import a_tab
from support.console.persons import Person
from support.server.servers import RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
PASSWORD, ANOTHER = "four words by chance", "other words by chance"
COOKIE = "__Host-birthmark"


class House:
    """A server, and the browsers of those who operate it."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.roots = server.data / "trust.pem"
        self.url = ""

    def invited(self, name: str, role: str = "viewer") -> str:
        """Put somebody on record, and return the code of the invitation."""
        self.asked("POST", "/people/users", {"name": name, "role": role})
        told = self.asked("POST", f"/people/users/{name}/invitation")
        self.url = told["url"]
        return str(told["code"])

    def asked(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as whoever holds the data directory; quicker than a command."""
        url = self.server.endpoints["health_url"].rsplit("/", 1)[0]
        token = (self.server.data / "operator.token").read_text().strip()
        by = {"Authorization": f"Bearer {token}"}
        answer = requests.request(method, f"{url}/operator/v1{path}", json=body, headers=by, timeout=30)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def rows(self, path: str) -> list[dict[str, Any]]:
        return list(self.asked("GET", path)["items"])

    def browser(self) -> Browser:
        return Browser(self.url, self.roots)

    def on_loopback(self) -> Browser:
        return Browser(self.server.endpoints["health_url"].rsplit("/", 1)[0])

    def person(self, name: str, role: str = "viewer") -> Browser:
        """Put somebody on record, who accepts at a browser and is signed in there."""
        code = self.invited(name, role)
        browser = self.browser()
        done = browser.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
        assert (done.status_code, done.headers["location"]) == (303, "/"), done.text
        return browser

    def audited(self, action: str) -> list[dict[str, Any]]:
        return [row for row in self.server.rows("server", "audit", "ls") if row["action"] == action]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        yield House(stack.enter_context(a_new_server(tmp_path)), tmp_path)


def ended_within(seconds: float, browser: Browser) -> bool:
    """Say whether the session counts for nothing from then on, at whichever worker."""
    time.sleep(seconds)
    asked = (browser.operator("GET", "/people/me", headers={"Connection": "close"}) for _ in range(12))
    return {answer.status_code for answer in asked} == {401}


def test_who_accepts_an_invitation_has_a_password_and_a_session_with_the_rights_of_the_role(house: House) -> None:
    anna = house.person("anna", "operator")
    assert "You are signed in as anna" in anna.get("/me").text
    assert anna.operator("GET", "/people/me").json()["roles"] == [{"role": "operator", "place": "*"}]
    assert anna.operator("POST", "/certificates/check", json={"pem": "x"}).status_code == 400
    assert anna.operator("POST", "/people/users", json={"name": "eve"}).status_code == 403
    (signed_in,) = house.audited("people.sign_in")
    assert (signed_in["actor"], signed_in["detail"]["how"]) == ("user:anna", "invitation")
    assert signed_in["detail"]["from"].startswith("127.")
    again = house.browser()
    done = again.submit("/invitation", code=house.invited("bert"), password=PASSWORD, again=ANOTHER)
    assert done.status_code == 400


def test_the_cookie_is_the_hosts_alone_and_no_scripts_and_new_at_each_sign_in(house: House) -> None:
    house.person("anna")
    browser = house.browser()
    browser.http.cookies.set(COOKIE, "bms_00_planted", domain=browser.url.partition("//")[2].partition(":")[0])
    done = browser.sign_in("anna", PASSWORD)  # fixation: what was planted before is nobody's
    said = done.headers["set-cookie"]
    assert f"{COOKIE}=bms_" in said
    for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert word in said, said
    assert "Domain" not in said
    first = browser.http.cookies.get_dict()[COOKIE]
    browser.submit("/", "/signout")
    assert not browser.is_signed_in()
    browser.sign_in("anna", PASSWORD)
    second = browser.http.cookies.get_dict()[COOKIE]
    assert first != second
    browser.http.cookies.clear()
    browser.http.cookies.set(COOKIE, first)
    assert not browser.is_signed_in()


def test_pages_say_to_the_browser_what_they_may_load_and_are_kept_by_nobody(house: House) -> None:
    house.person("anna")
    told = house.browser().get("/signin").headers
    assert told["cache-control"] == "no-store"
    assert told["referrer-policy"] == "no-referrer"
    assert told["x-content-type-options"] == "nosniff"
    policy = told["content-security-policy"]
    for part in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe" not in policy


# Login CSRF: somebody else's page signs the victim in as the attacker.
def test_a_sign_in_that_no_page_of_ours_asked_for_is_refused(house: House) -> None:
    house.person("anna")
    browser = house.browser()
    fields = browser.fields("/signin") | {"name": "anna", "password": PASSWORD}
    assert browser.post("/signin", fields, Origin="https://evil.example").status_code == 403
    assert browser.post("/signin", fields, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.post("/signin", fields, **{"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert browser.post("/signin", fields, **{"Sec-Fetch-Site": "", "Origin": ""}).status_code == 403
    assert browser.post("/signin", fields | {"csrf": "x"}).status_code == 403
    other = house.browser()  # whose form it is not
    other.get("/signin")
    assert other.post("/signin", fields).status_code == 403
    assert COOKIE not in browser.http.cookies.get_dict()


# CSRF: the victim's own session, and a page of somebody else's.
def test_a_request_by_cookie_that_changes_something_takes_the_sessions_token_and_our_own_origin(house: House) -> None:
    anna = house.person("anna", "admin")
    body: dict[str, Any] = {"json": {"name": "eve", "role": "admin"}}
    assert anna.operator("POST", "/people/users", csrf=False, **body).status_code == 403
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": "wrong"},
    ):
        refused = anna.operator("POST", "/people/users", headers=headers, **body)
        assert (refused.status_code, refused.json()["code"]) == (403, "console.request_forged"), headers
    assert anna.operator("GET", "/people/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert anna.operator("POST", "/people/users", **body).status_code == 201
    bert = house.person("bert", "admin")
    stolen = {"X-CSRF-Token": bert.fields("/", "/signout")["csrf"]}
    assert anna.operator("POST", "/people/users", headers=stolen, json={"name": "eve-2"}).status_code == 403
    assert anna.post("/signout", {"csrf": "x"}).status_code == 403
    assert anna.is_signed_in()


# Open redirect.
def test_who_signed_in_goes_on_at_this_server_alone(house: House) -> None:
    house.person("anna")
    for path in ("https://evil.example/", "//evil.example/", "/\\evil.example", "/%0d\n", "x", "/\t/evil.example"):
        browser = house.browser()
        fields = browser.fields("/signin") | {"name": "anna", "password": PASSWORD, "next": path}
        assert browser.post("/signin", fields).headers["location"] == "/", path
    assert house.browser().sign_in("anna", PASSWORD, "/signin?next=/device").headers["location"] == "/device"


# DNS rebinding: a page of another's under its own name, which leads to this server.
def test_a_name_that_is_none_of_ours_gets_no_page_and_its_cookie_counts_for_nothing(house: House) -> None:
    anna = house.person("anna")
    cookie = f"{COOKIE}={anna.http.cookies.get_dict()[COOKIE]}"
    for path in ("/signin", "/", "/operator/v1/people/me"):
        assert anna.get(path, Host="evil.example", Cookie=cookie).status_code == 400
    assert anna.operator("GET", "/people/me").status_code == 200


# A token in a Referer or a log.
def test_no_code_and_no_session_is_in_the_log_or_in_an_address(house: House) -> None:
    code = house.invited("anna")
    browser = house.browser()
    assert code not in browser.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD).headers["location"]
    house.browser().sign_in("anna", "wrong words by chance")
    cookie = browser.http.cookies.get_dict()[COOKIE]
    assert cookie
    rows = [*house.server.rows("server", "audit", "ls"), *house.rows("/refusals")]
    told = house.server.log() + json.dumps(rows)
    for secret in (code, cookie, cookie.rpartition("_")[2], PASSWORD, "wrong words"):
        assert secret not in told


# A removed user with a live session.
def test_a_session_ends_within_a_second_at_every_worker_when_its_user_is_removed(house: House) -> None:
    anna = house.person("anna", "operator")
    assert anna.operator("GET", "/people/me").status_code == 200
    house.asked("DELETE", "/people/users/anna")
    assert ended_within(0.0, anna)
    house.invited("anna", "admin")
    assert ended_within(0.0, anna)  # another of the same name is somebody else


# A stream that somebody reads by a session.
def test_a_stream_ends_within_a_second_when_its_user_is_removed(house: House) -> None:
    anna = house.person("anna")
    stream = anna.operator("GET", "/events?follow=true", stream=True)
    assert stream.status_code == 200
    house.asked("DELETE", "/people/users/anna")
    began = time.monotonic()
    *_, last = stream.iter_lines()
    assert time.monotonic() - began < 1.5  # a second, and what a crowded machine takes
    assert json.loads(last)["problem"]["status"] in {401, 403}


def test_a_real_browser_takes_the_pages_as_they_are_meant(house: House) -> None:
    code = house.invited("anna")
    with a_tab(house.directory) as tab:
        tab.go(f"{house.url}/invitation#{code}")
        tab.until(f"document.getElementById('code').value === '{code}' && location.hash === ''")
        tab.fill(password=PASSWORD, again=PASSWORD)
        tab.click("Set the password")
        tab.until("document.title.startsWith('Today')")
        assert "bms_" not in str(tab.evaluate("document.cookie"))
        tab.click("Sign out")
        tab.until("location.pathname === '/signin'")
        assert tab.evaluate("getComputedStyle(document.querySelector('main')).borderRadius") == "10px"
        tab.fill(name="anna", password=PASSWORD)
        tab.click("Sign in")
        tab.until("location.pathname === '/'")
        tab.go(f"{house.url}/me")
        tab.until("document.title.startsWith('You are signed in as anna')")
        tab.click("Authorize a command on another machine")
        tab.until("location.pathname === '/device'")
        tab.fill(code="BCDF-GHJK")
        tab.click("Show the request")
        tab.until("document.body.textContent.includes('No sign-in request has this code')")
        tab.go(f"{house.url}/operator/v1/people/me")
        tab.until("document.body.textContent.includes('anna')")


def test_a_session_may_what_its_user_may_now_and_ends_when_it_is_ended(house: House) -> None:
    anna, other = house.person("anna", "operator"), house.browser()
    house.asked("POST", "/people/users/anna/roles/remove", {"role": "operator"})
    assert anna.operator("GET", "/hubs").json()["items"] == []
    assert anna.operator("GET", "/certificates").status_code == 403
    other.sign_in("anna", PASSWORD)
    rows = house.rows("/people/sessions")
    assert [(row["user"], row["how"]) for row in rows] == [("anna", "invitation"), ("anna", "password")]
    house.server.run("session", "rm", rows[0]["id"], "--yes")
    assert ended_within(0.0, anna)
    assert other.is_signed_in()
    other.post("/signout/everywhere", other.fields("/", "/signout"))
    assert ended_within(0.0, other)
    assert [row["detail"]["id"] for row in house.audited("people.session_end")][:2] == [rows[0]["id"], "*"]


def test_another_password_ends_all_sessions_and_takes_the_one_before(house: House) -> None:
    anna, other = house.person("anna"), house.browser()
    other.sign_in("anna", PASSWORD)
    assert anna.submit("/password", current="x", password=ANOTHER, again=ANOTHER).status_code == 401
    assert anna.submit("/password", current=PASSWORD, password="anna", again="anna").status_code == 400
    assert anna.submit("/password", current=PASSWORD, password=ANOTHER, again=ANOTHER).status_code == 303
    assert ended_within(0.0, anna)
    assert not other.is_signed_in()
    assert other.sign_in("anna", PASSWORD).status_code == 401
    assert other.sign_in("anna", ANOTHER).status_code == 303


def test_whoever_guesses_waits_ever_longer_and_fills_no_audit_and_locks_nobody_out(house: House) -> None:
    anna = house.person("anna")
    unauthenticated = house.browser()
    answers = [unauthenticated.sign_in("anna", f"wrong words {n}").status_code for n in range(12)]
    assert answers[0] == 401
    assert answers[-1] == 429
    unknown = house.browser()
    assert unknown.sign_in("nobody", "wrong words").text.count("User name or password is wrong") == 1
    assert len(house.audited("people.sign_in_refused")) <= 5
    assert anna.is_signed_in()


def test_on_loopback_the_cookie_is_named_by_the_port(house: House) -> None:
    house.person("anna", "admin")
    here = house.on_loopback()
    done = here.sign_in("anna", PASSWORD)
    port = house.server.endpoints["health_url"].rsplit(":", 1)[1].partition("/")[0]
    assert f"birthmark-{port}=bms_" in done.headers["set-cookie"]
    assert "Secure" not in done.headers["set-cookie"]
    assert here.operator("GET", "/people/me").json()["user"] == "anna"
    cookie = "; ".join(f"{name}={value}" for name, value in here.http.cookies.get_dict().items())
    assert here.get("/operator/v1/people/me", Host="evil.example", Cookie=cookie).status_code == 400
    assert here.get("/signin", Host="evil.example").status_code == 400


def test_a_password_is_set_by_a_command_that_reads_it_from_a_file(house: House) -> None:
    anna = house.person("anna")
    file = house.directory / "password"
    file.touch(0o600)
    file.write_text(f"{ANOTHER}\n")
    house.server.run("user", "password", "anna", "--password-file", str(file))
    assert ended_within(0.0, anna)
    assert house.browser().sign_in("anna", ANOTHER).status_code == 303
    laptop = Person(house.directory / "laptop")
    house.server.run("user", "invite", "anna", "--out", str(laptop.home / "again"))
    laptop.run("login", "again")
    (laptop.home / "new").touch(0o600)
    (laptop.home / "new").write_text("third words by chance")
    assert laptop.refused("user", "password", "--password-file", "new") == "people.current_password"
    laptop.run("user", "password", "--password-file", "new", "--current-file", str(file))
    assert house.browser().sign_in("anna", "third words by chance").status_code == 303
    assert house.server.rows("user", "show", "anna")[0]["sessions"] == 1
    house.server.run("user", "password", "anna", "--remove", "--yes")
    assert house.browser().sign_in("anna", "third words by chance").status_code == 401
    assert house.server.rows("user", "show", "anna")[0]["sessions"] == 0


class Asking:
    """`birthmark login URL` at a machine of its own, which waits for somebody at a browser."""

    def __init__(self, person: Person, url: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [warm.programs() / "birthmark", "login", url, *more, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(HOME=str(person.home)),
        )
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline() or "{}")

    def ended(self) -> str:
        """Return what it said at its end."""
        out, problem = self.process.communicate(timeout=60)
        return out if self.process.returncode == 0 else problem


def thumbprint_of(house: House) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(house.roots.read_text())).hexdigest()


def test_a_command_of_another_machine_is_let_in_by_who_types_its_code_at_a_browser(house: House) -> None:
    anna = house.person("anna", "operator")
    laptop = Person(house.directory / "laptop")
    asking = Asking(laptop, house.url, "--thumbprint", thumbprint_of(house))
    assert asking.told["verification_uri"] == f"{house.url}/device"
    code = asking.told["user_code"]
    assert anna.submit("/device", code="BCDF-GHJK").status_code == 404
    seen = anna.submit("/device", code=code.lower().replace("-", " "))
    assert socket.gethostname()[:64] in seen.text
    decided = anna.post("/device/decide", anna.fields("/", "/signout") | {"code": code, "agree": "yes"})
    assert decided.status_code == 200, decided.text
    assert json.loads(asking.ended())["user"] == "anna"
    assert laptop.rows("whoami")[0]["roles"] == [{"role": "operator", "place": "*"}]
    assert anna.submit("/device", code=code).status_code == 404
    (row,) = house.audited("people.command_let_in")
    assert (row["actor"], row["detail"]["label"]) == ("user:anna", socket.gethostname()[:64])
    house.asked("DELETE", "/people/users/anna")
    assert laptop.refused("hub", "ls") == "people.token_refused"


def test_a_command_is_not_let_in_by_nobody_and_not_by_who_did_not_agree(house: House) -> None:
    anna, laptop = house.person("anna"), Person(house.directory / "laptop")
    asking = Asking(laptop, house.url, "--roots", str(house.roots))
    code = asking.told["user_code"]
    unauthenticated = house.browser()
    assert unauthenticated.get("/device").headers["location"] == "/signin?next=/device"
    refused = unauthenticated.post("/device/decide", unauthenticated.fields("/signin") | {"code": code, "agree": "yes"})
    assert refused.headers["location"].startswith("/signin")
    assert anna.post("/device/decide", {"csrf": "x", "code": code, "agree": "yes"}).status_code == 403
    anna.post("/device/decide", anna.fields("/", "/signout") | {"code": code, "agree": "no"})
    assert json.loads(asking.ended().splitlines()[-1])["error"] == "people.code_rejected"


def test_a_server_that_is_not_known_is_not_signed_in_at(house: House) -> None:
    house.invited("anna")
    laptop = Person(house.directory / "laptop")
    assert laptop.refused("login", house.url) == "login.server_unknown"
    assert laptop.refused("login", house.url, "--thumbprint", "00" * 32) == "login.server_unknown"
    house.server.run("ca", "init", "--name", "Another", "--dir", str(house.directory / "ca"))
    other = str(house.directory / "ca" / "root.pem")
    assert laptop.refused("login", house.url, "--roots", other) == "login.server_unknown"


def test_a_token_in_a_file_signs_in_too(house: House) -> None:
    house.invited("anna")
    made = house.asked("POST", "/people/tokens", {"user": "anna", "label": "ci"})
    laptop = Person(house.directory / "laptop")
    (laptop.home / "token").write_text(f"{made['token']}\n")
    laptop.run("login", house.url, "--roots", str(house.roots), "--token-file", "token")
    assert laptop.rows("whoami")[0]["user"] == "anna"
    (laptop.home / "token").write_text(f"bmt_{'A' * 16}_{'A' * 43}\n")
    refused = laptop.attempt("login", house.url, "--roots", str(house.roots), "--token-file", "token", "--json")
    told = json.loads(refused.stderr.splitlines()[-1])
    assert (told["error"], "birthmark token create" in told["fix"]) == ("people.token_refused", True)
    (laptop.home / "token").write_text("secret\n")
    assert (
        laptop.refused("login", house.url, "--roots", str(house.roots), "--token-file", "token") == "login.token_file"
    )
