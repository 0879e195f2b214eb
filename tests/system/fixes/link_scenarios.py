"""Connections that fail: another server is at the other end, ours stumbles, or the device shows the wrong files."""

import re
import socket
from collections.abc import Callable, Mapping

from fixes.applied import by_itself, in_file, into
from fixes.desk import a_publish
from fixes.est_wire_scenarios import APPLY, CONFIG, agent
from fixes.peer import CONNACK, NAMED, PEER, Peer, Say, by_tls, saying, silence, suback, suback_refused
from fixes.scenario import REGISTER, Scenario, after, device
from fixes.scene import Scene

_MQTT, _HTTPS, _OTHER = 8883, 8443, 9543
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def enrolled(name: str, *before: str) -> Callable[[Scene], None]:
    """A device on record that will talk to the peer."""
    own = 'birthmark device enroll --cert "$X509_CERT_FILE"'
    return after(device(name), own, f"export PROVISIONING_HOST={PEER}", *before)


def at_peer(name: str, say: Say | None, *, is_tls: bool = True, asks: bool = False) -> Scenario:
    """Another server answers where the device connects; the fix names ours."""

    def prepare(scene: Scene) -> None:
        enrolled(name)(scene)
        Peer(scene, by_tls(scene, say, asks_for_certificate=asks) if say is not None and is_tls else say, _MQTT).start()

    return Scenario(REGISTER, prepare, config=NAMED if is_tls else "")


def stumbling(name: str, say: Say, act: str = REGISTER, *, port: int = _MQTT) -> Scenario:
    """Our server fails in this way, and is well afterwards."""
    peers: list[Peer] = []

    def prepare(scene: Scene) -> None:
        enrolled(name)(scene)
        peers.append(Peer(scene, by_tls(scene, say), port))
        peers[-1].start()

    return Scenario(act, prepare, apply=by_itself(lambda _scene: peers[-1].heal()), config=NAMED)


def answering(content_type: str, body: bytes) -> Say:
    """Answer a request with 200 and this body."""
    head = (
        f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return saying(head.encode() + body)


def at_another_dps(name: str, say: Say, command: str) -> Scenario:
    """The connection string leads to what is no provisioning service; then it is corrected."""
    string = "PROVISIONING_CONNECTION_STRING"

    def prepare(scene: Scene) -> None:
        enrolled(name)(scene)
        Peer(scene, by_tls(scene, say), _HTTPS).start()
        scene.environment["OURS"] = scene.environment[string]
        scene.environment[string] = re.sub(r"HostName=[^;]*", f"HostName={PEER}:{_HTTPS}", scene.environment[string])

    corrected = by_itself(lambda scene: scene.environment.update({string: scene.environment["OURS"]}))
    return Scenario(f"birthmark {command} --profile cloud", prepare, apply=corrected, config=NAMED)


def unlinked(name: str, leads_to: str | None = None) -> Scenario:
    """The provisioning service has no hub any more."""
    gone = 'birthmark hub rm birthmark --yes; birthmark hub create birthmark --host "$PROVISIONING_HOST"'
    ready = after(device(name), 'birthmark device enroll --cert "$X509_CERT_FILE"', gone)
    act = f'{REGISTER} --transport https --host "$PROVISIONING_HOST:{_HTTPS}"'
    return Scenario(act, ready, leads_to=leads_to, config=NAMED)


def other_service(scene: Scene) -> None:
    """At our own host, another port has another service."""
    assert scene.server is not None
    device("fix-other-port")(scene)
    scene.must('birthmark device enroll --cert "$X509_CERT_FILE"')
    Peer(scene, by_tls(scene, saying(b"220 mail.example ESMTP\r\n")), _OTHER, scene.server.address).start()
    scene.environment["PROVISIONING_HOST"] = f"{scene.server.address}:{_OTHER}"


def other_est(scene: Scene) -> None:
    """The agent's EST server is another service, which has one answer for everything."""
    assert scene.server is not None
    agent("fix-cms", f"sed -i 's#:8085/#:{_OTHER}/#' {CONFIG}")(scene)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    Peer(scene, by_tls(scene, saying(page)), _OTHER, scene.server.address).start()


PROGRAM = """
import os, ssl, urllib.request as http
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
context.load_cert_chain("chip.pem", "chip.key.pem")
host = os.environ["PROVISIONING_HOST"]
print(http.urlopen(f"https://{host}:8443/.well-known/est/cacerts", context=context).status)
"""


def without_the_chip(scene: Scene) -> None:
    """A program that has the chip's certificate, and a file that only names its key."""
    scene.must('eval "$(birthmark env)"; eval "$(birthmark chip simulate chip)"')
    scene.must("birthmark chip cert --out chip.pem; birthmark chip refkey --out chip.key.pem")
    scene.must("birthmark device enroll --cert chip.pem")
    (scene.directory / "program.py").write_text(PROGRAM)


def other_json(sock: socket.socket) -> None:
    """Take a device as a provisioning service does, and answer its registration with something else."""
    sock.recv(65536)
    sock.sendall(CONNACK + b"\0")
    heard = sock.recv(65536)
    sock.sendall(suback(heard))
    while (rid := re.search(rb"\$rid=([0-9A-Za-z-]+)", heard)) is None:
        heard += sock.recv(65536)
    sock.sendall(b"\x40\x02" + heard[rid.end() :][:2])
    sock.sendall(a_publish(f"$dps/registrations/res/200/?$rid={rid[1].decode()}", b'{"operationId": 7}', qos=0))
    silence(sock)


FAILED = b'{"operationId": "1", "status": "failed", "registrationState": {"status": "failed", "errorCode": 400208}}'


def at_azure(scene: Scene) -> None:
    """A provisioning service that believes the device, and has no hub for it."""
    enrolled("fix-failed")(scene)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(FAILED)
    Peer(scene, by_tls(scene, saying(head + FAILED)), _HTTPS).start()


LINKS: Mapping[str, Scenario] = {
    "fleet.answer_unreadable": at_another_dps(
        "fix-page", answering("text/html", b"<title>Blocked</title>"), "device ls"
    ),
    "fleet.record_unreadable": at_another_dps(
        "fix-odd",
        answering("application/json", b'{"registrationId": "fix-odd", "lastUpdatedDateTimeUtc": "yesterday"}'),
        'device enroll --yes --cert "$X509_CERT_FILE"',
    ),
    "links.web_page": stumbling(
        "fix-web-page",
        answering("text/html", b"<title>Blocked</title>"),
        f"{REGISTER} --transport https --host {PEER}:{_HTTPS}",
        port=_HTTPS,
    ),
    "dps.answer_invalid": at_peer("fix-other-answer", other_json),
    "dps.client_busy": stumbling(
        "fix-busy", saying(BUSY), f"{REGISTER} --transport https --host {PEER}:{_HTTPS}", port=_HTTPS
    ),
    "links.answer_invalid": Scenario(f"{REGISTER} --transport https", other_service, apply=into("PROVISIONING_HOST")),
    "links.certificate_key_mismatch": Scenario(
        'birthmark device register --cert "$X509_CERT_FILE" --key other.key.pem',
        after(
            device("fix-pair"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "birthmark ca init --name Fixes --dir ca; birthmark ca issue other --dir ca",
        ),
        is_instead=True,
    ),
    "pki.cms_invalid": Scenario(APPLY, other_est, apply=in_file(CONFIG, f'"(https://[^"]*{_OTHER}[^"]*)"')),
    "links.client_certificate_refused": at_peer("fix-unwanted", silence, asks=True),
    "tls.key_not_proven": Scenario("$EXEC python3 program.py", without_the_chip, apply=into("EXEC")),
    "dps.client_failed": Scenario(
        f"{REGISTER} --transport https --host {PEER}:{_HTTPS}", at_azure, is_instead=True, config=NAMED
    ),
    "dps.client_rejected": unlinked("fix-rejected-hub", leads_to="dps.no_hub"),
    "dps.no_hub": unlinked("fix-no-hub"),
    "links.lost": stumbling("fix-lost", saying(b"")),
    "links.mqtt_rejected": at_peer("fix-rejected", saying(CONNACK + b"\2")),
    "links.mqtt_unavailable": stumbling("fix-unavailable", saying(CONNACK + b"\3")),
    "links.server_name_mismatch": at_peer("fix-host-name", None, is_tls=False),
    "links.subscription_refused": at_peer("fix-sub", saying(CONNACK + b"\0", suback_refused)),
    "links.timeout": stumbling("fix-slow", silence),
    "links.tls_failed": at_peer("fix-plain", saying(b"220 mail.example ESMTP\r\n"), is_tls=False),
}
