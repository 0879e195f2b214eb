"""Device shadows by the vendor's own clients: awsiotsdk, boto3, the AWS CLI; and by mosquitto and curl."""

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import birthmark
from support.aws.clients import until
from support.aws.device import ARN, DeviceProcess, Enrolled, document, statement
from support.server.servers import RunningServer, clean_environment

pytestmark = pytest.mark.serve

Enroll = Callable[..., Enrolled]
PAGE = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "aws-iot.md"
# The policy that the page shows: a thing's own shadows and no others.
OWN_SHADOWS = json.loads(PAGE.read_text().split("```json\n")[1].partition("```")[0])["Statement"]


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-data")


def read(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(answer["payload"].read()))


def update(data: Any, thing: str, name: str | None = None, version: int | None = None, **state: Any) -> dict[str, Any]:
    payload = {"state": state} | ({} if version is None else {"version": version})
    named = {} if name is None else {"shadowName": name}
    return read(data.update_thing_shadow(thingName=thing, payload=json.dumps(payload), **named))


def ask(device: DeviceProcess, operation: str, **fields: Any) -> dict[str, Any]:
    return device("ask", operation=operation, fields=fields)


@pytest.mark.parametrize("client_kind", [5, 3, "old"])
@pytest.mark.parametrize("shadow", [None, "config"])
def test_a_thing_keeps_its_shadow(enroll: Enroll, client_kind: int | str, shadow: str | None) -> None:
    name = f"shadow-{client_kind}-{shadow}"
    kind, label = ("shadow", name) if shadow is None else ("named_shadow", f"{name}~{shadow}")
    where = {"thing_name": name} | ({} if shadow is None else {"shadow_name": shadow})
    with enroll(name, *OWN_SHADOWS).shadows(client_kind) as device:
        device("connect")
        refused = ask(device, f"get_{kind}", **where)["refused"]
        assert (refused["code"], refused["message"]) == (404, f"No shadow exists with name: '{label}'")
        made = ask(device, f"update_{kind}", **where, state={"desired": {"on": True, "n": [1]}, "reported": {"on": 0}})
        assert made["ok"]["version"] == 1
        assert made["ok"]["state"] == {"desired": {"on": True, "n": [1]}, "reported": {"on": 0}}
        assert ask(device, f"update_{kind}", **where, state={"reported": {"on": True}}, version=1)["ok"]["version"] == 2
        refused = ask(device, f"update_{kind}", **where, state={"reported": {"on": False}}, version=1)["refused"]
        assert (refused["code"], refused["message"]) == (409, "Version conflict")
        assert ask(device, f"update_{kind}", **where, state={"reported": None})["ok"]["version"] == 3
        whole = ask(device, f"get_{kind}", **where)["ok"]
        assert whole["state"] == {"desired": {"on": True, "n": [1]}, "delta": {"on": True, "n": [1]}}
        at = whole["metadata"]["desired"]["on"]["timestamp"]
        assert abs(at - time.time()) < 60
        assert whole["metadata"]["desired"]["n"] == [{"timestamp": at}]
        assert ask(device, f"delete_{kind}", **where)["ok"]["version"] == 3
        assert ask(device, f"delete_{kind}", **where)["refused"]["code"] == 404
        assert ask(device, f"update_{kind}", **where, state={"reported": {"a": 1}})["ok"]["version"] == 4


@pytest.mark.parametrize(("named", "shadow"), [("", None), ("named_", "config")])
def test_a_device_hears_what_is_desired_of_it(enroll: Enroll, data: Any, named: str, shadow: str | None) -> None:
    name = f"hears-{named}x"
    where = {"thing_name": name} | ({} if shadow is None else {"shadow_name": shadow})
    with enroll(name, *OWN_SHADOWS).shadows(5) as device:
        device("connect")
        for operation in (f"{named}shadow_delta_updated", f"{named}shadow_updated"):
            assert device("stream", operation=operation, fields=where) == {"ok": None}
        assert update(data, name, shadow, desired={"interval": 5})["version"] == 1
        documents, delta = device("event")["ok"], device("event")["ok"]
        assert documents["current"]["state"] == {"desired": {"interval": 5}}
        assert documents["previous"]["version"] == 0
        assert (delta["version"], delta["state"]) == (1, {"interval": 5})
        assert ask(device, f"update_{named}shadow", **where, state={"reported": {"interval": 5}})["ok"]["version"] == 2
        assert device("event")["ok"]["current"]["version"] == 2
        update(data, name, shadow, desired={"interval": 6})
        assert [device("event")["ok"].get("version") for _ in range(2)] == [None, 3]


def test_everybody_who_may_gets_the_answers_in_order(enroll: Enroll, server: RunningServer, data: Any) -> None:
    thing = enroll("listening")
    common = ["-h", thing.files["endpoint"], "-p", "8883", "--cafile", thing.files["ca"]]
    common += ["--cert", thing.files["certificate"], "--key", thing.files["key"]]
    listen = ["stdbuf", "-oL", "mosquitto_sub", *common, "-i", "listening", "-q", "1", "-C", "7", "-W", "20", "-d"]
    listener = subprocess.Popen(
        [*listen, "-t", "$aws/things/+/shadow/#", "-F", "got %t %p"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert listener.stdout is not None
    while "SUBACK" not in (line := listener.stdout.readline()):
        assert line, "mosquitto_sub ended"
    update(data, "any-thing", desired={"a": 1})  # registered or not
    update(data, "any-thing", reported={"a": 1})
    data.delete_thing_shadow(thingName="any-thing")
    data.publish(topic="$aws/things/any-thing/shadow/delete", qos=1, payload=b'{"clientToken": "t"}')
    got = [line.split(" ", 2) for line in listener.stdout.read().splitlines() if line.startswith("got ")]
    listener.wait(20)
    listener.stdout.close()
    assert [topic.removeprefix("$aws/things/any-thing/shadow/") for _, topic, _ in got] == [
        "update/accepted",
        "update/documents",
        "update/delta",
        "update/accepted",
        "update/documents",
        "delete/accepted",
        "delete/rejected",
    ]
    last = json.loads(got[-1][2])
    assert last == {
        "code": 404,
        "message": "No shadow exists with name: 'any-thing'",
        "timestamp": last["timestamp"],
        "clientToken": "t",
    }
    assert server.why("any-thing")["code"] == "awsiot.shadow_missing"


def test_what_is_desired_waits_for_a_device_that_is_away(enroll: Enroll, server: RunningServer, data: Any) -> None:
    thing = enroll("away", *OWN_SHADOWS)
    topic = "$aws/things/away/shadow/update/delta"
    with thing.device(port=8883, clean=False) as device:
        device("connect")
        assert device("subscribe", topic=topic) == {"ok": 1}
        device("disconnect")
    update(data, "away", desired={"a": 1})
    server.kill()
    server.start()
    update(data, "away", desired={"a": 2})
    with thing.device(port=8883, clean=False) as device:
        assert device("connect") == {"ok": {"session_present": True}}
        deltas = [json.loads(device("receive")["ok"]["payload"]) for _ in range(2)]
    assert [(one["version"], one["state"]) for one in deltas] == [(1, {"a": 1}), (2, {"a": 2})]


def test_of_two_who_update_the_same_version_one_is_told_of_the_other(enroll: Enroll, data: Any) -> None:
    update(data, "contended", reported={"n": 0})
    others = [enroll(f"contender-{number}") for number in range(3)]
    won: list[int] = []

    def contend(thing: Enrolled) -> None:
        with thing.shadows(5) as device:
            device("connect")
            while len(won) < 12:
                known = ask(device, "get_shadow", thing_name="contended")["ok"]
                n = known["state"]["reported"]["n"] + 1
                done = ask(
                    device,
                    "update_shadow",
                    thing_name="contended",
                    state={"reported": {"n": n}},
                    version=known["version"],
                )
                if "ok" in done:
                    won.append(n)
                else:
                    assert done["refused"]["code"] == 409, done

    threads = [threading.Thread(target=contend, args=(thing,)) for thing in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(won) == list(range(1, len(won) + 1))  # no update was lost, none was made twice
    assert read(data.get_thing_shadow(thingName="contended"))["version"] == len(won) + 1


def test_a_device_touches_the_shadows_that_its_policy_names_and_no_others(
    enroll: Enroll, server: RunningServer
) -> None:
    with enroll("mine", *OWN_SHADOWS).shadows(5) as device:
        device("connect")
        assert device("publish", topic="$aws/things/mine/shadow/update", payload='{"state":{}}') == {"ok": 0}
        assert device("publish", topic="$aws/things/theirs/shadow/update", payload='{"state":{}}') == {"ok": 0x87}
        assert "iot:Publish" in server.why("mine")["cause"]
        assert device("publish", topic="$aws/things/theirs/shadow/get", payload="") == {"ok": 0x87}
        assert "ok" not in ask(device, "get_shadow", thing_name="theirs")
    with enroll("mine-v3", *OWN_SHADOWS).device(port=8883) as other:
        other("connect")
        assert "error" in other("subscribe", topic="$aws/things/mine/shadow/update/delta")
    # Without iot:Receive the shadow changes, and the device is not told.
    deaf = enroll("deaf", statement(["iot:Connect", "iot:Publish", "iot:Subscribe"]))
    with deaf.device(port=8883) as device:
        device("connect")
        device("subscribe", topic="$aws/things/deaf/shadow/#")
        assert device("publish", topic="$aws/things/deaf/shadow/update", payload='{"state":{}}') == {"ok": None}
        assert "error" in device("receive", timeout=1)


@pytest.mark.parametrize("topic", ["update/accepted", "update/delta", "get/rejected", "name/x/update/documents"])
def test_only_the_service_publishes_its_answers(enroll: Enroll, server: RunningServer, topic: str) -> None:
    name = f"forger-{topic.replace('/', '-')}"
    with enroll(name).device(port=8883) as device:
        device("connect")
        assert "error" in device("publish", topic=f"$aws/things/victim/shadow/{topic}", payload="{}", timeout=2)
    assert server.why(name)["code"] == "awsiot.reserved_topic_not_served"


def test_requests_and_messages_of_one_burst_keep_their_order(enroll: Enroll) -> None:
    with enroll("mixed").device(port=8883) as device:
        device("connect")
        for topic in ("mixed/t", "$aws/things/mixed/shadow/update/accepted"):
            device("subscribe", topic=topic)
        for number in range(3):
            device("publish", topic="mixed/t", payload=str(number))
            body = json.dumps({"state": {"reported": {"n": number}}})
            device("publish", topic="$aws/things/mixed/shadow/update", payload=body, qos=number % 2)
        got = [device("receive")["ok"] for _ in range(6)]
    assert [one["payload"] for one in got if one["topic"] == "mixed/t"] == ["0", "1", "2"]
    told = [json.loads(one["payload"]) for one in got if one["topic"] != "mixed/t"]
    assert [one["version"] for one in told] == [1, 2, 3]


def test_thousands_of_requests_that_come_at_once_are_answered(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("burst")
    context = ssl.create_default_context(cafile=thing.files["ca"])
    context.load_cert_chain(thing.files["certificate"], thing.files["key"])
    topic = b"$aws/things/burst/shadow/get"
    one = bytes([0x30, 2 + len(topic), 0, len(topic)]) + topic
    last = b"\x32\x08\x00\x01t\x00\x07end"
    with (
        socket.create_connection((server.address, 8883), 10) as raw,
        context.wrap_socket(raw, server_hostname=thing.files["endpoint"]) as sock,
    ):
        sock.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05burst")
        assert sock.recv(4) == b"\x20\x02\x00\x00"
        sock.sendall(one * 3000 + last)
        assert sock.recv(4) == b"\x40\x02\x00\x07"


@pytest.mark.parametrize(
    ("payload", "name", "status", "message"),
    [
        (b"{", "InvalidRequestException", 400, "Payload contains invalid json"),
        (b'{"desired":{}}', "InvalidRequestException", 400, "Missing required node: state"),
        (b'{"state":{},"version":7}', "ConflictException", 409, "Version conflict"),
        (b'{"state":{"reported":{"a":"' + b"x" * 33_000 + b'"}}}', "RequestEntityTooLargeException", 413, "exceeds"),
        (b'{"state":' * 65 + b"1" + b"}" * 65, "InvalidRequestException", 400, "invalid node: 'state'"),
        (b'{"state":{"desired":' + b'{"a":' * 65 + b"1" + b"}" * 67, "InvalidRequestException", 400, "too many levels"),
        (b'{"state":{"desired":{"a":"\xff"}}}', "UnsupportedDocumentEncodingException", 415, "UTF-8"),
    ],
)
def test_an_update_that_is_refused_has_the_exception_of_the_service(
    data: Any, payload: bytes, name: str, status: int, message: str
) -> None:
    with pytest.raises(ClientError) as caught:
        data.update_thing_shadow(thingName="refused", payload=payload)
    answer = caught.value.response
    assert answer["Error"]["Code"] == name
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert message in answer["Error"]["Message"]


def test_shadows_by_https(data: Any, iot: Any, server: RunningServer) -> None:
    with pytest.raises(data.exceptions.ResourceNotFoundException, match="No shadow exists with name: 'rest'"):
        data.get_thing_shadow(thingName="rest")
    with pytest.raises(data.exceptions.InvalidRequestException, match="Invalid Shadow name"):
        data.get_thing_shadow(thingName="rest", shadowName="$package")
    answer = update(data, "rest", desired={"a": {"b": 1}, "c": [1, {"d": 2}]})
    at = {"timestamp": answer["timestamp"]}
    assert answer == {
        "state": {"desired": {"a": {"b": 1}, "c": [1, {"d": 2}]}},
        "metadata": {"desired": {"a": {"b": at}, "c": [at, {"d": at}]}},
        "version": 1,
        **at,
    }
    for number in range(5):
        update(data, "rest", f"named-{number}", reported={"n": number})
    iot.create_thing(thingName="rest")
    iot.delete_thing(thingName="rest")  # its shadows stay
    first = data.list_named_shadows_for_thing(thingName="rest", pageSize=3)
    rest = data.list_named_shadows_for_thing(thingName="rest", pageSize=3, nextToken=first["nextToken"])
    assert [*first["results"], *rest["results"]] == [f"named-{number}" for number in range(5)]
    assert "nextToken" not in rest
    assert abs(rest["timestamp"] - time.time()) < 60
    assert read(data.get_thing_shadow(thingName="rest", shadowName="named-3"))["state"] == {"reported": {"n": 3}}
    assert read(data.delete_thing_shadow(thingName="rest", shadowName="named-3"))["version"] == 1
    with pytest.raises(data.exceptions.ResourceNotFoundException, match="'rest~named-3'"):
        data.delete_thing_shadow(thingName="rest", shadowName="named-3")
    assert len(data.list_named_shadows_for_thing(thingName="rest")["results"]) == 4
    assert data.list_named_shadows_for_thing(thingName="never-was")["results"] == []
    shown = json.loads(server.run("aws", "shadow", "rest", "--json").stdout)
    assert shown["state"]["delta"] == {"a": {"b": 1}, "c": [1, {"d": 2}]}


def test_the_aws_cli_and_our_own_read_and_write_the_same_shadow(server: RunningServer) -> None:
    def aws(*arguments: str) -> dict[str, Any]:
        line = ["aws", "iot-data", *arguments, "--thing-name", "by-cli", "/dev/stdout"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True, env=server.environment)
        return dict(json.JSONDecoder().raw_decode(done.stdout)[0])

    assert aws("update-thing-shadow", "--payload", '{"state":{"reported":{"a":1}}}')["version"] == 1
    wanted = server.run("aws", "shadow", "by-cli", "--desired", '{"a": 2, "b": null}', "--json")
    assert json.loads(wanted.stdout)["state"] == {"reported": {"a": 1}, "desired": {"a": 2}, "delta": {"a": 2}}
    assert aws("get-thing-shadow")["version"] == 2
    server.run("aws", "shadow", "by-cli", "--shadow-name", "other", "--desired", '{"x": 1}')
    assert aws("get-thing-shadow", "--shadow-name", "other")["state"]["desired"] == {"x": 1}
    server.run("aws", "shadow", "by-cli", "--delete")
    assert "No shadow exists" in server.attempt("aws", "shadow", "by-cli").stderr


class Device:
    """A device over HTTPS, by its certificate."""

    def __init__(self, server: RunningServer, thing: Enrolled) -> None:
        self._url = f"https://{server.endpoints['aws']['data_endpoint']}:8443"
        self._context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        self._context.load_cert_chain(thing.files["certificate"], thing.files["key"])

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        known = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self._url + path, body, known, method=method)
        try:
            with urllib.request.urlopen(request, context=self._context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["x-amzn-ErrorType"]


def test_a_device_asks_by_https_what_its_policy_allows(enroll: Enroll, server: RunningServer) -> None:
    verbs = ["iot:GetThingShadow", "iot:UpdateThingShadow", "iot:DeleteThingShadow", "iot:ListNamedShadowsForThing"]
    device = Device(server, enroll("https-1", statement(verbs, ARN + "thing/https-1")))
    path, body = "/things/https-1/shadow", b'{"state":{"reported":{"a":1}},"clientToken":"t"}'
    listed = "/api/things/shadow/ListNamedShadowsForThing/"
    assert device("GET", path) == (404, "ResourceNotFoundException")
    assert device("POST", path, body)[1]["clientToken"] == "t"
    assert device("POST", f"{path}?name=n", body)[1]["version"] == 1
    assert device("GET", path)[1]["state"] == {"reported": {"a": 1}}
    assert device("GET", listed + "https-1")[1]["results"] == ["n"]
    assert device("DELETE", f"{path}?name=n")[1]["version"] == 1
    assert device("GET", "/things/https-1") == (403, "MissingAuthenticationTokenException")  # of the control plane
    reader = Device(server, enroll("https-2", statement("iot:GetThingShadow", ARN + "thing/https-1")))
    assert reader("GET", path)[0] == 200
    for refused in (
        reader("POST", path, body),
        reader("DELETE", path),
        reader("GET", "/things/https-2/shadow"),
        reader("GET", listed + "https-1"),
        reader("GET", "/retainedMessage"),
        reader("GET", "/retainedMessage/a"),
        reader("POST", "/topics/$aws/things/https-1/shadow/update?qos=1", body),
    ):
        assert refused == (403, "ForbiddenException")
    until(lambda: "iot:Publish" in server.why("over HTTPS")["cause"])  # it is written a moment later


def test_a_header_over_https_names_no_thing_for_the_variables_of_policies(
    enroll: Enroll, server: RunningServer
) -> None:
    """Also reported of AWS, in aws-greengrass/aws-greengrass-shadow-manager#207."""
    own = statement("iot:GetThingShadow", ARN + "thing/${iot:Connection.Thing.ThingName}")
    device = Device(server, enroll("named-by-header", own))
    asked = device("GET", "/things/named-by-header/shadow", x_amzn_iot_thingname="named-by-header")
    assert asked == (403, "ForbiddenException")


def test_retained_messages_by_https(data: Any, enroll: Enroll, server: RunningServer) -> None:
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_retained_message(topic="kept/a b")
    named = [{"a": "1"}, {"b": "ä"}]
    data.publish(
        topic="kept/a b",
        qos=1,
        retain=True,
        payload=b"\x00hello",
        userProperties=json.dumps(named),
        contentType="text/plain",
        messageExpiry=600,
    )
    kept = data.get_retained_message(topic="kept/a b")
    assert (kept["topic"], kept["payload"], kept["qos"]) == ("kept/a b", b"\x00hello", 1)
    assert json.loads(kept["userProperties"]) == named
    assert abs(kept["lastModifiedTime"] / 1000 - time.time()) < 60
    for number in range(4):
        data.publish(topic=f"kept/{number}", qos=0, retain=True, payload=b"x" * number or b"-")
    pages = data.get_paginator("list_retained_messages").paginate(PaginationConfig={"PageSize": 2})
    found = {one["topic"]: one for page in pages for one in page["retainedTopics"]}
    assert found["kept/a b"]["payloadSize"] == 6
    assert {f"kept/{number}" for number in range(4)} <= found.keys()
    data.publish(topic="kept/0", qos=0, retain=True, payload=b"")
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_retained_message(topic="kept/0")
    data.publish(topic="kept/short", qos=1, retain=True, payload=b"x", messageExpiry=1)
    time.sleep(1.1)
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_retained_message(topic="kept/short")
    with pytest.raises(data.exceptions.InvalidRequestException, match="retained"):
        data.publish(topic="$aws/things/t/shadow/update", qos=1, retain=True, payload=b'{"state":{}}')
    reader = Device(
        server,
        enroll(
            "kept-1", statement("iot:GetRetainedMessage", ARN + "topic/kept/*"), statement("iot:ListRetainedMessages")
        ),
    )
    assert base64.b64decode(reader("GET", "/retainedMessage/kept%2F1")[1]["payload"]) == b"x"
    assert reader("GET", "/retainedMessage")[0] == 200
    assert reader("GET", "/retainedMessage/other") == (403, "ForbiddenException")


def test_a_publish_by_https_has_the_properties_of_mqtt_5(enroll: Enroll, data: Any) -> None:
    thing = enroll("five-http")
    common = ["-h", thing.files["endpoint"], "-p", "8883", "--cafile", thing.files["ca"]]
    common += ["--cert", thing.files["certificate"], "--key", thing.files["key"]]
    listen = ["stdbuf", "-oL", "mosquitto_sub", *common, "-V", "5", "-i", "five-http", "-q", "1", "-C", "1", "-d"]
    listener = subprocess.Popen(
        [*listen, "-W", "20", "-t", "props", "-F", "got %C|%R|%D|%F|%E|%P|%p"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    assert listener.stdout is not None
    while "SUBACK" not in (line := listener.stdout.readline()):
        assert line, "mosquitto_sub ended"
    data.publish(
        topic="props",
        qos=1,
        payload=b"hello",
        userProperties=json.dumps([{"a": "1"}, {"a": "2"}]),
        payloadFormatIndicator="UTF8_DATA",
        contentType="text/plain",
        responseTopic="answers/here",
        correlationData=base64.b64encode(b"c-1").decode(),
        messageExpiry=600,
    )
    [got] = [line for line in listener.stdout.read().splitlines() if line.startswith("got ")]
    listener.wait(20)
    listener.stdout.close()
    assert got == "got text/plain|answers/here|c-1|1|600|a:1 a:2|hello"


@pytest.mark.parametrize(
    "wrong",
    [
        {"userProperties": "no json"},
        {"userProperties": json.dumps([{"a": "\0"}])},
        {"userProperties": json.dumps([{"a": 1}])},
        {"contentType": "text\0"},
        {"correlationData": "%%%"},
        {"responseTopic": "a/+"},
        {"messageExpiry": 2**32},
        {"payloadFormatIndicator": "TEXT"},
    ],
)
def test_properties_that_no_message_can_have_are_refused(data: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(data.exceptions.InvalidRequestException):
        data.publish(topic="props", qos=1, payload=b"x", **wrong)


def test_a_will_on_a_shadow_is_taken_and_not_sent(enroll: Enroll, data: Any) -> None:
    thing = enroll("willing-shadow")
    topic = "$aws/things/willing-shadow/shadow/update"
    with thing.device(port=8883, will=topic) as first, thing.device(port=8883, will=topic) as second:
        first("connect")
        second("connect")  # takes over
        assert "ok" in second("publish", topic="t", payload="x")
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_thing_shadow(thingName="willing-shadow")


def test_a_policy_of_a_name_allows_that_named_shadow_alone(enroll: Enroll, iot: Any) -> None:
    topic = "$aws/things/one-name/shadow/name/open"
    thing = enroll(
        "one-name",
        statement("iot:Connect"),
        statement(["iot:Publish", "iot:Receive"], f"{ARN}topic/{topic}/*"),
        statement("iot:Subscribe", f"{ARN}topicfilter/{topic}/*"),
    )
    with thing.shadows(5) as device:
        device("connect")
        state = {"reported": {"a": 1}}
        for name, code in (("open", 0), ("closed", 0x87)):
            place = f"$aws/things/one-name/shadow/name/{name}/update"
            assert device("publish", topic=place, payload=json.dumps({"state": state})) == {"ok": code}
        assert device("publish", topic="$aws/things/one-name/shadow/update", payload='{"state":{}}') == {"ok": 0x87}
        iot.create_policy_version(
            policyName="one-name", policyDocument=document(statement("iot:Connect")), setAsDefault=True
        )
        time.sleep(0.3)  # the announcement goes through the outbox
        assert device("publish", topic=f"{topic}/update", payload='{"state":{}}') == {"ok": 0x87}
