"""The console's pages about refusals, approvals, the audit trail, alerts, people and settings, by HTTP alone."""

import base64
import json
import re
import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
import requests

from support.console.browsers import Browser
from support.console.world import HOSTILE
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
PASSWORD = "four words by chance"
PAGES = ("/refusals", "/approvals", "/audit", "/alerts", "/people", "/settings", "/me")
RLO = "\u202e"


class House:
    """A server, and the browsers of those who operate it, on its own machine."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.url = str(server.endpoints["health_url"]).rsplit("/", 1)[0]

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> requests.Response:
        """Ask the operator interface by a token, or as whoever holds the data directory."""
        known = token or (self.server.data / "operator.token").read_text().strip()
        by = {"Authorization": f"Bearer {known}"}
        return requests.request(method, f"{self.url}/operator/v1{path}", json=body, headers=by, timeout=30)

    def person(self, name: str, role: str) -> Browser:
        """Put somebody on record, who accepts at a browser and is signed in there."""
        assert self.ask("POST", "/people/users", {"name": name, "role": role}).ok
        browser = Browser(self.url)
        self.accept(browser, str(self.ask("POST", f"/people/users/{name}/invitation").json()["code"]))
        return browser

    def accept(self, browser: Browser, code: str) -> None:
        done = browser.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
        assert (done.status_code, done.headers["location"]) == (303, "/"), done.text

    def token_of(self, name: str) -> str:
        code = self.ask("POST", f"/people/users/{name}/invitation").json()["code"]
        return str(self.ask("POST", "/people/login", {"code": code}).json()["token"])

    def refuse(self, user: str) -> str:
        """Have EST refuse somebody; return the tracking id."""
        url, roots = f"{self.server.endpoints['est']['url']}/simpleenroll", str(self.server.data / "trust.pem")
        by = base64.b64encode(f"{user}:wrong".encode()).decode()
        kind = {"content-type": "application/pkcs10", "authorization": f"Basic {by}"}
        answer = requests.post(url, b"MIIB", headers=kind, verify=roots, timeout=30)
        assert answer.status_code == 401, answer.text
        known = answer.text.split("Reference: ")[1].strip()
        until = time.monotonic() + 10  # its row follows with the next commit
        while not self.ask("GET", f"/refusals?subject={known}").json()["items"]:
            assert time.monotonic() < until
        return known

    def rows(self, action: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/audit/latest?action={action}").json()["items"]
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_new_server(tmp_path_factory.mktemp("house")) as server:
        yield House(server)


@pytest.fixture(scope="module")
def mika(house: House) -> Browser:
    """Give the browser of an admin; the first test sees what a server shows of which nothing is known yet."""
    return house.person("mika", "admin")


@pytest.fixture(scope="module")
def vera(house: House) -> Browser:
    return house.person("vera", "viewer")


def read(answer: requests.Response, status: int = 200) -> str:
    """Return a page as it is read: without the marks that keep foreign text's direction to itself."""
    assert answer.status_code == status, answer.text
    return re.sub(r'<span class="w">(.*?)</span>', r"\1", re.sub(r"</?bdi[^>]*>", "", unescape(answer.text)))


def test_an_empty_page_says_what_would_be_there_and_how_it_comes(house: House, mika: Browser) -> None:
    assert "No refusals in this period." in read(mika.get("/refusals"))
    assert "birthmark approval ls" in read(mika.get("/approvals"))
    alerts = read(mika.get("/alerts"))
    assert "No active alerts." in alerts
    assert "birthmark webhook create plant" in alerts
    assert "No matching rows." in read(mika.get("/audit?by=user:nobody"))
    assert "All settings have their default values." not in read(mika.get("/settings?changed=yes"))
    assert "No matching settings." in read(mika.get("/settings?begin=nothing"))


@pytest.mark.parametrize("path", PAGES)
def test_who_may_look_sees_each_page_and_is_offered_only_what_that_one_may(
    mika: Browser, vera: Browser, path: str
) -> None:
    assert read(mika.get(path))
    seen = read(vera.get(path))
    for deed in ("Invite somebody", "Silence this alert", "Send again"):
        assert deed not in seen


def test_what_somebody_may_not_do_is_refused_by_name_and_not_done(house: House, vera: Browser) -> None:
    csrf = {"csrf": vera.fields("/", "/signout")["csrf"], "once": "1"}
    person, rule = {**csrf, "name": "eve", "role": "admin"}, {**csrf, "rule": "webhook-failing", "reason": "x"}
    for path, fields in (
        ("/people", person),
        ("/people/mika/roles/remove", {**csrf, "role": "admin"}),
        ("/people/mika/signout", csrf),
        ("/people/mika/remove", csrf),
        ("/people/mika/invitation", csrf),
        ("/alerts/silence", {**rule, "lifetime": "1h"}),
        ("/alerts/webhook", {**csrf, "name": "plant", "deed": "pause"}),
    ):
        assert "operator.role_too_low" in read(vera.post(path, fields), 403), path
    assert house.ask("GET", "/people/users/eve").status_code == 404
    assert "people.approval_missing" in read(vera.post("/approvals/approve", {**csrf, "id": "none"}), 404)
    assert read(vera.post("/people", {**person, "csrf": "another"}), 403)


def test_a_refusal_is_found_by_its_id_a_name_and_its_reason_and_tells_what_to_do(house: House, mika: Browser) -> None:
    known = house.refuse("line-7")
    told = read(mika.get(f"/refusals/{known}"))
    for part in ("est.password_wrong", "line-7", f"birthmark why {known}", "simpleenroll", "Actions"):
        assert part in told
    for typed in (known, f"  Reference: {known.upper()}  "):
        assert mika.get(f"/refusals?subject={typed}").headers["location"] == f"/refusals/{known}"
    assert f"/refusals/{known}" in read(mika.get("/refusals?subject=line-7"))
    assert f"/refusals/{known}" in read(mika.get("/refusals?code=est.password_wrong"))
    assert "est.password_wrong" in read(mika.get("/refusals?back=1h"))
    assert "birthmark why" in read(mika.get("/refusals/nothing-of-this-id"), 404)
    assert read(mika.get(f"/refusals/{known}/certificate.pem"), 404)


def test_a_reason_says_how_many_were_refused_by_it_and_for_whom_its_command_is(house: House, mika: Browser) -> None:
    for name in ("many-1", "many-2"):
        house.refuse(name)
    page = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", read(mika.get("/refusals?back=1h"))))
    assert re.search(r"\d+ devices or users. Latest: many-2, many-1", page)
    assert "For many-2: If the device is yours" in page


@pytest.mark.parametrize("name", [*HOSTILE, f"a{RLO}gnp.exe"], ids=range(len(HOSTILE) + 1))
def test_no_name_is_more_than_text(house: House, mika: Browser, name: str) -> None:
    known = house.refuse(name.replace(":", ""))
    for path in (f"/refusals/{known}", "/refusals?code=est.password_wrong", "/refusals", "/audit", "/alerts"):
        text = mika.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", text), path
        assert "x" * 2100 not in text


def test_an_invitation_is_shown_once_and_made_once_however_often_it_is_sent(house: House, mika: Browser) -> None:
    fields = mika.fields("/people") | {"name": "frieda", "role": "enroller", "place": "hub/birthmark"}
    first, second = mika.post("/people", fields), mika.post("/people", fields)
    link = re.search(r"https?://\S+/invitation#(bmi_\w+)", read(first))
    assert link is not None
    assert link[1] in read(second)
    assert len([row for row in house.rows("people.user_create") if row["subject"] == "frieda"]) == 1
    assert len([row for row in house.rows("people.invite") if row["subject"] == "frieda"]) == 1
    house.accept(Browser(house.url), link[1])
    assert "people.user_exists" in read(mika.submit("/people", name="frieda", role="viewer", place="*"), 409)


def test_roles_sessions_and_tokens_are_given_and_taken_and_a_removal_says_what_it_hits(
    house: House, mika: Browser
) -> None:
    gregor = house.person("gregor", "viewer")
    house.token_of("gregor")
    done = mika.submit("/people/gregor", "/people/gregor/roles", role="operator", place="dps/birthmark")
    assert done.status_code == 303
    roles = house.ask("GET", "/people/users/gregor").json()["roles"]
    assert {"role": "operator", "place": "dps/birthmark"} in roles
    page = read(mika.get("/people/gregor/remove"))
    assert "operator dps/birthmark" in page
    assert "birthmark user rm gregor" in page
    assert gregor.is_signed_in()
    assert mika.submit("/people/gregor", "/people/gregor/signout").status_code == 303
    assert not gregor.is_signed_in()
    assert mika.submit("/people/gregor", "/people/gregor/tokens/remove").status_code == 303
    assert house.ask("GET", "/people/users/gregor").json()["tokens"] == 0
    assert mika.submit("/people/gregor/remove").status_code == 303
    assert "people.user_missing" in read(mika.get("/people/gregor"), 404)


def test_what_waits_for_a_second_person_is_approved_by_another_and_once(house: House, mika: Browser) -> None:
    house.ask("POST", "/people/users", {"name": "otto", "role": "admin"})
    assert house.ask("POST", "/hubs/birthmark/devices", {"device_id": "goes-too"}).ok
    asked = house.ask("DELETE", "/hubs/birthmark", token=house.token_of("otto"))
    assert asked.json()["code"] == "people.second_person_wanted"
    page = read(mika.get("/approvals"))
    for part in ("otto requests approval by a second user", "DELETE /hubs/birthmark", "birthmark approval approve"):
        assert part in page
    effect = re.sub(r"\s*\n\s*", "", page)
    assert re.search("<b><span[^>]*>[^<]*</span> birthmark</b>", effect)  # the hub is named
    assert "Devices to be removed</dt><dd>1</dd><dt>Messages to be removed</dt><dd>0</dd>" in effect
    otto = Browser(house.url)
    house.accept(otto, str(house.ask("POST", "/people/users/otto/invitation").json()["code"]))
    own = read(otto.get("/approvals"))
    assert "Another user must approve it" in own
    assert "/approvals/approve" not in own
    sent = mika.fields("/approvals", "/approvals/approve")
    assert "people.same_person" in read(
        otto.post("/approvals/approve", {**sent, "csrf": otto.fields("/me", "/signout")["csrf"]}), 403
    )
    for _ in range(2):
        done = mika.post("/approvals/approve", sent)
        assert (done.headers["location"], "said=Approved" in done.headers["set-cookie"]) == ("/approvals", True), (
            done.text
        )
    assert len(house.rows("people.approval_approve")) == 1


def test_the_audit_trail_is_filtered_in_its_address_and_verified_when_one_presses(house: House, mika: Browser) -> None:
    page = read(mika.get("/audit?by=operator&action=people."))
    assert "birthmark server audit ls --by operator --action people." in page
    assert "dps.create" not in page
    sent = {"csrf": mika.fields("/", "/signout")["csrf"]}
    whole = read(mika.post("/audit/verify", sent))
    assert "rows are unchanged" in whole
    assert '"signature"' in whole
    part = read(mika.post("/audit/verify", sent, **{"hx-request": "true"}))
    assert "<html" not in part
    assert "rows are unchanged" in part
    assert mika.get("/audit/verify").headers["location"] == "/audit"


def test_webhooks_are_paused_and_a_silence_is_made_and_ended_with_its_reason(house: House, mika: Browser) -> None:
    made = {"name": "plant", "url": "https://hooks.example.invalid/secret-path", "types": ["birthmark.device.*"]}
    assert house.ask("POST", "/webhooks", made).ok
    done = mika.submit("/alerts", "/alerts/webhook", deed="pause")
    assert done.status_code == 303
    assert house.ask("GET", "/webhooks").json()["items"][0]["paused"]
    csrf = {"csrf": mika.fields("/", "/signout")["csrf"]}
    rule = {"rule": "webhook-failing", "subject": "plant", "reason": f"moved{RLO}<b>"}
    assert mika.post("/alerts/silence", {**csrf, **rule, "lifetime": "4h", "once": "s"}).status_code == 303
    page = mika.get("/alerts").text
    assert "moved\\u202e&lt;b&gt;" in page
    assert mika.submit("/alerts", "/alerts/unsilence").status_code == 303
    assert house.ask("GET", "/alerts/silences").json()["items"] == []


def test_settings_are_shown_with_their_texts_and_no_secret(house: House, vera: Browser) -> None:
    page = read(vera.get("/settings"))
    about = "Lifetime of device certificates, in seconds."
    for part in ("est.device_lifetime_s", "86400", about, "BIRTHMARK_DATABASE"):
        assert part in page
    assert "birthmark server settings --where 'key=est.*'" in read(vera.get("/settings?begin=est."))
    listed = [
        json.loads(line) for line in house.server.run("server", "settings", "--changed", "--json").stdout.splitlines()
    ]
    assert "data" in {one["key"] for one in listed}
    assert all(one["is_changed"] and one["text"] for one in listed)
