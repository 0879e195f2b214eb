"""*Enroll*: what is dropped is looked at, enrolled once, and told; what strangers made of it harms nobody."""

import csv
import io
import json
import re
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.fleet.sample_shipment import make_bundle, make_rehearsal
from support.console.browsers import SAME, Browser
from support.console.people import ServerServices, said
from support.pki.pki_builders import a_device
from support.server.servers import a_server

pytestmark = pytest.mark.system
MIB = 1024 * 1024
HOSTILE = "<img src=x onerror=alert(1)>\u202e.pem"


def a_certificate(name: str) -> str:
    return a_device(None, name, now=SystemClock().now()).certificate.pem()


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("enroll")) as server:
        yield ServerServices(server)


@pytest.fixture(scope="module")
def anna(rooms: ServerServices) -> Browser:
    return rooms.person("anna", "operator")


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A manifest of five chips, its signer and its roots."""
    make_rehearsal(tmp_path / "r", 5, SystemClock(), SystemEntropy())
    return tmp_path / "r"


def drop(browser: Browser, *files: tuple[str, str, bytes], **fields: str) -> requests.Response:
    """Send the form as a browser without script does: fields first, then files."""
    page = browser.get("/enroll").text
    found = dict(re.findall(r'<input type="hidden" name="(csrf|once|dps)" value="([^"]*)"', page))
    sent: list[tuple[str, Any]] = [(name, (None, value)) for name, value in (found | fields).items()]
    sent += [(kind, (name, data)) for kind, name, data in files]
    return browser.http.post(f"{browser.url}/enroll/drop", files=sent, headers=SAME, timeout=60, allow_redirects=False)


def looked(browser: Browser, answer: requests.Response, *phases: str) -> str:
    """Wait until nobody is at a list, and return its page."""
    assert answer.status_code == 303, said(answer.text)
    return settled(browser, answer.headers["location"], *phases)


def settled(browser: Browser, at: str, *phases: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        page = browser.get(at).text
        if "data-poll" not in page:
            assert not phases or any(one in page for one in phases), said(page)
            return page
        time.sleep(0.1)
    raise AssertionError(said(page))


def pressed(browser: Browser, at: str, deed: str) -> requests.Response:
    return browser.post(f"{at}/{deed}", browser.fields(at, f"{at}/{deed}"))


def reported(browser: Browser, at: str) -> list[dict[str, Any]]:
    return list(browser.get(f"{at}/report.json").json())


def on_record(rooms: ServerServices, name: str) -> bool:
    return bool(rooms.asked("GET", f"/devices?begin={name}")["items"])


def of_manifest(shipped: Path) -> tuple[tuple[str, str, bytes], ...]:
    names = (("files", "manifest.json"), ("signers", "signer.pem"), ("roots", "root.pem"))
    return tuple((kind, name, (shipped / name).read_bytes()) for kind, name in names)


def test_a_manifest_is_looked_at_then_put_on_record_once_and_told(
    rooms: ServerServices, anna: Browser, shipped: Path
) -> None:
    answer = drop(anna, *of_manifest(shipped))
    page, at = looked(anna, answer, "No changes yet"), answer.headers["location"]
    assert "5 would be enrolled" in said(page)
    names = [row["device"] for row in reported(anna, at)]
    assert len(names) == 5
    assert not any(on_record(rooms, name) for name in names)  # a preview changes nothing
    fields = anna.fields(at, f"{at}/apply")
    assert {anna.post(f"{at}/apply", fields).status_code for _ in range(2)} == {303}  # a double press
    assert "5 enrolled" in said(settled(anna, at, "done"))
    assert all(on_record(rooms, name) for name in names)
    assert [row["outcome"] for row in reported(anna, at)] == ["created"] * 5
    rows = [row for row in rooms.server.rows("server", "audit", "ls") if row["action"] == "dps.enrollment_put"]
    assert {row["actor"] for row in rows if row["subject"] in {name.lower() for name in names}} == {"user:anna"}
    again = drop(anna, *of_manifest(shipped))
    assert "5 already enrolled" in said(looked(anna, again, "All devices are already enrolled"))


def test_without_the_signer_nothing_is_believed_and_the_page_says_what_to_do(anna: Browser, shipped: Path) -> None:
    page = looked(anna, drop(anna, of_manifest(shipped)[0]))
    assert "5 refused" in said(page)
    assert "upload the list again with its signer's certificate" in said(page)
    assert "/apply" not in page


def test_certificates_are_taken_on_the_word_of_who_drops_them_and_names_are_inert(
    rooms: ServerServices, anna: Browser
) -> None:
    good, marked = a_certificate("d-dropped"), a_certificate("=1+<b>x</b>")
    files = (("files", HOSTILE, good.encode()), ("files", "b.pem", marked.encode()))
    answer = drop(anna, *files, ("files", "key.pem", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"))
    page, at = looked(anna, answer), answer.headers["location"]
    assert "<b>x</b>" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    rows = {row["row"]: row for row in reported(anna, at)}
    assert (rows[1]["outcome"], rows[2]["outcome"], rows[3]["outcome"]) == ("would create", "refused", "refused")
    assert rows[3]["code"] == "pki.certificate_key_swapped"
    table = list(csv.reader(io.StringIO(anna.get(f"{at}/report.csv").text)))
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in table for cell in row)
    pressed(anna, at, "apply")
    settled(anna, at, "done")
    assert on_record(rooms, "d-dropped")
    other = a_certificate("d-dropped")
    page = looked(anna, drop(anna, ("files", "b.pem", other.encode())))
    assert "enroll-list LIST --update" in said(page)
    assert "already exists" in said(page)  # another certificate under that name is never written over


def test_a_table_and_a_zip_are_believed_by_roots_alone(anna: Browser, shipped: Path) -> None:
    leaf = a_certificate("d-table").replace("\n", "\\n")
    table = ("files", "chips.csv", f"device,certificate\nd-table,{leaf}\n".encode())
    refused = drop(anna, table)
    page = looked(anna, refused)
    assert "it is not signed" in said(page)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.pem", b"\0" * 200 * MIB)  # 200 KiB packed
        archive.writestr("one.pem", a_certificate("d-zip"))
    roots = ("roots", "root.pem", (shipped / "root.pem").read_bytes())
    answer = drop(anna, ("files", "chips.zip", packed.getvalue()), roots)
    assert "2 refused" in said(looked(anna, answer))
    assert "larger than 65536 bytes" in reported(anna, answer.headers["location"])[0]["message"]


def test_a_bundle_of_a_station_is_believed_by_its_certificate(anna: Browser, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "b", 3, SystemClock(), SystemEntropy())
    files = [("files", "run.jsonl", Path(made["bundle"]).read_bytes())]
    files += [("signers", "station.pem", Path(made["station"]).read_bytes())]
    files += [("roots", "root.pem", Path(made["root"]).read_bytes())]
    assert "3 would be enrolled" in said(looked(anna, drop(anna, *files)))


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'[{"payload": "' + b"A" * 2 * MIB + b'"}]',
        b"[{}]",
        b"",
        b"\0" * MIB,
        b"PK\x03\x04" + b"\xff" * 1000,
    ],
    ids=["deep", "deeper", "long", "nothing", "empty", "zeros", "broken zip"],
)
def test_what_is_no_list_is_told_and_the_server_goes_on(anna: Browser, shipped: Path, content: bytes) -> None:
    roots = ("roots", "root.pem", (shipped / "root.pem").read_bytes())
    page = looked(anna, drop(anna, ("files", "list.json", content), roots))
    assert "would be enrolled" not in said(page)
    assert anna.get("/enroll").status_code == 200


def test_two_gigabytes_are_refused_before_they_are_sent_and_at_the_bound(rooms: ServerServices, anna: Browser) -> None:
    url, cookie = urlsplit(rooms.url), "; ".join(f"{k}={v}" for k, v in anna.http.cookies.get_dict().items())
    head = f"POST /enroll/drop HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: {cookie}\r\nOrigin: null\r\n"
    head += "Sec-Fetch-Site: same-origin\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {2 * 1024 * MIB}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(1000)
    csrf = anna.fields("/", "/signout")["csrf"]
    begin = f'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{csrf}\r\n'
    begin += '--x\r\nContent-Disposition: form-data; name="dps"\r\n\r\nbirthmark\r\n'
    begin += '--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            for piece in (begin.encode(), *(b"\0" * MIB for _ in range(200))):
                connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                sent += len(piece)
        except OSError:
            pass
        assert sent < 100 * MIB
    deadline = time.monotonic() + 10
    while list((rooms.server.data / "enrolling").glob("*/files/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list((rooms.server.data / "enrolling").glob("*/files/*"))  # nothing of it stays


def test_a_list_of_many_megabytes_is_taken_whole(anna: Browser, shipped: Path) -> None:
    signed = (shipped / "manifest.json").read_bytes()
    padded = signed.rstrip()[:-1] + b" " * 40 * MIB + b"]"
    answer = drop(anna, ("files", "manifest.json", padded), *of_manifest(shipped)[1:])
    assert answer.status_code == 303, said(answer.text)
    looked(anna, answer)


def test_a_form_that_no_page_of_ours_sent_leaves_nothing(rooms: ServerServices, anna: Browser) -> None:
    before = len(list((rooms.server.data / "enrolling").glob("*")))
    forged = drop(anna, ("files", "a.pem", b"x"), csrf="0" * 86)
    assert (forged.status_code, "console.request_forged" in forged.text) == (403, True)
    assert drop(anna, ("files", "a.pem", b"x"), dps="nobodys").status_code == 400
    assert drop(anna).status_code == 400  # no file was chosen
    assert len(list((rooms.server.data / "enrolling").glob("*"))) <= before
    for one in (rooms.server.data / "enrolling").rglob("*"):
        assert one.stat().st_mode & 0o077 == 0


def test_who_may_look_sees_what_would_happen_and_puts_nothing_on_record(rooms: ServerServices, shipped: Path) -> None:
    viewer, other = rooms.person("vera"), rooms.person("otto", "operator")
    answer = drop(viewer, *of_manifest(shipped))
    looked(viewer, answer)
    at = answer.headers["location"]
    done = pressed(viewer, at, "apply")
    assert done.status_code == 403
    assert not any(on_record(rooms, row["device"]) for row in reported(viewer, at))
    assert other.get(at).status_code == 404  # it is hers alone


def test_who_waits_for_a_certificate_gets_it_where_somebody_approves(
    tmp_path_factory: pytest.TempPathFactory, anna: Browser
) -> None:
    assert "No pending requests" in anna.get("/enroll").text
    with a_server(tmp_path_factory.mktemp("waits"), "[est]\napproval = true\n") as server:
        rooms = ServerServices(server)
        emil, vera = rooms.person("emil", "operator"), rooms.person("vera")
        for name in ("d-good", "d-bad"):
            assert rooms.asked_by_est(name).status_code == 202
        waits = {row["device"]: row for row in rooms.asked("GET", "/est/requests")["items"]}
        page = emil.get("/enroll").text
        assert all(row["key"][:16] in page for row in waits.values())
        sent = {"csrf": emil.fields("/", "/signout")["csrf"], "once": "1", "id": waits["d-good"]["id"]}
        looks = {**sent, "csrf": vera.fields("/", "/signout")["csrf"], "deed": "approve"}
        assert vera.post("/enroll/requests", looks).status_code == 403
        done = [emil.post("/enroll/requests", sent | {"deed": "approve"}) for _ in range(2)]
        assert [one.status_code for one in done] == [303, 303]
        refused = emil.post("/enroll/requests", sent | {"once": "2", "id": waits["d-bad"]["id"], "deed": "reject"})
        assert "d-bad does not receive a certificate" in said(emil.get(refused.headers["location"]).text)
        stands = {row["device"]: row["stands"] for row in rooms.asked("GET", "/est/requests")["items"]}
        assert stands == {"d-good": "approved", "d-bad": "rejected"}
        gone = emil.post("/enroll/requests", sent | {"once": "3", "id": "nobodys", "deed": "approve"})
        assert gone.status_code == 404


def test_a_killed_server_says_how_far_it_came_and_running_again_is_safe(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("killed")
    make_rehearsal(directory / "r", 400, SystemClock(), SystemEntropy())
    with a_server(directory, is_warm=False) as server:
        rooms = ServerServices(server)
        emil = rooms.person("emil", "operator")
        answer = drop(emil, *of_manifest(directory / "r"))
        looked(emil, answer, "No changes yet")
        at = answer.headers["location"]
        answer = pressed(emil, at, "apply")
        assert answer.status_code == 303, said(answer.text)
        journal = server.data / "enrolling" / at.rpartition("/")[2] / "run.jsonl"
        deadline = time.monotonic() + 30
        while _count(journal) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.kill()
        came = _count(journal)
        assert 30 <= came < 400
        server.start()
        page = said(emil.get(at).text)
        assert f"The server stopped after {came} of 400 rows" in page
        pressed(emil, at, "apply")
        assert "done" in said(settled(emil, at))
        outcomes = [row["outcome"] for row in reported(emil, at)]
        assert set(outcomes) == {"created", "unchanged"}
        assert came <= outcomes.count("unchanged") <= came + 1  # one may be on record and not in the journal


def test_a_run_is_stopped_and_goes_on_when_it_is_run_again(
    rooms: ServerServices, anna: Browser, tmp_path: Path
) -> None:
    make_rehearsal(tmp_path / "r", 300, SystemClock(), SystemEntropy())
    answer = drop(anna, *of_manifest(tmp_path / "r"))
    looked(anna, answer)
    at = answer.headers["location"]
    pressed(anna, at, "apply")
    pressed(anna, at, "stop")
    assert "Stopped after" in said(settled(anna, at))
    pressed(anna, at, "apply")
    assert "Outcome of 300 rows" in said(settled(anna, at))
    pressed(anna, at, "remove")
    assert anna.get(at).status_code == 404


def test_a_run_goes_on_when_the_connection_of_who_began_it_has_ended(anna: Browser, tmp_path: Path) -> None:
    """On loopback a session counts for the user of the machine who asks; of who has gone the kernel says nothing."""
    make_rehearsal(tmp_path / "r", 60, SystemClock(), SystemEntropy())
    answer = drop(anna, *of_manifest(tmp_path / "r"))
    looked(anna, answer)
    at = answer.headers["location"]
    anna.http.headers["Connection"] = "close"
    try:
        assert pressed(anna, at, "apply").status_code == 303
    finally:
        del anna.http.headers["Connection"]
    assert "60 enrolled" in said(settled(anna, at))


def test_a_form_of_another_site_takes_nothing_away(anna: Browser) -> None:
    answer = drop(anna, ("files", "d.pem", a_certificate("d-stays").encode()))
    looked(anna, answer)
    at = answer.headers["location"]
    for said_of_it in ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, SAME):
        files: Any = [("csrf", (None, "x")), ("dps", (None, "birthmark")), ("files", ("a.pem", b"x"))]
        url = f"{anna.url}/enroll/drop"
        assert anna.http.post(url, files=files, headers=said_of_it, timeout=60).status_code == 403
        assert anna.get(at).status_code == 200


def _count(journal: Path) -> int:
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    return sum(1 for line in lines if b'"outcome"' in line and _is_json(line))


def _is_json(line: bytes) -> bool:
    try:
        found: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return False
    return bool(found)
