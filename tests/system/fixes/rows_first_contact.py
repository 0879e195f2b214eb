"""Devices that AWS IoT has never seen: by a CA on record, by a claim, in bulk."""

import base64
import contextlib
import json
import shutil
import sqlite3
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from fixes.desk import Desk, RefusedError, Row, a_connect, a_publish, a_subscribe, steps
from fixes.rows_aws import arn_of, call, id_of, pem_of
from fixes.rows_aws_devices import allowed, saying

from support.aws.device import ARN, document, statement
from support.aws.function_server import ARN as FUNCTION
from support.pki.other_form import other_form
from support.pki.pki_builders import a_ca, a_csr

BOUNDS = "[aws]\nmax_per_ca = 2\nmax_new_per_second = 6\n"
"""What a server's configuration says, that the bounds are within reach."""
_ROLE = "arn:aws:iam::000000000000:role/fix"
_CAS = {
    name: a_ca(f"First contact {name}", now=datetime.now(UTC))
    for name in ("off", "now", "pending", "other", "taken", "full", "fast", "inactive")
}
_POLICY = json.loads(document(statement("iot:Connect", f"{ARN}client/*")))


def _template(name: str, **more: Any) -> dict[str, Any]:
    """Return a template whose thing has the name that this parameter says."""
    return {
        "Parameters": {name: {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": name}}, **more},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": _POLICY}},
        },
    }


_BY_NAME = json.dumps(_template("AWS::IoT::Certificate::CommonName"))
_JITP: dict[str, Any] = {"registrationConfig": {"templateBody": _BY_NAME}}


def on_record(name: str, *, registers: bool = True, **more: Any) -> Callable[[Desk], Any]:
    """Put a CA on record whose devices register by themselves, where it `registers`."""
    return call(
        "register_ca_certificate",
        caCertificate=_CAS[name].certificate.pem(),
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=registers,
        **more,
    )


def new_device(ca: str, name: str) -> Callable[[Desk], object]:
    """Make a device of a CA that nobody has seen."""
    return lambda desk: desk.make_device(name, ca=_CAS[ca], now=datetime.now(UTC))


def refused(act: Callable[[Desk], object]) -> Callable[[Desk], None]:
    """Do what is refused, among the preparations."""

    def run(desk: Desk) -> None:
        try:
            act(desk)
        except (RefusedError, ClientError, OSError):
            return
        raise AssertionError("was not refused")

    return run


def with_session(client_id: str) -> Callable[[Desk], None]:
    """Connect once, and leave a session."""

    def run(desk: Desk) -> None:
        with desk.tls(8883) as sock:
            sock.sendall(a_connect(client_id, clean=False))
            assert sock.recv(4) == b"\x20\x02\x00\x00"

    return run


def by_the_other_form(desk: Desk) -> None:
    """Write the device's certificate in its other form."""
    assert desk.device is not None
    made = other_form(desk.device.holder.certificate, _CAS["other"].private_key)
    desk.device.certificate_file.write_text(made.pem())


def crowd(ca: str, count: int) -> Callable[[Desk], None]:
    """Let so many new devices of a CA come one right after the other."""

    def act(desk: Desk) -> None:
        came = [
            replace(desk, device=desk.make_device(f"fix-{ca}-{number}", ca=_CAS[ca], now=datetime.now(UTC)))
            for number in range(count)
        ]
        for one in came:
            refused(saying(client_id=one.device.name if one.device else ""))(one)
        raise RefusedError

    return act


# ---- by claim


def with_template(name: str, hook: str | None = None, **more: Any) -> Callable[[Desk], Any]:
    asked = {} if hook is None else {"preProvisioningHook": {"targetArn": f"{FUNCTION}{hook}"}}
    body = json.dumps(_template("SerialNumber"))
    return call(
        "create_provisioning_template",
        **{"templateName": name, "templateBody": body, "enabled": True, "provisioningRoleArn": _ROLE, **asked, **more},
    )


def with_claim(name: str) -> Callable[[Desk], None]:
    """Make a claim certificate that may do all that one may."""
    return steps(allowed(name), lambda desk: desk.type(f"birthmark aws certificate claim {id_of(desk)}"))


class Asking:
    """A claim's connection: it asks, and hears what it is told."""

    def __init__(self, desk: Desk, client_id: str) -> None:
        self._sock: ssl.SSLSocket = desk.tls(8883)
        self._sock.settimeout(20)
        self._sock.sendall(a_connect(client_id))
        if self._packet()[1][1]:
            raise RefusedError

    def ask(self, topic: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is accepted. Raise `RefusedError`."""
        self._sock.sendall(a_subscribe(f"{topic}/accepted", f"{topic}/rejected"))
        self._sock.sendall(a_publish(topic, json.dumps(body).encode()))
        while True:
            first, packet = self._packet()
            if first & 0xF0 == 0x30:
                length = int.from_bytes(packet[:2])
                told, payload = packet[2 : 2 + length].decode(), packet[2 + length + (2 if first & 0x06 else 0) :]
                if told.endswith("/rejected"):
                    raise RefusedError(payload)
                found: dict[str, Any] = json.loads(payload)
                return found

    def close(self) -> None:
        self._sock.close()

    def _packet(self) -> tuple[int, bytes]:
        first, length, shift = self._take(1)[0], 0, 0
        while True:
            digit = self._take(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return first, self._take(length)

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self._sock.recv(count - len(data))):
                raise RefusedError("the connection was closed")
            data += more
        return data


_CSR = "$aws/certificates/create-from-csr/json"


def a_request() -> dict[str, str]:
    text = base64.b64encode(a_csr("fix")).decode()
    return {
        "certificateSigningRequest": f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----"
    }


def provisioning(template: str, **parameters: str) -> Callable[[Desk], None]:
    """Ask for a certificate, and for what a template makes of it; with `token` for that of this token."""

    def act(desk: Desk) -> None:
        with contextlib.closing(Asking(desk, f"client-of-{template}")) as asking:
            token = parameters.pop("token", "") or asking.ask(_CSR, a_request())["certificateOwnershipToken"]
            asking.ask(
                f"$aws/provisioning-templates/{template}/provision/json",
                {"certificateOwnershipToken": token, "parameters": parameters},
            )

    return act


def owning_many(desk: Desk) -> None:
    with contextlib.closing(Asking(desk, "fix-many")) as asking:
        request = a_request()
        for _ in range(1001):  # too many in a second, or together where the machine is slow
            asking.ask(_CSR, request)


def unheard(desk: Desk) -> None:
    desk.mqtt(a_connect("fix-unheard"), a_publish(_CSR, json.dumps(a_request()).encode()))
    raise RefusedError


def by_https(desk: Desk) -> None:
    host = desk.server.endpoints["aws"]["data_endpoint"]
    head = f"POST /topics/{_CSR.replace('$', '%24')}?qos=1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n"
    desk.raw(f"{head}Connection: close\r\n\r\n{{}}".encode())


def trusted(desk: Desk) -> None:
    """Make a claim for a trusted user, and let its five minutes be over."""
    made = desk.iot.create_provisioning_claim(templateName="fix-over")
    desk.make_device("fix-over")
    desk.path("fix-over.pem").write_text(made["certificatePem"])
    desk.path("fix-over.key").write_text(made["keyPair"]["PrivateKey"])
    desk.scene.environment["CLAIM"] = made["certificateId"]


def over(desk: Desk) -> None:
    with contextlib.closing(sqlite3.connect(desk.server.data / "birthmark.db", timeout=10)) as database, database:
        database.execute("update aws_certificates set until = 1 where id = ?", (desk.scene.environment["CLAIM"],))
    saying(client_id="fix-over")(desk)


# ---- templates


def five_versions(desk: Desk) -> None:
    for _ in range(4):
        add_version("fix-versions")(desk)


def add_version(name: str) -> Callable[[Desk], Any]:
    return call(
        "create_provisioning_template_version", templateName=name, templateBody=json.dumps(_template("SerialNumber"))
    )


def many_templates(desk: Desk) -> None:
    """Make templates until there is no room, and remove them."""
    made = []
    try:
        for number in range(257):
            with_template(f"fix-many-{number}")(desk)
            made.append(f"fix-many-{number}")
    finally:
        for name in made:
            desk.iot.delete_provisioning_template(templateName=name)


def registering(name: str, **more: Any) -> Callable[[Desk], Any]:
    """Register a thing by a template with these settings for one that is there."""
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name, "AttributePayload": {"site": "there"}}}
    return call("register_thing", templateBody=json.dumps({"Resources": {"thing": {**thing, **more}}}))


# ---- in bulk


def start(key: str = "devices.json", bucket: str = "fix") -> Callable[[Desk], Any]:
    body = {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}}},
    }
    return call(
        "start_thing_registration_task",
        templateBody=json.dumps(body),
        inputFileBucket=bucket,
        inputFileKey=key,
        roleArn=_ROLE,
    )


def with_lines(count: int) -> Callable[[Desk], None]:
    def run(desk: Desk) -> None:
        folder = desk.server.data / "buckets" / "fix"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "devices.json").write_text('{"Name": "not a name"}\n' * count)

    return run


def eleven_tasks(desk: Desk) -> None:
    """Start bulk registrations that take their time until there is no room, and stop them."""
    made: list[str] = []
    try:
        while len(made) < 11:
            made += [start()(desk)["taskId"]]
    finally:
        for task in made:
            desk.iot.stop_thing_registration_task(taskId=task)


def a_stopped_task(desk: Desk) -> None:
    desk.scene.environment["TASK"] = start()(desk)["taskId"]
    desk.iot.stop_thing_registration_task(taskId=desk.scene.environment["TASK"])


def no_bucket(desk: Desk) -> None:
    shutil.rmtree(desk.server.data / "buckets", ignore_errors=True)


FIRST_CONTACT: Mapping[str, Row] = {
    "awsiot.first_contact_off": Row(
        saying(client_id="fix-off"),
        steps(new_device("off", "fix-off"), on_record("off", registers=False)),
        then=["awsiot.policy_denied"],
    ),
    "awsiot.ca_inactive": Row(
        call("register_certificate", certificatePem=pem_of, status="ACTIVE"),
        steps(
            new_device("inactive", "fix-inactive"),
            on_record("inactive", registers=False),
            lambda desk: desk.iot.update_ca_certificate(
                certificateId=_CAS["inactive"].certificate.thumbprint.hex(), newStatus="INACTIVE"
            ),
        ),
    ),
    "awsiot.registered_now": Row(
        saying(client_id="fix-now"), steps(new_device("now", "fix-now"), on_record("now", **_JITP))
    ),
    "awsiot.registered_pending": Row(
        saying(client_id="fix-pending"),
        steps(new_device("pending", "fix-pending"), on_record("pending")),
        then=["awsiot.policy_denied"],
    ),
    "awsiot.other_form": Row(
        saying(client_id="fix-other"),
        steps(
            new_device("other", "fix-other"),
            on_record("other", **_JITP),
            refused(saying(client_id="fix-other")),
            by_the_other_form,
        ),
        is_instead=True,
    ),
    "awsiot.thing_taken": Row(
        saying(client_id="fix-taken"),
        steps(
            on_record("taken", **_JITP),
            new_device("taken", "fix-taken"),
            refused(saying(client_id="fix-taken")),
            new_device("taken", "fix-taken"),
        ),
        then=["awsiot.registered_now"],
    ),
    "awsiot.ca_full": Row(crowd("full", 3), on_record("full", **_JITP), is_instead=True),
    "awsiot.ca_too_fast": Row(crowd("fast", 20), on_record("fast", **_JITP), is_instead=True),
    "awsiot.answer_unheard": Row(unheard, with_claim("fix-unheard"), is_instead=True),
    "awsiot.nobody_to_answer": Row(by_https, allowed("fix-https"), is_instead=True),
    "awsiot.ownership_token": Row(
        provisioning("fix-token", token="of-nobody", SerialNumber="fix-token"),
        steps(with_template("fix-token"), with_claim("fix-token")),
        is_instead=True,
    ),
    "awsiot.registration_failed": Row(
        provisioning("fix-failed"), steps(with_template("fix-failed"), with_claim("fix-failed")), is_instead=True
    ),
    "awsiot.hook_refused": Row(
        provisioning("fix-hook", SerialNumber="fix-hook"),
        steps(with_template("fix-hook", "forbidding"), with_claim("fix-hook")),
        is_instead=True,
    ),
    "awsiot.too_many_owned": Row(owning_many, with_claim("fix-many"), is_instead=True),
    "awsiot.claim_client_id": Row(
        saying(client_id="fix-theirs"),
        steps(
            allowed("fix-theirs"),
            call("create_thing", thingName="fix-theirs"),
            call("attach_thing_principal", thingName="fix-theirs", principal=arn_of),
            with_session("fix-theirs"),
            with_claim("fix-claims"),
        ),
        is_instead=True,
    ),
    "awsiot.claim_over": Row(over, steps(with_template("fix-over"), trusted), is_instead=True),
    "awsiot.template_invalid": Row(with_template("fix-invalid", templateBody="{}"), is_instead=True),
    "awsiot.template_exists": Row(with_template("fix-there"), with_template("fix-there"), is_instead=True),
    "awsiot.template_in_use": Row(
        call("delete_provisioning_template", templateName="fix-used"),
        steps(with_template("fix-used"), add_version("fix-used")),
        is_instead=True,
    ),
    "awsiot.template_versions": Row(add_version("fix-versions"), steps(with_template("fix-versions"), five_versions)),
    "awsiot.unknown_template": Row(call("describe_provisioning_template", templateName="fix-nobody"), is_instead=True),
    "awsiot.resource_conflicts": Row(
        registering("fix-conflict", OverrideSettings={"AttributePayload": "FAIL"}),
        call("create_thing", thingName="fix-conflict"),
        is_instead=True,
    ),
    "awsiot.bucket_key": Row(start(key="../fix"), no_bucket, is_instead=True),
    "awsiot.bucket_file": Row(start(key="nothing.json"), is_instead=True),
    "awsiot.unknown_task": Row(call("describe_thing_registration_task", taskId="fix-nobody"), is_instead=True),
    "awsiot.task_over": Row(
        lambda desk: desk.iot.stop_thing_registration_task(taskId=desk.scene.environment["TASK"]),
        steps(with_lines(50_000), a_stopped_task),
        is_instead=True,
    ),
    "awsiot.task_limit": Row(eleven_tasks, with_lines(50_000), is_instead=True),
    "awsiot.template_limit": Row(many_templates, is_instead=True),
}
