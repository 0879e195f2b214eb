"""Requests of people that cost much, sent one after another by as many connections as a kind has.

A program of its own, as `floods` is: it says how many requests it has sent when it is asked by a line.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from support.aws.clients import until
from support.azure.sas_tokens import make_sas
from support.console.browsers import SAME, Browser
from support.floods.floods import Flood
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer

_CONDITION = " AND ".join(["NOT contains(tags.text, 'yyyyyyyyyyyy')"] * 90)
_QUERY = quote(f"SELECT deviceId FROM devices WHERE {_CONDITION}")
_COUNTED = quote("SELECT deviceId FROM devices WHERE " + " OR ".join([f"tags.k{n} >= -{n}" for n in range(99)]))
_SEARCH = quote(f"NOT ({' OR '.join(f'attributes.a1:w{n}*' for n in range(30))})")
_OF_ENROLLMENTS = " OR ".join([f"CONTAINS(initialTwin.tags.text, '{n}')" for n in range(95)])


@dataclass(frozen=True)
class Requests:
    """What is asked for, where, and how often at once."""

    host: str
    port: int
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    at_once: int = 1
    is_tls: bool = True
    queries: bool = False
    """Whether the path ends with a query, another one for each request."""


def requests_of(server: RunningServer) -> Mapping[str, Requests]:
    """Return each kind of request. A viewer and two thousand devices are made for them."""
    _make_devices(server, 2000)
    _make_things(server, 1000)
    server.run("user", "create", "looker", "--role", "viewer", "--out", str(server.data.parent / "looker.invitation"))
    token = json.loads(server.run("token", "create", "flood", "--user", "looker", "--json").stdout)["token"]
    console = urlsplit(str(json.loads((server.data.parent / "looker.invitation").read_text())["url"]))
    at, by = (console.hostname or "", console.port or 443), {"Authorization": f"Bearer {token}"}
    sql = {"sql": "SELECT regexp_replace(m, '#.*;|#', '') AS x FROM 't'", "topic": "t"}
    trial = json.dumps(sql | {"payload": json.dumps({"m": "#" * 125_000})})
    every = {"text": "a1 \u00e9" * 9_000}
    plain = {"sql": "SELECT regexp_replace(text, '[^ -~]', '') AS x FROM 't'", "topic": "t"}
    everyday = json.dumps(plain | {"payload": json.dumps(every)})
    told = by | {"Content-Type": "application/json"}
    browser, header = _signed_in(server), f'multipart/form-data; boundary=x; a="{";" * 31_000}'
    return {
        "expressions of a viewer": Requests(*at, "POST", "/operator/v1/aws/rules-test", told, trial),
        "everyday expressions of a viewer": Requests(*at, "POST", "/operator/v1/aws/rules-test", told, everyday),
        "queries of a viewer": Requests(*at, "GET", f"/operator/v1/hubs/birthmark/query?query={_QUERY}", by, at_once=8),
        "queries of new shapes": Requests(
            *at, "GET", "/operator/v1/hubs/birthmark/query?query=", by, at_once=6, queries=True
        ),
        "queries that are counted": Requests(
            *at, "GET", f"/operator/v1/hubs/birthmark/query?query={_COUNTED}", by, at_once=8
        ),
        "searches of a viewer": Requests(
            *at, "GET", f"/operator/v1/aws/search?limit=100&query={_SEARCH}", by, at_once=4
        ),
        "queries of enrollments": _of_enrollments(server),
        "reports of a list with long names": _of_a_report(browser),
        "headers of a form": _of(browser, "POST", "/enroll/drop", "--x--", **{"Content-Type": header}),
        "documents of the interface": Requests(*at, "GET", "/operator/v1/openapi.json"),
    }


def _make_things(server: RunningServer, count: int) -> None:
    """Make things that a search looks through, of which it finds none, and wait until they are indexed."""
    iot = server.cloud.boto3()
    iot.update_indexing_configuration(thingIndexingConfiguration={"thingIndexingMode": "REGISTRY"})
    for number in range(count):
        iot.create_thing(thingName=f"found-{number}", attributePayload={"attributes": {"a1": f"w{number}"}})
    while iot.describe_index(indexName="AWS_Things")["indexStatus"] != "ACTIVE":
        time.sleep(0.05)


def _of_enrollments(server: RunningServer) -> Requests:
    """Return a query of enrollments of which it finds none; some hundred are made for it."""
    parts = parse_connection_string(server.endpoints["dps"]["service_connection_string"])
    at, version = (server.address, server.endpoints["dps"]["https_port"]), "api-version=2021-10-01"
    token = make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)
    told = {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.check_hostname = False
    connection = http.client.HTTPSConnection(*at, context=context)
    like = {"attestation": {"type": "symmetricKey"}, "initialTwin": {"tags": {"text": "x" * 300}}}
    for number in range(300):
        body = json.dumps(like | {"registrationId": f"found-{number}"})
        connection.request("PUT", f"/enrollments/found-{number}?{version}", body, told)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
    connection.close()
    query = json.dumps({"query": f"SELECT * FROM enrollments WHERE {_OF_ENROLLMENTS}"})
    return Requests(*at, "POST", f"/enrollments/query?{version}", told, query, at_once=8)


def _make_devices(server: RunningServer, count: int) -> None:
    hub = server.endpoints["iothub"]
    parts = parse_connection_string(hub["service_connection_string"])
    token = make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.check_hostname = False
    connection = http.client.HTTPSConnection(server.address, hub["https_port"], context=context)
    headers = {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}
    more = {"importMode": "create", "status": "enabled", "authentication": {"type": "sas"}}
    more |= {"tags": {"text": "x" * 300, "k0": 1}}
    for begin in range(0, count, 100):
        some = [{"id": f"found-{number}", **more} for number in range(begin, begin + 100)]
        connection.request("POST", "/devices?api-version=2021-04-12", json.dumps(some), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
    connection.close()


def _of_a_report(browser: Browser) -> Requests:
    """Drop a manifest by a signer of one's own whose chips are called 22,000 tabs; return what asks for its report."""
    maker = a_ca("Manifest Signer")
    signer, device = ManifestKey(maker.certificate, maker.private_key), a_device(maker, "sn1").certificate  # type: ignore[arg-type]  # it is P-256
    chips = [ManifestChip("\t" * 22_000, [device.public_key()], (device, maker.certificate)) for _ in range(3)]  # type: ignore[list-item]
    manifest = json.dumps([render_entry(chip, signer, maker.certificate.not_before) for chip in chips])
    fields = browser.fields("/enroll", "/enroll/drop")
    sent: list[tuple[str, Any]] = [(name, (None, fields[name])) for name in ("csrf", "once", "dps")]
    sent += [("files", ("m.json", manifest)), ("signers", ("signer.pem", maker.certificate.pem()))]
    url = f"{browser.url}/enroll/drop"
    at = browser.http.post(url, files=sent, headers=SAME, allow_redirects=False).headers["Location"]
    until(lambda: "data-poll" not in browser.get(at).text)
    assert browser.get(f"{at}/report.csv").text.count("refused") == len(chips)
    return _of(browser, "GET", f"{at}/report.csv")


def _signed_in(server: RunningServer) -> Browser:
    """Return a browser that opened the machine's link."""
    opened = urlsplit(str(json.loads(server.run("console", "open", "--json").stdout)["url"]))
    browser = Browser(f"http://{opened.netloc}")
    browser.submit("/open", code=opened.fragment)
    assert browser.is_signed_in()
    return browser


def _of(browser: Browser, method: str, path: str, body: str = "", **headers: str) -> Requests:
    """Return what a page of this browser asks for."""
    at, cookies = urlsplit(browser.url), "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies)
    by = SAME | {"Cookie": cookies} | headers
    return Requests(at.hostname or "", at.port or 80, method, path, by, body, is_tls=False)


@contextlib.contextmanager
def a_people_flood(requests: Requests) -> Iterator[Flood]:
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(asdict(requests))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "flooding\n"
    try:
        yield Flood(process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def _another_query() -> str:
    """Return a query of 99 terms that no statement was made for yet."""
    terms = (f"tags.t{number} = {random.randrange(9)}" for number in range(99))
    condition = next(terms) + "".join(f" {random.choice(('AND', 'OR'))} {term}" for term in terms)
    return quote(f"SELECT deviceId FROM devices WHERE {condition}")


def _send(requests: Requests, count: "itertools.count[int]") -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            made = http.client.HTTPSConnection if requests.is_tls else http.client.HTTPConnection
            told: dict[str, Any] = {"context": context} if requests.is_tls else {}
            connection = made(requests.host, requests.port, timeout=30, **told)
            while True:
                path = requests.path + (_another_query() if requests.queries else "")
                connection.request(requests.method, path, requests.body, dict(requests.headers))
                answer = connection.getresponse()
                answer.read()
                if answer.status in {303, 401, 403, 404, 500}:
                    os._exit(answer.status - 300)  # it is no flood
                next(count)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    requests, count = Requests(**json.loads(sys.argv[1])), itertools.count()
    for _ in range(requests.at_once):
        threading.Thread(target=_send, args=(requests, count), daemon=True).start()
    say("flooding")
    while sys.stdin.readline():
        say(str(next(count)))


if __name__ == "__main__":
    main()
