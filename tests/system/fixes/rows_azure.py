"""Azure's two services: programs that misuse them, and Birthmark's commands that put it right."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from fixes.desk import Desk, RefusedError, Row, a_connect, a_publish, a_subscribe, steps, typing

from support.services.webhook_server import WebhookServer

Act = Callable[[Desk], object]
ENROLL = 'birthmark device enroll --cert "$X509_CERT_FILE"'
REGISTER = "birthmark device register"


def device(name: str, **options: Any) -> Act:
    return lambda desk: desk.make_device(name, **options)


def enrolled(name: str) -> Act:
    return steps(device(name), typing(ENROLL))


def connection(desk: Desk, service: str) -> dict[str, str]:
    text = desk.scene.environment[f"{service}_CONNECTION_STRING"]
    return dict(part.split("=", 1) for part in text.split(";"))


def a_token(desk: Desk, service: str, resource: str | None = None, seconds: int = 600) -> str:
    known = connection(desk, service)
    where, end = quote(resource or known["HostName"], safe=""), int(time.time()) + seconds
    digest = hmac.digest(base64.b64decode(known["SharedAccessKey"]), f"{where}\n{end}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={where}&sig={signature}&se={end}&skn={known['SharedAccessKeyName']}"


def rest(
    service: str, method: str, path: str, body: Any = None, *, token: Callable[[Desk], str] | str = "", **headers: str
) -> Act:
    """Call a service with its connection string's token, or with another."""

    def act(desk: Desk) -> object:
        given = body(desk) if callable(body) else body
        data = b"" if given is None else json.dumps(given).encode()
        shown = token(desk) if callable(token) else token or a_token(desk, service)
        lines = [
            f"{method} {path}{'&' if '?' in path else '?'}api-version=2021-10-01 HTTP/1.1",
            f"Host: {connection(desk, service)['HostName']}",
            f"Authorization: {shown}",
            f"Content-Length: {len(data)}",
            "Connection: close",
            *(
                f"{name.replace('_', '-')}: {value}"
                for name, value in {"Content_Type": "application/json", **headers}.items()
            ),
        ]
        return desk.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    return act


def enrollment(**more: Any) -> Callable[[Desk], dict[str, Any]]:
    def body(desk: Desk) -> dict[str, Any]:
        assert desk.device is not None
        pem = {"primary": {"certificate": desk.device.certificate_file.read_text()}}
        return {"attestation": {"type": "x509", "x509": {"clientCertificates": pem}}} | more

    return body


def put(name: str, **more: Any) -> Act:
    return rest("PROVISIONING", "PUT", f"/enrollments/{name}", enrollment(**more))


def dps_saying(name: str, *packets: bytes) -> Act:
    def act(desk: Desk) -> None:
        scope = desk.scene.environment["PROVISIONING_IDSCOPE"]
        desk.mqtt(a_connect(name, f"{scope}/registrations/{name}/api-version=2019-03-31"), *packets)

    return act


def register(name: str, scope: str = "", body: Any = None, *, as_device: bool = True) -> Act:
    """Register over HTTPS."""

    def act(desk: Desk) -> None:
        at = scope or desk.scene.environment["PROVISIONING_IDSCOPE"]
        own, desk.device = desk.device, desk.device if as_device else None
        try:
            rest("PROVISIONING", "PUT", f"/{at}/registrations/{name}/register", body or {"registrationId": name})(desk)
        finally:
            desk.device = own

    return act


def mailed(name: str) -> Act:
    """Fill a device's inbox."""

    def act(desk: Desk) -> None:
        for _ in range(50):
            rest("IOTHUB", "POST", f"/devices/{name}/messages/deviceBound", {})(desk)

    return act


def called(name: str, answer: bytes = b"") -> Act:
    """Call a method of a device that listens, and says nothing if it has no answer."""

    def act(desk: Desk) -> None:
        host = desk.scene.environment["PROVISIONING_HOST"]
        with desk.tls(8883) as sock:
            sock.sendall(a_connect(name, f"{host}/{name}/?api-version=2021-04-12"))
            sock.recv(4096)
            sock.sendall(a_subscribe("$iothub/methods/POST/#"))
            sock.recv(4096)

            def say() -> None:
                rid = sock.recv(4096).partition(b"$rid=")[2].partition(b"null")[0].decode()
                sock.sendall(a_publish(f"$iothub/methods/res/200/?$rid={rid}", answer, qos=0))

            if answer:
                threading.Thread(target=say).start()
            rest("IOTHUB", "POST", f"/twins/{name}/methods", {"methodName": "x", "responseTimeoutInSeconds": 5})(desk)

    return act


def hub_saying(name: str, *packets: bytes, path: str = "", as_device: bool = True, will: str | None = None) -> Act:
    def act(desk: Desk) -> None:
        own, desk.device = desk.device, desk.device if as_device else None
        host = desk.scene.environment["PROVISIONING_HOST"]
        try:
            desk.mqtt(a_connect(name, f"{host}/{path or name}/?api-version=2021-04-12", will=will), *packets)
        finally:
            desk.device = own

    return act


def in_hub(name: str) -> Act:
    return steps(device(name), typing(f'birthmark hub device create {name} --cert "$X509_CERT_FILE"'))


def with_module(name: str) -> Act:
    return steps(in_hub(name), typing(f"birthmark hub module create {name} camera"))


def misuse(name: str, topic: str, payload: bytes = b"hello", *, qos: int = 1) -> Row:
    name = f"fix-hub-{name}"
    packet = a_publish(topic.format(name=name), payload, qos=qos)
    return Row(hub_saying(name, packet), in_hub(name), is_instead=True)


def refuse(_desk: Desk) -> None:
    """Stand for a client that takes the answer for a refusal: the connection stays open."""
    raise RefusedError


@contextmanager
def webhooks() -> Iterator[dict[str, str]]:
    """Run the programs that choose hubs for these rows, and yield what of the environment says where."""
    with WebhookServer() as server:
        server.answers = {"/odd": lambda _: (200, []), "/empty": lambda _: (200, {}), "/secret": lambda _: (401, {})}
        server.answers["/gone"] = lambda _: (410, {})
        yield {"FIX_WEBHOOKS": server.url("")}


def choosing(name: str, path: str) -> Act:
    """Enroll a device whose hub a program chooses."""

    def act(desk: Desk) -> None:
        definition = {"webhookUrl": desk.scene.environment["FIX_WEBHOOKS"] + path}
        put(name, allocationPolicy="custom", customAllocationDefinition=definition)(desk)

    return steps(device(name), act)


_EVENTS = "devices/{name}/messages/events/"

DPS: Mapping[str, Row] = {
    "dps.allocation_empty": Row(register("fix-empty"), choosing("fix-empty", "/empty"), is_instead=True),
    "dps.allocation_failed": Row(register("fix-odd"), choosing("fix-odd", "/odd"), is_instead=True),
    "dps.allocation_unauthorized": Row(register("fix-secret"), choosing("fix-secret", "/secret"), is_instead=True),
    "dps.webhook_invalid": Row(
        put(
            "fix-webhook",
            allocationPolicy="custom",
            customAllocationDefinition={"webhookUrl": "https://169.254.169.254/"},
        ),
        device("fix-webhook"),
        is_instead=True,
    ),
    "dps.allocation_not_served": Row(
        put("fix-allocation", allocationPolicy="geoLatency"), device("fix-allocation"), is_instead=True
    ),
    "dps.attestation_not_served": Row(
        put("fix-attestation", attestation={"type": "none"}),
        device("fix-attestation"),
        is_instead=True,
    ),
    "dps.body_invalid": Row(
        register("fix-body", body={"registrationId": "fix-body", "csr": 5}), enrolled("fix-body"), is_instead=True
    ),
    "dps.ca_not_a_ca": Row(
        lambda desk: desk.type('birthmark dps ca create fix-leaf "$X509_CERT_FILE"'),
        device("fix-ca-leaf"),
        is_instead=True,
    ),
    "dps.client_id_mismatch": Row(
        lambda desk: desk.mqtt(
            a_connect(
                "another",
                f"{desk.scene.environment['PROVISIONING_IDSCOPE']}/registrations/fix-client-id/api-version=2019-03-31",
            )
        ),
        enrolled("fix-client-id"),
        is_instead=True,
    ),
    "dps.other_registration": Row(
        register("fix-other", body={"registrationId": "another"}), enrolled("fix-other"), is_instead=True
    ),
    "dps.first_instance": Row(lambda desk: desk.type("birthmark dps rm birthmark --yes"), is_instead=True),
    "dps.query_not_served": Row(
        rest("PROVISIONING", "POST", "/enrollments/query", {"query": "SELECT etag FROM enrollments"}),
        is_instead=True,
    ),
    "dps.query_invalid": Row(
        rest("PROVISIONING", "POST", "/enrollments/query", {"query": "SELECT * FROM enrollments WHERE a = 'b'"}),
        is_instead=True,
    ),
    "dps.device_id_invalid": Row(put("fix-device-id", deviceId="a b"), device("fix-device-id"), is_instead=True),
    "dps.enrollment_changed": Row(
        rest("PROVISIONING", "PUT", "/enrollments/fix-changed", enrollment(), If_Match='"old"'),
        enrolled("fix-changed"),
        is_instead=True,
    ),
    "dps.enrollment_invalid": Row(
        put("fix-invalid", provisioningStatus="perhaps"), device("fix-invalid"), is_instead=True
    ),
    "dps.enrollment_not_found": Row(rest("PROVISIONING", "DELETE", "/enrollments/fix-none"), is_instead=True),
    "dps.group_id_invalid": Row(
        rest("PROVISIONING", "PUT", "/enrollmentGroups/a%20b", {"attestation": {"type": "symmetricKey"}}),
        is_instead=True,
    ),
    "dps.intermediate_not_sent": Row(
        lambda desk: desk.type(REGISTER),
        typing(
            "birthmark ca init --name Above --dir own; birthmark ca issue fix-below --dir own",
            "openssl x509 -in fix-below.cert.pem -out below.pem",
            "export X509_CERT_FILE=below.pem X509_KEY_FILE=fix-below.key.pem",
            "birthmark dps ca create fix-above own/root.pem; birthmark dps ca verify fix-above --without-proof",
            "birthmark device enroll-group fix-above --ca-name fix-above",
        ),
    ),
    "dps.no_common_name": Row(
        register("fix-nameless"),
        steps(
            device("fix-nameless"),
            typing(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=Nobody "
                "-keyout none.key -out none.pem"
            ),
            lambda desk: desk.use_device("none.pem", "none.key"),
        ),
        is_instead=True,
    ),
    "dps.no_proof": Row(register("fix-proof", as_device=False), enrolled("fix-proof"), is_instead=True),
    "dps.registration_not_found": Row(rest("PROVISIONING", "DELETE", "/registrations/fix-none"), is_instead=True),
    "dps.registration_pinned": Row(
        lambda desk: desk.type(REGISTER),
        steps(
            typing(
                "birthmark ca init --name Pinned --dir own; birthmark ca init --name Rival --dir rival",
                "birthmark ca issue fix-pinned --dir own",
                "export X509_CERT_FILE=fix-pinned.cert.pem X509_KEY_FILE=fix-pinned.key.pem",
                "birthmark dps ca create fix-pinned own/issuing.pem; "
                "birthmark dps ca verify fix-pinned --without-proof",
                "birthmark device enroll-group fix-pinned --ca-name fix-pinned",
                REGISTER,
                "rm fix-pinned.*; birthmark ca issue fix-pinned --dir rival",
                "birthmark dps ca create fix-rival rival/issuing.pem; "
                "birthmark dps ca verify fix-rival --without-proof",
                "birthmark device enroll-group fix-rival --ca-name fix-rival",
            ),
        ),
    ),
    "dps.topic_not_served": Row(
        dps_saying("fix-topic", a_publish("$dps/registrations/GET/none")), enrolled("fix-topic"), is_instead=True
    ),
    "dps.username_invalid": Row(
        lambda desk: desk.mqtt(a_connect("fix-user", "/registrations/")), enrolled("fix-user"), is_instead=True
    ),
}


def asking(query: str, **headers: str) -> Act:
    return rest("IOTHUB", "POST", "/devices/query", {"query": query}, **headers)


def job(method: str, path: str, **changed: object) -> Act:
    """Ask for a scheduled job that updates twins, a day ahead."""
    begins = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    update = {"tags": {"a": 1}, "etag": "*"}
    body = {"type": "scheduleUpdateTwin", "updateTwin": update, "queryCondition": "*", "startTime": begins}
    return rest("IOTHUB", method, f"/jobs/v2{path}", body | changed if method == "PUT" else None)


def routing(*lines: str) -> Act:
    return typing(*(f"birthmark hub {line}" for line in lines))


def put_aside(desk: Desk) -> None:
    """Have a message leave by a route to where it is not taken."""
    routing("device create fix-failed --by-ca")(desk)
    deadline = time.monotonic() + 20
    while not any(row["code"] == "iothub.route_failed" for row in desk.server.rows("why", "--limit", "1000")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    raise RefusedError("it dead-lettered")


HUB: Mapping[str, Row] = {
    "iothub.route_invalid": Row(routing("route create 'a b' --endpoint events"), is_instead=True),
    "iothub.route_condition": Row(
        routing("route create fix-open --endpoint events --condition 'a ='"), is_instead=True
    ),
    "iothub.route_source_not_served": Row(
        routing("route create fix-source --endpoint events --source DigitalTwinChangeEvents"), is_instead=True
    ),
    "iothub.endpoint_invalid": Row(routing("endpoint create fix-up --folder ../up"), is_instead=True),
    "iothub.route_name_taken": Row(
        routing("endpoint create FIX-TWICE --folder again"),
        routing("endpoint create fix-twice --folder once"),
        is_instead=True,
    ),
    "iothub.unknown_route": Row(routing("route show fix-none"), is_instead=True),
    "iothub.unknown_endpoint": Row(routing("route create fix-lost --endpoint fix-nowhere"), is_instead=True),
    "iothub.route_failed": Row(
        put_aside,
        lambda desk: routing(
            f"endpoint create fix-failed --webhook {desk.scene.environment['FIX_WEBHOOKS']}/gone",
            "route create fix-failed --endpoint fix-failed --source DeviceLifecycleEvents",
        )(desk),
        is_instead=True,
    ),
    "iothub.too_many_routes": Row(
        routing("endpoint create fix-many --folder many --hub fix-many"),
        steps(
            routing("create fix-many --host fix-many.example"),
            typing(
                "for n in 0 1 2 3 4 5 6 7 8 9; do birthmark hub endpoint create n$n --folder many --hub fix-many; done"
            ),
        ),
        is_instead=True,
    ),
    "iothub.endpoint_in_use": Row(
        routing("endpoint rm fix-used --yes"),
        routing("endpoint create fix-used --folder used", "route create fix-user --endpoint fix-used"),
        is_instead=True,
    ),
    "iothub.body_invalid": Row(
        rest("IOTHUB", "PUT", "/devices/fix-hub-body", {"deviceId": "another"}), is_instead=True
    ),
    "iothub.device_disabled": Row(
        hub_saying("fix-disabled"),
        steps(in_hub("fix-disabled"), typing("birthmark hub device disable fix-disabled")),
    ),
    "iothub.device_exists": Row(
        rest("IOTHUB", "PUT", "/devices/fix-hub-there", {"deviceId": "fix-hub-there"}),
        in_hub("fix-hub-there"),
        is_instead=True,
    ),
    "iothub.device_held": Row(
        lambda desk: desk.type(REGISTER),
        typing(
            "birthmark hub device create fix-held; birthmark ca init --name Held --dir held",
            "birthmark ca issue fix-held --dir held",
            "export X509_CERT_FILE=fix-held.cert.pem X509_KEY_FILE=fix-held.key.pem",
            "birthmark dps ca create fix-held held/issuing.pem --verified",
            "birthmark device enroll-group fix-held --ca-name fix-held",
        ),
    ),
    "iothub.device_id_invalid": Row(rest("IOTHUB", "PUT", "/devices/a%20b", {"deviceId": "a b"}), is_instead=True),
    "iothub.no_keys": Row(
        typing("birthmark hub device key fix-no-keys"),
        typing("birthmark hub device create fix-no-keys --by-ca"),
        is_instead=True,
    ),
    "iothub.etag_mismatch": Row(
        rest("IOTHUB", "DELETE", "/devices/fix-hub-etag", If_Match='"old"'), in_hub("fix-hub-etag"), is_instead=True
    ),
    "iothub.query_invalid": Row(asking("SELECT * FROM devices WHERE"), is_instead=True),
    "iothub.collection_not_served": Row(asking("SELECT * FROM devices.streams"), is_instead=True),
    "iothub.job_invalid": Row(job("PUT", "/wrong", type="export"), is_instead=True),
    "iothub.job_exists": Row(job("PUT", "/taken"), job("PUT", "/taken"), is_instead=True),
    "iothub.unknown_job": Row(job("GET", "/nothing"), is_instead=True),
    "iothub.job_ended": Row(
        job("POST", "/over/cancel"), steps(job("PUT", "/over"), job("POST", "/over/cancel")), is_instead=True
    ),
    "iothub.query_marker_invalid": Row(asking("SELECT * FROM devices", x_ms_continuation="old"), is_instead=True),
    "iothub.batch_invalid": Row(
        rest(
            "IOTHUB",
            "POST",
            "/devices/fix-batch/messages/events",
            {},
            Content_Type="application/vnd.microsoft.iothub.json",
        ),
        in_hub("fix-batch"),
        is_instead=True,
    ),
    "iothub.c2d_invalid": Row(
        rest("IOTHUB", "POST", "/devices/fix-loud/messages/deviceBound", {}, iothub_ack="loud"),
        in_hub("fix-loud"),
        is_instead=True,
    ),
    "iothub.device_not_online": Row(
        rest("IOTHUB", "POST", "/twins/fix-away/methods", {"methodName": "x"}), in_hub("fix-away"), is_instead=True
    ),
    "iothub.inbox_full": Row(
        rest("IOTHUB", "POST", "/devices/fix-full/messages/deviceBound", {}),
        steps(in_hub("fix-full"), mailed("fix-full")),
    ),
    "iothub.lock_lost": Row(rest("IOTHUB", "DELETE", "/messages/serviceBound/feedback/unknown"), is_instead=True),
    "iothub.method_invalid": Row(
        rest("IOTHUB", "POST", "/twins/fix-call/methods", {"methodName": "a/b"}), in_hub("fix-call"), is_instead=True
    ),
    "iothub.method_answer_invalid": Row(called("fix-mumbles", b"no JSON"), in_hub("fix-mumbles"), is_instead=True),
    "iothub.method_timeout": Row(called("fix-silent"), in_hub("fix-silent"), is_instead=True),
    "iothub.digital_twin_patch": Row(
        rest("IOTHUB", "PATCH", "/digitaltwins/fix-digital", [{"op": "move", "path": "/a", "from": "/b"}]),
        in_hub("fix-digital"),
        is_instead=True,
    ),
    "iothub.twin_invalid": Row(
        rest("IOTHUB", "PATCH", "/twins/fix-twin", {"tags": {"a.b": 1}}), in_hub("fix-twin"), is_instead=True
    ),
    "iothub.twin_version": Row(
        rest("IOTHUB", "PATCH", "/twins/fix-version", {"tags": {"a": 1}}, If_Match='"old"'),
        in_hub("fix-version"),
        is_instead=True,
    ),
    "iothub.message_too_large": misuse("size", _EVENTS, bytes(262145)),
    "iothub.client_id_mismatch": Row(
        lambda desk: desk.mqtt(
            a_connect("another", f"{desk.scene.environment['PROVISIONING_HOST']}/fix-hub-id/?api-version=2021-04-12")
        ),
        in_hub("fix-hub-id"),
        is_instead=True,
    ),
    "sas.policy_missing": Row(lambda desk: desk.type("birthmark hub key --policy nobody"), is_instead=True),
    "iothub.unknown_configuration": Row(rest("IOTHUB", "GET", "/configurations/fix-none"), is_instead=True),
    "iothub.configuration_invalid": Row(
        typing("birthmark hub configuration create fix-wrong --desired '{\"a b\": 1}'"), is_instead=True
    ),
    "iothub.configuration_exists": Row(
        typing("birthmark hub configuration create fix-made --desired '{\"a\": 2}'"),
        typing("birthmark hub configuration create fix-made --desired '{\"a\": 1}'"),
        is_instead=True,
    ),
    "iothub.configuration_etag": Row(
        rest("IOTHUB", "DELETE", "/configurations/fix-changed", If_Match='"old"'),
        typing("birthmark hub configuration create fix-changed --desired '{\"a\": 1}'"),
        is_instead=True,
    ),
    "iothub.too_many_configurations": Row(
        typing("birthmark hub configuration create more --desired '{\"a\": 1}' --hub fix-free"),
        typing(
            "birthmark hub create fix-free --host fix-free.example",
            "birthmark hub tier fix-free F1",
            "for n in $(seq 20); do birthmark hub configuration create c$n --desired '{\"a\": 1}' --hub fix-free; done",
        ),
        is_instead=True,
    ),
    "iothub.unknown_module": Row(rest("IOTHUB", "GET", "/devices/fix-module/modules/camera"), in_hub("fix-module")),
    "iothub.module_exists": Row(
        rest("IOTHUB", "PUT", "/devices/fix-twice/modules/camera", {}), with_module("fix-twice"), is_instead=True
    ),
    "iothub.module_etag": Row(
        rest("IOTHUB", "DELETE", "/devices/fix-etag/modules/camera", If_Match='"old"'),
        with_module("fix-etag"),
        is_instead=True,
    ),
    "iothub.too_many_modules": Row(
        rest("IOTHUB", "PUT", "/devices/fix-fifty/modules/m50", {}),
        steps(
            in_hub("fix-fifty"),
            *(rest("IOTHUB", "PUT", f"/devices/fix-fifty/modules/m{number}", {}) for number in range(50)),
        ),
        is_instead=True,
    ),
    "iothub.no_credentials": Row(hub_saying("fix-bare", as_device=False), in_hub("fix-bare"), is_instead=True),
    "iothub.operation_not_served": Row(rest("IOTHUB", "PATCH", "/jobs"), is_instead=True),
    "iothub.policy_refused": Row(
        rest("IOTHUB", "GET", "/devices"),
        typing('export IOTHUB_CONNECTION_STRING="${IOTHUB_CONNECTION_STRING/KeyName=iothubowner/KeyName=device}"'),
    ),
    "iothub.property_bag_invalid": misuse("bag", _EVENTS + "&".join(f"a{n}=b" for n in range(70))),
    "iothub.qos_not_served": misuse("qos", _EVENTS, qos=2),
    "iothub.thumbprint_mismatch": Row(
        hub_saying("fix-renewed"),
        steps(
            device("fix-renewed-at-first"),
            typing(
                "birthmark ca init --name Renewed --dir own",
                "birthmark dps ca create fix-renewed own/issuing.pem; "
                "birthmark dps ca verify fix-renewed --without-proof",
                "birthmark device enroll-group fix-renewed --ca-name fix-renewed",
                "birthmark ca issue fix-renewed --dir own",
                f"X509_CERT_FILE=fix-renewed.cert.pem X509_KEY_FILE=fix-renewed.key.pem {REGISTER}",
                "rm fix-renewed.*; birthmark ca issue fix-renewed --dir own",
                "export X509_CERT_FILE=fix-renewed.cert.pem X509_KEY_FILE=fix-renewed.key.pem",
            ),
            lambda desk: desk.use_device("fix-renewed.cert.pem", "fix-renewed.key.pem"),
        ),
    ),
    "iothub.topic_not_served": misuse("topic", "devices/another/messages/events/"),
    "iothub.will_invalid": Row(
        hub_saying("fix-will", will="devices/another/messages/events/"), in_hub("fix-will"), is_instead=True
    ),
    "iothub.username_invalid": Row(
        lambda desk: desk.mqtt(a_connect("fix-user", "/x/?api-version=2021-04-12")), is_instead=True
    ),
}


def an_hour_ago(desk: Desk) -> None:
    """Sign with a clock that is late."""
    with pytest.MonkeyPatch.context() as patch:
        earlier = datetime.now(UTC) - timedelta(hours=1)
        patch.setattr("botocore.crt.auth.get_current_datetime", lambda **_: earlier)
        desk.iot.list_things()


_LIST = ("PROVISIONING", "POST", "/enrollments/query", {"query": "SELECT * FROM enrollments"})

SIGNATURES: Mapping[str, Row] = {
    "sas.expired": Row(
        rest("IOTHUB", "GET", "/devices", token=lambda desk: a_token(desk, "IOTHUB", seconds=-600)), is_instead=True
    ),
    "sas.malformed": Row(rest(*_LIST, token="SharedAccessSignature sr=a"), is_instead=True),
    "sas.wrong_resource": Row(
        rest(*_LIST, token=lambda desk: a_token(desk, "PROVISIONING", "elsewhere.example")), is_instead=True
    ),
    "sigv4.malformed": Row(
        lambda desk: desk.raw(
            b"GET /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: AWS4-HMAC-SHA256 Credential=a\r\n\r\n"
        ),
        is_instead=True,
    ),
    "sigv4.clock_skew": Row(an_hour_ago, is_instead=True),
    "sigv4.wrong_service": Row(
        lambda desk: desk.type("aws sts get-caller-identity --endpoint-url $AWS_ENDPOINT_URL_IOT"), is_instead=True
    ),
    "sigv4.missing": Row(lambda desk: desk.type("aws iot list-things --no-sign-request"), is_instead=True),
}
