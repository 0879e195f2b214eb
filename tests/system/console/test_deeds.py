"""*A device*: what is pressed at its page is done to it, and nothing that is typed there makes the server stumble."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from support.console.browsers import Browser
from support.console.people import ServerServices, said
from support.server.servers import a_server

pytestmark = pytest.mark.system
ODD = "pump-1$2%41?x"
DEEP = [depth for half in range(4, 12) for depth in (2**half, 3 * 2 ** (half - 1))]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("deeds")) as server:
        rooms = ServerServices(server)
        for name in ("pump-1", ODD):
            rooms.asked("POST", "/hubs/birthmark/devices", {"device_id": name})
        yield rooms


@pytest.fixture(scope="module")
def anna(rooms: ServerServices) -> Browser:
    return rooms.person("anna", "operator")


def test_a_method_is_called(anna: Browser) -> None:
    called = anna.submit("/devices/pump-1", "/deed/method", method="reboot", payload='{"at": 1}')
    assert (called.status_code, "is not connected" in said(called.text)) == (404, True)


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 5000, "nonsense", "1e999"])
@pytest.mark.parametrize(("action", "name"), [("/deed/method", "payload"), ("/deed/desired", "desired")])
def test_what_is_no_json_is_told(anna: Browser, action: str, name: str, text: str) -> None:
    answer = anna.submit("/devices/pump-1", action, **{"method": "reboot", name: text})
    assert (answer.status_code, "the text is not JSON" in said(answer.text)) == (400, True)


@pytest.mark.parametrize("depth", DEEP)
def test_json_is_as_deep_as_somebody_likes(anna: Browser, depth: int) -> None:
    text = '{"a":' * depth + "1" + "}" * depth
    for action, name in (("/deed/method", "payload"), ("/deed/desired", "desired")):
        assert anna.submit("/devices/pump-1", action, **{"method": "reboot", name: text}).status_code in {303, 400, 404}
    assert anna.get("/devices/pump-1").status_code == 200


@pytest.mark.parametrize("version", ["x", "9" * 5000, "-1", "1.5"])
def test_a_version_that_is_none_is_told(anna: Browser, version: str) -> None:
    fields = anna.fields("/devices/pump-1", "/deed/desired") | {"shadow": "pump-1", "version": version}
    assert anna.post("/deed/desired", fields).status_code in {400, 404}


def test_what_was_done_is_told_at_the_page_of_its_device(anna: Browser) -> None:
    at = f"/devices/{quote(ODD, safe='')}"
    page = anna.get(at).text
    assert f'hx-get="{at}"' in page
    answer = anna.submit(at, "/deed/message", text="hello")
    assert answer.headers["location"] == at
    assert "The message is queued" in said(anna.get(at).text)


def test_who_signs_in_comes_back_to_the_device_that_was_asked_for(rooms: ServerServices) -> None:
    at = f"/devices/{quote(ODD, safe='')}"
    browser = rooms.person("berta")
    browser.submit("/me", "/signout")
    led = browser.get(at).headers["location"]
    browser.get(led)
    assert browser.sign_in("berta", "four words by chance", led).headers["location"] == at


def test_whoever_presses_twice_at_once_is_told_twice_that_it_was_done(rooms: ServerServices, anna: Browser) -> None:
    fields = anna.fields("/devices/pump-1", "/deed/message") | {"text": "once"}
    before = len(rooms.asked("GET", "/hubs/birthmark/mail/pump-1")["items"])
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: anna.post("/deed/message", fields), range(8)))
    assert [(one.status_code, one.headers["location"]) for one in done] == [(303, "/devices/pump-1")] * 8
    assert len(rooms.asked("GET", "/hubs/birthmark/mail/pump-1")["items"]) == before + 1
