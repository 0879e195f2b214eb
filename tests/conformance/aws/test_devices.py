"""The unmodified awsiotsdk against the server: policies, certificate states, sessions, takeover, WebSocket."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from support.aws.clients import until
from support.aws.device import ARN, DeviceProcess, Enrolled, document, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.serve

HANGUP = "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"
OWN = "${iot:Connection.Thing.ThingName}"
OWN_TOPICS = (
    statement("iot:Connect", ARN + f"client/{OWN}"),
    statement(["iot:Publish", "iot:Receive"], ARN + f"topic/{OWN}/*"),
    statement("iot:Subscribe", ARN + f"topicfilter/{OWN}/*"),
)
Enroll = Callable[..., Enrolled]


def test_a_thing_publishes_and_receives_on_its_own_topics(enroll: Enroll) -> None:
    with enroll("own-1", *OWN_TOPICS).device(port=8883) as device:
        assert device("connect") == {"ok": {"session_present": False}}
        assert device("subscribe", topic="own-1/+") == {"ok": 1}
        assert device("publish", topic="own-1/t", payload="hello") == {"ok": None}
        assert device("receive") == {"ok": {"topic": "own-1/t", "payload": "hello"}}
        assert device("publish", topic="own-1/t", payload="zero", qos=0) == {"ok": None}
        assert device("receive")["ok"]["payload"] == "zero"


def test_the_port_with_alpn_serves_devices_too(enroll: Enroll, server: RunningServer) -> None:
    if server.endpoints["aws"]["endpoint_url"].count(":") > 1:
        pytest.skip("port 443 cannot be bound here")
    with enroll("alpn-1").device() as device:  # the SDK's own default: 443 with x-amzn-mqtt-ca
        assert "ok" in device("connect")


@pytest.mark.parametrize(
    ("name", "command", "action"),
    [
        ("deny-publish", {"do": "publish", "topic": "elsewhere", "payload": "x", "timeout": 2}, "iot:Publish"),
        ("deny-subscribe", {"do": "subscribe", "topic": "elsewhere/#"}, "iot:Subscribe"),
    ],
)
def test_what_the_policy_does_not_allow_ends_the_connection(
    enroll: Enroll, server: RunningServer, name: str, command: dict[str, str], action: str
) -> None:
    with enroll(name, *OWN_TOPICS).device(port=8883) as device:
        device("connect")
        assert "error" in device(command.pop("do"), **command)
        assert device("interrupted") == {"ok": HANGUP}
    refused = server.why(name)
    assert refused["code"] == "awsiot.policy_denied"
    assert refused["facts"]["action"] == action
    assert "not on this resource" in refused["cause"]


def test_an_explicit_deny_wins_and_a_connect_that_is_denied_is_hung_up_on(
    enroll: Enroll, server: RunningServer
) -> None:
    thing = enroll("deny-connect", statement("iot:*"), statement("iot:Connect", "*", "Deny"))
    with thing.device(port=8883) as device:
        assert device("connect") == {"error": HANGUP}
    refused = server.why("deny-connect")
    assert refused["code"] == "awsiot.policy_denied"
    assert "statement 2 of policy deny-connect denies it" in refused["cause"]


def test_a_wrong_client_id_is_no_thing(enroll: Enroll, server: RunningServer) -> None:
    with enroll("right-id", *OWN_TOPICS).device(port=8883, client_id="wrong-id") as device:
        assert device("connect") == {"error": HANGUP}
    assert server.why("wrong-id")["code"] == "awsiot.policy_denied"


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_is_not_active_is_refused(
    enroll: Enroll, iot: Any, server: RunningServer, status: str
) -> None:
    thing = enroll(f"was-{status.lower()}")
    iot.update_certificate(certificateId=thing.certificate_id, newStatus=status)
    with thing.device(port=8883) as device:
        assert device("connect") == {"error": HANGUP}
    refused = server.why(thing.name)
    assert refused["code"] == "awsiot.certificate_inactive"
    assert status in refused["cause"]
    assert server.why(thing.certificate_id)["id"] == refused["id"]


def test_a_certificate_that_is_not_registered_is_refused(enroll: Enroll, iot: Any, server: RunningServer) -> None:
    thing = enroll("forgotten")
    iot.detach_thing_principal(thingName=thing.name, principal=thing.arn)
    iot.update_certificate(certificateId=thing.certificate_id, newStatus="INACTIVE")
    iot.delete_certificate(certificateId=thing.certificate_id, forceDelete=True)
    with thing.device(port=8883) as device:
        assert device("connect") == {"error": HANGUP}
    assert server.why("forgotten")["code"] == "awsiot.certificate_unknown"


def test_deactivating_a_certificate_ends_its_connection_at_once(
    enroll: Enroll, iot: Any, server: RunningServer
) -> None:
    thing = enroll("live-1")
    with thing.device(port=8883) as device:
        device("connect")
        iot.update_certificate(certificateId=thing.certificate_id, newStatus="INACTIVE")
        assert device("interrupted") == {"ok": HANGUP}
    assert server.why("live-1")["code"] == "awsiot.certificate_inactive"


def test_a_policy_change_counts_at_the_next_packet(enroll: Enroll, iot: Any) -> None:
    thing = enroll("changing")
    with thing.device(port=8883) as device:
        device("connect")
        assert device("publish", topic="t", payload="x") == {"ok": None}
        denied = document(statement("iot:*"), statement("iot:Publish", "*", "Deny"))
        iot.create_policy_version(policyName=thing.name, policyDocument=denied, setAsDefault=True)
        time.sleep(0.3)  # the announcement goes through the outbox
        assert "error" in device("publish", topic="t", payload="x", timeout=2)
        assert device("interrupted") == {"ok": HANGUP}


def test_a_receiver_is_cut_off_when_its_policy_changes(enroll: Enroll, iot: Any, client: Any) -> None:
    thing, data = enroll("listener"), client("iot-data")
    with thing.device(port=8883) as device:
        device("connect")
        device("subscribe", topic="news/#")
        data.publish(topic="news/1", qos=1, payload=b"one")
        assert device("receive")["ok"]["payload"] == "one"
        iot.create_policy_version(
            policyName=thing.name,
            policyDocument=document(statement("iot:*"), statement("iot:Receive", ARN + "topic/news/secret", "Deny")),
            setAsDefault=True,
        )
        time.sleep(0.3)
        data.publish(topic="news/secret", qos=1, payload=b"two")
        data.publish(topic="news/3", qos=1, payload=b"three")
        assert device("receive")["ok"]["payload"] == "three"


def test_a_second_connection_with_the_same_client_id_ends_the_first(enroll: Enroll) -> None:
    thing = enroll("twice")
    with thing.device(port=8883) as first, thing.device(port=8883) as second:
        first("connect")
        second("connect")
        assert first("interrupted") == {"ok": HANGUP}
        assert second("publish", topic="t", payload="x") == {"ok": None}


def test_a_will_is_published_when_the_connection_is_lost(enroll: Enroll) -> None:
    thing = enroll("willing")
    with enroll("witness").device(port=8883) as witness:
        witness("connect")
        witness("subscribe", topic="last/words")
        witness("subscribe", topic="$aws/events/presence/+/willing")
        with thing.device(port=8883, will="last/words") as first, thing.device(port=8883) as second:
            first("connect")
            second("connect")  # takes over
            got = [witness("receive")["ok"] for _ in range(4)]
    assert {"topic": "last/words", "payload": "gone"} in got
    events = [json.loads(each["payload"]) for each in got if each["topic"] != "last/words"]
    assert [event["eventType"] for event in events].count("connected") == 2
    [ended] = [event for event in events if event["eventType"] == "disconnected"]
    assert ended["disconnectReason"] == "DUPLICATE_CLIENTID"
    assert ended["principalIdentifier"] == thing.certificate_id


def test_messages_wait_for_a_client_that_keeps_its_session(enroll: Enroll, client: Any, server: RunningServer) -> None:
    thing, data = enroll("sleeper"), client("iot-data")
    with thing.device(port=8883, clean=False) as device:
        assert device("connect") == {"ok": {"session_present": False}}
        assert device("subscribe", topic="wake/+") == {"ok": 1}
        device("disconnect")
    for number in range(3):
        data.publish(topic=f"wake/{number}", qos=1, payload=str(number).encode())
    data.publish(topic="wake/zero", qos=0, payload=b"lost")
    server.kill()
    server.start()
    with thing.device(port=8883, clean=False) as device:
        assert device("connect") == {"ok": {"session_present": True}}
        assert [device("receive")["ok"]["payload"] for _ in range(3)] == ["0", "1", "2"]
        assert device("publish", topic="wake/self", payload="live") == {"ok": None}
        assert device("receive")["ok"]["payload"] == "live"


def test_the_same_thing_is_served_after_a_crash(enroll: Enroll, iot: Any, server: RunningServer) -> None:
    thing = enroll("survivor", *OWN_TOPICS)
    server.kill()
    server.start()
    assert iot.describe_thing(thingName="survivor")["version"] == 1
    with thing.device(port=8883) as device:
        assert "ok" in device("connect")
        assert device("publish", topic="survivor/t", payload="x") == {"ok": None}


@pytest.mark.parametrize("session_token", [None, "a-session-token"])
def test_an_operator_connects_by_websocket(server: RunningServer, client: Any, session_token: str | None) -> None:
    account = server.endpoints["aws"]
    if account["endpoint_url"].count(":") > 1:
        pytest.skip("port 443 cannot be bound here")
    given = {
        "endpoint": account["data_endpoint"],
        "ca": server.endpoints["trust_bundle"],
        "client_id": "console",
        "id": account["access_key_id"],
        "secret": account["secret_access_key"],
        **({"session": session_token} if session_token else {}),
    }
    with DeviceProcess(given) as device:
        assert device("connect") == {"ok": {"session_present": False}}
        device("subscribe", topic="#")
        client("iot-data").publish(topic="a/b c", qos=0, payload=b"\xc3\xa4")
        received = device("receive")["ok"]
        assert received == {"topic": "a/b c", "payload": "ä"}
    with DeviceProcess({**given, "secret": "wrong"}) as device:
        assert "error" in device("connect")
    assert server.why(account["access_key_id"])["code"] == "sigv4.signature_mismatch"


def test_a_removed_access_key_ends_what_was_opened_with_it_and_nothing_else(server: RunningServer) -> None:
    account = server.endpoints["aws"]
    if account["endpoint_url"].count(":") > 1:
        pytest.skip("port 443 cannot be bound here")
    common = {"endpoint": account["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
    mine = {"id": account["access_key_id"], "secret": account["secret_access_key"], "client_id": "stays"}
    (key,) = server.rows("aws", "key", "create", "contractor")
    theirs = {"id": key["access_key_id"], "secret": key["secret_access_key"], "client_id": "goes"}
    with DeviceProcess(common | theirs) as gone, DeviceProcess(common | mine) as stays:
        for device in (gone, stays):
            assert "ok" in device("connect")
            device("subscribe", topic="keys/#")
        server.run("aws", "key", "rm", key["access_key_id"], "--yes")
        assert "ok" in gone("interrupted")
        assert server.why(key["access_key_id"])["code"] == "sigv4.unknown_access_key"
        assert "error" in gone("connect")
        assert stays("publish", topic="keys/t", payload="x") == {"ok": None}
        assert stays("receive")["ok"]["payload"] == "x"


def test_a_device_publishes_by_https_with_its_certificate(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("poster", statement("iot:Publish", ARN + "topic/post/*"))
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.load_cert_chain(thing.files["certificate"], thing.files["key"])

    def post(path: str) -> tuple[int, dict[str, Any]]:
        url = f"https://{server.endpoints['aws']['data_endpoint']}:8443{path}"
        request = urllib.request.Request(url, b"hello", method="POST")
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    assert post("/topics/post%2Fx?qos=1")[1]["message"] == "OK"
    assert post("/topics/post/x?qos=0")[0] == 200
    assert post("/topics/other?qos=1")[0] == 403


def test_the_fleets_index_says_who_is_connected_and_how_the_others_went(enroll: Enroll, iot: Any) -> None:
    thing = enroll("seen-1", *OWN_TOPICS)
    assert iot.get_thing_connectivity_data(thingName="seen-1")["connected"] is False
    with thing.device(port=8883) as device:
        device("connect")
        here = iot.get_thing_connectivity_data(thingName="seen-1")
        assert (here["connected"], "disconnectReason" in here) == (True, False)
        device("disconnect")  # done for the SDK when its socket is closed; the server's row of it comes a moment later
        until(lambda: not iot.get_thing_connectivity_data(thingName="seen-1")["connected"], "seen-1 is gone")
    gone = iot.get_thing_connectivity_data(thingName="seen-1")
    assert gone["disconnectReason"] == "CLIENT_INITIATED_DISCONNECT"
    assert gone["timestamp"] >= here["timestamp"]
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.get_thing_connectivity_data(thingName="seen-2")
