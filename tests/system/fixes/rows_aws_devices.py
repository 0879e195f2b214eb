"""Devices at AWS IoT, over MQTT."""

import contextlib
from collections.abc import Callable, Mapping

from fixes.desk import Desk, RefusedError, Row, a_connect, a_publish, steps
from fixes.rows_aws import arn_of, call, device, id_of, registered

from support.aws.device import document, statement

_ANY = document(statement("iot:*"))
_PREFIX = "fix-mqtt-"


def saying(*packets: bytes, client_id: str = "fix-client") -> Callable[[Desk], None]:
    return lambda desk: desk.mqtt(a_connect(client_id), *packets)


def crowd(desk: Desk) -> None:
    """Connect very often at once by one name, to a stored session."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(desk.tls(8883)) for _ in range(40)]
        for sock in socks:
            sock.sendall(a_connect("fix-crowd", clean=False))
        for sock in socks:
            sock.settimeout(10)
            if not sock.recv(4096):
                raise RefusedError


def allowed(name: str) -> Callable[[Desk], None]:
    """Make a device that may do everything."""
    return steps(
        registered(name),
        call("create_policy", policyName=name, policyDocument=_ANY),
        call("attach_policy", policyName=name, target=arn_of),
    )


def misuse(name: str, *packets: bytes, client_id: str = "fix-client") -> Row:
    return Row(saying(*packets, client_id=client_id), allowed(_PREFIX + name), is_instead=True)


def report(desk: Desk) -> None:
    """Report as a stock agent does: the connection goes on, and the report is dropped."""
    saying(a_publish("$aws/things/fix-report/defender/metrics/json"), client_id="fix-report")(desk)
    raise RefusedError


DEVICES: Mapping[str, Row] = {
    "awsiot.report_dropped": Row(report, allowed("fix-report"), is_instead=True),
    "awsiot.certificate_inactive": Row(
        saying(),
        steps(allowed("fix-inactive"), call("update_certificate", certificateId=id_of, newStatus="INACTIVE")),
    ),
    "awsiot.certificate_unknown": Row(
        saying(client_id="fix-unknown"), device("fix-unknown"), then=["awsiot.policy_denied"]
    ),
    "awsiot.client_id_invalid": misuse("id", client_id="x" * 129),
    "awsiot.no_certificate": Row(saying(client_id="fix-nobody"), lambda desk: desk.type("true"), is_instead=True),
    "awsiot.payload_too_large": misuse("size", a_publish("a", bytes(131073))),
    "awsiot.policy_denied": Row(saying(client_id="fix-denied"), registered("fix-denied")),
    "awsiot.qos_not_served": misuse("qos", a_publish("a", qos=2)),
    "awsiot.reserved_topic_not_served": misuse("reserved", a_publish("$aws/things/a/streams/s/get/json")),
    "broker.session_taken": Row(crowd, allowed("fix-crowd"), is_instead=True),
    "awsiot.topic_invalid": misuse("topic", a_publish("a/b/c/d/e/f/g/h/i")),
}
