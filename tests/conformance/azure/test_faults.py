"""Seeded faults of registration, connection, query and modules: each has its answer on the wire and its own code.

That the fix of each code works as it is typed is seen in tests/system/fixes.
"""

import base64
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fixes.desk import a_connect, a_publish, a_subscribe
from fixes.rows import ROWS
from fixes.scenarios import SCENARIOS

from support.azure.clients import Device, a_file_device
from support.azure.sas_tokens import make_sas
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
KEY, OTHER = b"k" * 32, b"o" * 32
_KEYS = {"primaryKey": base64.b64encode(KEY).decode(), "secondaryKey": base64.b64encode(KEY).decode()}
_SAS = {"type": "sas", "symmetricKey": _KEYS}
CLOSED = "closed"


@dataclass
class World:
    """A server with a hub that has devices and modules, and enrollments."""

    server: RunningServer
    directory: Path

    @property
    def known(self) -> Mapping[str, str]:
        return self.server.cloud.variables

    @property
    def scope(self) -> str:
        return self.known["PROVISIONING_IDSCOPE"]

    @property
    def host(self) -> str:
        return self.known["PROVISIONING_HOST"]

    def policy(self, service: str) -> str:
        """Return a token of a service's own policy."""
        parts = dict(one.split("=", 1) for one in self.known[f"{service}_CONNECTION_STRING"].split(";"))
        key = base64.b64decode(parts["SharedAccessKey"])
        return make_sas(parts["HostName"], key, soon(), parts["SharedAccessKeyName"])

    def sas(self, name: str, key: bytes = KEY, *, host: str = "", expiry_s: int = 0) -> str:
        """Return a device's or module's token."""
        device, slash, module = name.partition("/")
        resource = f"{host or self.host}/devices/{device}" + (f"/modules/{module}" if slash else "")
        return make_sas(resource, key, expiry_s or soon())

    def registering(self, name: str, key: bytes = KEY, *, expiry_s: int = 0, scope: str = "") -> str:
        return make_sas(f"{scope or self.scope}/registrations/{name}", key, expiry_s or soon(), "registration")

    def ask(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> tuple[str, str]:
        """Return what an answer says, as `status number` of DPS or `status name` of the hub, and its tracking id."""
        said = {"authorization": token} if token else {}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        version = "" if "?" in path else "?api-version=2021-06-01"
        url = f"https://{self.host}:8443{path}{version}"
        headers_sent = {"content-type": "application/json", **said}
        ca = self.server.endpoints["trust_bundle"]
        answer = requests.request(method, url, data=content, headers=headers_sent, timeout=20, verify=ca)
        if answer.ok:
            return f"{answer.status_code}", answer.text
        if not answer.headers["content-type"].startswith("application/json"):  # what no service gets to see
            return f"{answer.status_code}", ""
        told = answer.json()
        if "errorCode" in told:
            return f"{answer.status_code} {told['errorCode']}", told["trackingId"]
        if "errors" in told:
            return f"{answer.status_code} {told['errors'][0]['errorCode']}", ""
        name, number = answer.headers["iothub-errorcode"], told["ExceptionMessage"].removeprefix("Tracking ID:")
        return f"{answer.status_code} {name}", number

    def dps(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[str, str]:
        return self.ask(method, path, body, self.policy("PROVISIONING"), **headers)

    def hub(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[str, str]:
        return self.ask(method, path, body, self.policy("IOTHUB"), **headers)

    def must(self, answer: tuple[str, str]) -> None:
        assert answer[0] in {"200", "201", "204"}, answer

    def mqtt(self, connect: bytes, *packets: bytes, device: Device | None = None) -> tuple[str, str]:
        """Return the CONNACK's code where it refuses, else what came after the last packet."""
        context = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        if device is not None:
            context.load_cert_chain(device.certificate_file, device.key_file)
        with context.wrap_socket(socket.create_connection((self.host, 8883), 10), server_hostname=self.host) as sock:
            sock.settimeout(10)
            answer = b""
            for packet in (connect, *packets):
                sock.sendall(packet)
                try:
                    answer = sock.recv(65536)
                except (ConnectionError, ssl.SSLError):
                    answer = b""
                if not answer:
                    return CLOSED, ""
                if answer[0] == 0x20 and answer[3]:
                    return f"connack {answer[3]}", ""
            if answer[0] == 0x40:  # the answer itself may follow the PUBACK
                answer = answer[4:] or sock.recv(65536)
        topic = answer.partition(b"$dps/registrations/res/")[2] or answer.partition(b"$iothub/credentials/res/")[2]
        if not topic:
            return answer.hex(), ""
        told, _ = json.JSONDecoder().raw_decode(answer[answer.index(b"{") :].decode())
        return f"res {topic[:3].decode()} {told.get('errorCode', '')}".strip(), told.get("trackingId", "")

    def connect(self, name: str, token: str = "", *packets: bytes, client: str = "", host: str = "") -> tuple[str, str]:
        """Connect to the hub as a device or a module."""
        user = f"{host or self.host}/{name}/?api-version=2021-04-12"
        return self.mqtt(a_connect(client or name, user, password=token or self.sas(name)), *packets)

    def register(self, name: str, *packets: bytes, token: str = "", client: str = "", scope: str = "") -> Any:
        user = f"{scope or self.scope}/registrations/{name}/api-version=2019-03-31"
        return self.mqtt(a_connect(client or name, user, password=token or self.registering(name)), *packets)

    def registration(self, name: str, body: Any = None, token: str = "", scope: str = "") -> tuple[str, str]:
        """Register over HTTPS."""
        path = f"/{scope or self.scope}/registrations/{name}/register"
        return self.ask("PUT", path, body or {"registrationId": name}, token or self.registering(name, scope=scope))


def soon() -> int:
    return int(time.time()) + 600


def enrollment(**more: Any) -> dict[str, Any]:
    return {"attestation": {"type": "symmetricKey", "symmetricKey": _KEYS}, **more}


def _to_register(body: bytes) -> bytes:
    return a_publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body)


_ANSWERS = a_subscribe("$dps/registrations/res/#")
_CREDENTIALS = a_subscribe("$iothub/credentials/res/#")
_ISSUE = "$iothub/credentials/POST/issueCertificate/?$rid=1"
Fault = tuple[Callable[[World], tuple[str, str]], str, str]
_QUERY = "/devices/query"

REGISTRATION: Mapping[str, Fault] = {
    "a scope that is nobody's": (
        lambda w: w.registration("f-key", scope="0ne00FFFFFF"),
        "404 404001",
        "dps.unknown_scope",
    ),
    "a name that nobody enrolled": (lambda w: w.registration("f-nobody"), "401 401002", "dps.token_not_enrolled"),
    "no proof": (
        lambda w: w.ask("PUT", f"/{w.scope}/registrations/f-key/register", {"registrationId": "f-key"}),
        "401 401002",
        "dps.no_proof",
    ),
    "a key of another's": (
        lambda w: w.registration("f-key", token=w.registering("f-key", OTHER)),
        "401 401002",
        "sas.signature_mismatch",
    ),
    "a token that is over": (
        lambda w: w.registration("f-key", token=w.registering("f-key", expiry_s=soon() - 4000)),
        "401 401002",
        "sas.expired",
    ),
    "another's token": (
        lambda w: w.registration("f-key", token=w.registering("f-off")),
        "401 401002",
        "sas.wrong_resource",
    ),
    "something that is no token": (
        lambda w: w.registration("f-key", token="SharedAccessSignature no"),
        "401 401002",
        "sas.malformed",
    ),
    "an enrollment that is off": (lambda w: w.registration("f-off"), "401 401002", "dps.enrollment_disabled"),
    "another's name in the body": (
        lambda w: w.registration("f-key", {"registrationId": "f-off"}),
        "401 401002",
        "dps.other_registration",
    ),
    "a body that is no JSON": (lambda w: w.registration("f-key", b"{"), "400 400004", "dps.body_invalid"),
    "a request for a certificate that nobody issues": (
        lambda w: w.registration("f-key", {"registrationId": "f-key", "csr": _csr("f-key")}),
        "400 400004",
        "dps.no_issuing_policy",
    ),
    "an operation that is none": (
        lambda w: w.ask("GET", f"/{w.scope}/registrations/f-key/operations/5.x", token=w.registering("f-key")),
        "404 404202",
        "dps.registration_not_found",
    ),
    "an enrollment of an attestation there is not": (
        lambda w: w.dps("PUT", "/enrollments/f-odd", {"attestation": {"type": "none"}}),
        "400 400004",
        "dps.attestation_not_served",
    ),
    "an enrollment that changed": (
        lambda w: w.dps("PUT", "/enrollments/f-key", enrollment(), if_match='"old"'),
        "412 412001",
        "dps.enrollment_changed",
    ),
    "an enrollment that is not there": (
        lambda w: w.dps("DELETE", "/enrollments/f-nobody"),
        "404 404201",
        "dps.enrollment_not_found",
    ),
    "a policy's key that is wrong": (
        lambda w: w.ask("GET", "/enrollments/f-key", token=make_sas(w.host, OTHER, soon(), "provisioningserviceowner")),
        "401 401002",
        "sas.signature_mismatch",
    ),
    "MQTT: a key of another's": (
        lambda w: w.register("f-key", token=w.registering("f-key", OTHER)),
        "connack 5",
        "sas.signature_mismatch",
    ),
    "MQTT: a client id that is another": (
        lambda w: w.register("f-key", client="f-off"),
        "connack 2",
        "dps.client_id_mismatch",
    ),
    "MQTT: another's name in the body": (
        lambda w: w.register("f-key", _ANSWERS, _to_register(b'{"registrationId": "f-off"}')),
        "res 401 401002",
        "dps.other_registration",
    ),
    "MQTT: a body that is no JSON": (
        lambda w: w.register("f-key", _ANSWERS, _to_register(b"[")),
        "res 400 400004",
        "dps.body_invalid",
    ),
    "MQTT: another's answers": (
        lambda w: w.register("f-key", a_subscribe("$iothub/twin/res/#")),
        CLOSED,
        "dps.topic_not_served",
    ),
}
CONNECTION: Mapping[str, Fault] = {
    "a device there is not": (lambda w: w.connect("f-nobody"), "connack 5", "iothub.unknown_device"),
    "a device that is off": (lambda w: w.connect("f-dark"), "connack 5", "iothub.device_disabled"),
    "another's key": (lambda w: w.connect("f-dev", w.sas("f-dev", OTHER)), "connack 5", "sas.signature_mismatch"),
    "another's token": (lambda w: w.connect("f-dev", w.sas("f-two")), "connack 5", "sas.wrong_resource"),
    "a token that is over": (
        lambda w: w.connect("f-dev", w.sas("f-dev", expiry_s=soon() - 4000)),
        "connack 5",
        "sas.expired",
    ),
    "no credentials": (
        lambda w: w.mqtt(a_connect("f-dev", f"{w.host}/f-dev/?api-version=2021-04-12")),
        "connack 5",
        "iothub.no_credentials",
    ),
    "a certificate that is another": (
        lambda w: _by_certificate(w, "f-cert"),
        "connack 5",
        "iothub.thumbprint_mismatch",
    ),
    "a client id that is another": (
        lambda w: w.connect("f-dev", client="f-two"),
        "connack 2",
        "iothub.client_id_mismatch",
    ),
    "a hub there is not": (
        lambda w: w.connect("f-dev", w.sas("f-dev", host="no.example"), host="no.example"),
        "connack 5",
        "iothub.unknown_hub",
    ),
    "a message of QoS 2": (
        lambda w: w.connect("f-dev", "", a_publish("devices/f-dev/messages/events/", qos=2)),
        CLOSED,
        "iothub.qos_not_served",
    ),
    "a message in another's name": (
        lambda w: w.connect("f-dev", "", a_publish("devices/f-two/messages/events/")),
        CLOSED,
        "iothub.topic_not_served",
    ),
    "another's messages": (
        lambda w: w.connect("f-dev", "", a_subscribe("devices/f-two/messages/devicebound/#")),
        CLOSED,
        "iothub.topic_not_served",
    ),
    "HTTPS: a message in another's name": (
        lambda w: w.ask("POST", "/devices/f-two/messages/events", b"x", w.sas("f-dev")),
        "401 IotHubUnauthorizedAccess",
        "sas.wrong_resource",
    ),
    "HTTPS: a message that is too large": (
        lambda w: w.ask("POST", "/devices/f-dev/messages/events", bytes(262_145), w.sas("f-dev")),
        "413",
        "http.body_too_large",
    ),
    "a certificate for who has keys": (
        lambda w: w.connect("f-dev", "", _CREDENTIALS, a_publish(_ISSUE, _issuing("f-dev"))),
        "res 412 412005",
        "iothub.credential_of_keys",
    ),
    "a certificate for another": (
        lambda w: w.connect("f-dev", "", _CREDENTIALS, a_publish(_ISSUE, _issuing("f-two"))),
        "res 403 403000",
        "iothub.credential_of_another",
    ),
    "a digital twin with an array": (
        lambda w: w.hub("PATCH", "/digitaltwins/f-dev", [{"op": "add", "path": "/a", "value": [1]}]),
        "400 ArgumentInvalid",
        "iothub.digital_twin_patch",
    ),
    "keys and thumbprints at once": (
        lambda w: w.hub(
            "PUT",
            "/devices/f-both",
            {"authentication": {"type": "certificateAuthority", "x509Thumbprint": {"primaryThumbprint": "AB" * 20}}},
        ),
        "400 ArgumentInvalid",
        "iothub.body_invalid",
    ),
}
QUERY: Mapping[str, Fault] = {
    "no query": (lambda w: w.hub("POST", _QUERY, {}), "400 ArgumentInvalid", "iothub.body_invalid"),
    "a word that is none": (
        lambda w: w.hub("POST", _QUERY, {"query": "SELECT * FORM devices"}),
        "400 ArgumentInvalid",
        "iothub.query_invalid",
    ),
    "a member that twins have not": (
        lambda w: w.hub("POST", _QUERY, {"query": "SELECT * FROM devices WHERE colour = 'red'"}),
        "400 ArgumentInvalid",
        "iothub.query_invalid",
    ),
    "a collection that is not served": (
        lambda w: w.hub("POST", _QUERY, {"query": "SELECT * FROM devices.streams"}),
        "400 ArgumentInvalid",
        "iothub.collection_not_served",
    ),
    "a page there is not": (
        lambda w: w.hub("POST", _QUERY, {"query": "SELECT * FROM devices"}, x_ms_continuation="nothing"),
        "400 ArgumentInvalid",
        "iothub.query_marker_invalid",
    ),
    "a page of no length": (
        lambda w: w.hub("POST", _QUERY, {"query": "SELECT * FROM devices"}, x_ms_max_item_count="many"),
        "400 ArgumentInvalid",
        "iothub.body_invalid",
    ),
    "a device that asks": (
        lambda w: w.ask("POST", _QUERY, {"query": "SELECT * FROM devices"}, w.sas("f-dev")),
        "401 IotHubUnauthorizedAccess",
        "iothub.policy_refused",
    ),
    "of enrollments: what cannot be read": (
        lambda w: w.dps("POST", "/enrollments/query", {"query": "SELECT * FROM enrollments WHERE"}),
        "400 400004",
        "dps.query_invalid",
    ),
    "of enrollments: a member they have not": (
        lambda w: w.dps("POST", "/enrollments/query", {"query": "SELECT * FROM enrollments WHERE colour = 'red'"}),
        "400 400004",
        "dps.query_invalid",
    ),
}
MODULES: Mapping[str, Fault] = {
    "of a device there is not": (
        lambda w: w.hub("PUT", "/devices/f-nobody/modules/m", {"authentication": _SAS}),
        "404 DeviceNotFound",
        "iothub.unknown_device",
    ),
    "one there is not": (
        lambda w: w.hub("GET", "/devices/f-dev/modules/none"),
        "404 ModuleNotFound",
        "iothub.unknown_module",
    ),
    "one there is already": (
        lambda w: w.hub("PUT", "/devices/f-dev/modules/a", {"authentication": _SAS}),
        "409 ModuleAlreadyExistsOnDevice",
        "iothub.module_exists",
    ),
    "one that changed": (
        lambda w: w.hub("PUT", "/devices/f-dev/modules/a", {"authentication": _SAS}, if_match='"old"'),
        "412 PreconditionFailed",
        "iothub.module_etag",
    ),
    "one that speaks for its device": (
        lambda w: w.connect("f-dev", w.sas("f-dev/a", OTHER)),
        "connack 5",
        "sas.wrong_resource",
    ),
    "one that speaks for its sibling": (
        lambda w: w.connect("f-dev/b", w.sas("f-dev/a", OTHER)),
        "connack 5",
        "sas.wrong_resource",
    ),
    "one with its device's key": (
        lambda w: w.connect("f-dev/a", w.sas("f-dev/a", KEY)),
        "connack 5",
        "sas.signature_mismatch",
    ),
    "one that publishes for its sibling": (
        lambda w: w.connect("f-dev/a", w.sas("f-dev/a", OTHER), a_publish("devices/f-dev/modules/b/messages/events/")),
        CLOSED,
        "iothub.topic_not_served",
    ),
    "one that listens to its device": (
        lambda w: w.connect("f-dev/a", w.sas("f-dev/a", OTHER), a_subscribe("devices/f-dev/messages/devicebound/#")),
        CLOSED,
        "iothub.topic_not_served",
    ),
    "a device makes one of another": (
        lambda w: w.ask("PUT", "/devices/f-edge/modules/c", {"authentication": _SAS}, w.sas("f-dev")),
        "401 IotHubUnauthorizedAccess",
        "sas.wrong_resource",
    ),
    "a method of one that is away": (
        lambda w: w.hub("POST", "/twins/f-dev/modules/a/methods", {"methodName": "x"}),
        "404 DeviceNotOnline",
        "iothub.device_not_online",
    ),
    "a configuration of one that is no IoT Edge device": (
        lambda w: w.hub("POST", "/devices/f-dev/applyConfigurationContent", {"modulesContent": {"m": {}}}),
        "400 ArgumentInvalid",
        "iothub.body_invalid",
    ),
}
FAULTS = {
    f"{room}: {what}": fault
    for room, faults in (
        ("registration", REGISTRATION),
        ("connection", CONNECTION),
        ("query", QUERY),
        ("modules", MODULES),
    )
    for what, fault in faults.items()
}


def _csr(name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def _issuing(name: str) -> bytes:
    return json.dumps({"id": name, "csr": _csr(name)}).encode()


def _by_certificate(world: World, name: str) -> tuple[str, str]:
    device = a_file_device(world.directory, name)
    return world.mqtt(a_connect(name, f"{world.host}/{name}/?api-version=2021-04-12"), device=device)


@pytest.fixture(scope="module")
def world(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(server, tmp_path_factory.mktemp("faults"))
    made.must(made.dps("PUT", "/enrollments/f-key", {"registrationId": "f-key", **enrollment()}))
    off = enrollment(registrationId="f-off", provisioningStatus="disabled")
    made.must(made.dps("PUT", "/enrollments/f-off", off))
    for name in ("f-dev", "f-two", "f-edge"):
        capabilities = {"capabilities": {"iotEdge": name == "f-edge"}}
        made.must(made.hub("PUT", f"/devices/{name}", {"deviceId": name, "authentication": _SAS, **capabilities}))
    made.must(made.hub("PUT", "/devices/f-dark", {"authentication": _SAS, "status": "disabled"}))
    proof = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB" * 32}}
    made.must(made.hub("PUT", "/devices/f-cert", {"authentication": proof}))
    own = dict.fromkeys(("primaryKey", "secondaryKey"), base64.b64encode(OTHER).decode())
    for module in ("a", "b"):
        body = {"moduleId": module, "authentication": {"type": "sas", "symmetricKey": own}}
        made.must(made.hub("PUT", f"/devices/f-dev/modules/{module}", body))
    return made


@pytest.fixture(scope="module")
def provoked(world: World) -> Mapping[str, tuple[str, str, Mapping[str, Any]]]:
    """Provoke each; return its answer, its tracking id, and the refusals by tracking id and by code."""
    answers = {}
    for what, (act, _, _) in FAULTS.items():
        try:
            answers[what] = act(world)
        except Exception as error:  # noqa: BLE001 - told by its own test
            answers[what] = repr(error), ""
    deadline = time.monotonic() + 5
    wanted = {code for _, _, code in FAULTS.values()}
    while True:
        rows = world.server.rows("why", "--limit", "1000")
        told: dict[str, Any] = {row["code"]: row for row in rows}
        if wanted <= told.keys() or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    told |= {row["id"]: row for row in rows}
    return {what: (*answers[what], told) for what in FAULTS}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_has_its_answer_on_the_wire_and_its_code(
    provoked: Mapping[str, tuple[str, str, Mapping[str, Any]]], what: str
) -> None:
    (answer, tracking_id, told), (_, wanted, code) = provoked[what], FAULTS[what]
    assert answer == wanted
    if tracking_id in told:
        assert told[tracking_id]["code"] == code
    assert code in told, sorted(one for one in told if "." in one)
    assert code in ROWS or code in SCENARIOS


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 40
