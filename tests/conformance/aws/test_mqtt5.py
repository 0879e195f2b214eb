"""MQTT 5 by the vendor's SDK, paho, mosquitto and MQTT.js, unmodified, against the server."""

import contextlib
import queue
import shutil
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.aws.device import ARN, Enrolled, statement
from support.server.scaled import for_one
from support.server.servers import RunningServer, clean_environment

pytestmark = pytest.mark.serve

Enroll = Callable[..., Enrolled]
NOT_AUTHORIZED, TAKEN_OVER, SHUTTING_DOWN = 0x87, 0x8E, 0x8B
OWN = "${iot:Connection.Thing.ThingName}"
OWN_TOPICS = (
    statement("iot:Connect", ARN + f"client/{OWN}"),
    statement(["iot:Publish", "iot:Receive"], ARN + f"topic/{OWN}/*"),
    statement("iot:Subscribe", ARN + f"topicfilter/{OWN}/*"),
)


def test_the_sdk_connects_publishes_and_receives(enroll: Enroll) -> None:
    with enroll("five-own", *OWN_TOPICS).device_5() as device:
        device("start")
        told = device("connected")["ok"]
        assert told == {
            "session_present": False,
            "receive_maximum": 100,
            "maximum_packet_size": 149504,
            "maximum_qos": 1,
            "topic_alias_maximum": 8,
            "keep_alive": 1200,
            "has_subscription_ids": False,
            "client_id": "five-own",
            "assigned": None,
        }
        assert device("subscribe", topics=["five-own/+"]) == {"ok": [1]}
        for number in range(5):  # from the second on by topic alias, both ways
            assert device("publish", topic="five-own/t", payload=f"hello {number}") == {"ok": 0}
            assert device("received") == {"ok": {"topic": "five-own/t", "payload": f"hello {number}"}}
        assert device("unsubscribe", topics=["five-own/+", "five-own/x"]) == {"ok": [0, 0x11]}
        assert device("stop") == {"ok": True}


def test_what_the_policy_does_not_allow_is_said_and_the_connection_stays(enroll: Enroll, server: RunningServer) -> None:
    with enroll("five-deny", *OWN_TOPICS).device_5() as device:
        device("start")
        device("connected")
        assert device("subscribe", topics=["five-deny/+", "elsewhere"]) == {"ok": [1, NOT_AUTHORIZED]}
        assert device("publish", topic="elsewhere", payload="x") == {"ok": NOT_AUTHORIZED}
        assert device("publish", topic="five-deny/t", payload="still here") == {"ok": 0}
        assert device("received")["ok"]["payload"] == "still here"
        assert server.why("five-deny")["code"] == "awsiot.policy_denied"
        device("publish", topic="elsewhere", payload="x", qos=0)
        assert device("ended") == {"ok": NOT_AUTHORIZED}


def test_a_message_that_nobody_subscribed_to_is_a_success(enroll: Enroll) -> None:
    with enroll("five-alone").device_5() as device:
        device("start")
        device("connected")
        assert device("publish", topic="five-alone/t", payload="x") == {"ok": 0}


def test_a_connect_that_is_denied_is_told_so(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("five-no", statement("iot:*"), statement("iot:Connect", "*", "Deny"))
    with thing.device_5() as device:
        device("start")
        assert device("refused") == {"ok": NOT_AUTHORIZED}
    assert server.why("five-no")["code"] == "awsiot.policy_denied"


def test_who_is_taken_over_is_told_so(enroll: Enroll) -> None:
    thing = enroll("five-twice")
    with thing.device_5() as first, thing.device_5() as second:
        first("start")
        first("connected")
        second("start")
        second("connected")
        assert first("ended") == {"ok": TAKEN_OVER}


def test_a_certificate_that_is_switched_off_ends_the_connection_with_a_reason(enroll: Enroll, iot: Any) -> None:
    thing = enroll("five-off")
    with thing.device_5() as device:
        device("start")
        device("connected")
        iot.update_certificate(certificateId=thing.certificate_id, newStatus="INACTIVE")
        assert device("ended") == {"ok": NOT_AUTHORIZED}


def test_who_is_connected_when_the_server_stops_is_told_so(enroll: Enroll, server: RunningServer) -> None:
    with enroll("five-stop").device_5() as device:
        device("start")
        device("connected")
        server.stop()
        server.start()
        assert device("ended") == {"ok": SHUTTING_DOWN}


def test_mosquitto_publishes_to_mosquitto(enroll: Enroll, tmp_path: Path) -> None:
    thing = enroll("five-mosquitto", statement("iot:*"))
    common = ["-V", "5", "-h", thing.files["endpoint"], "-p", "8883", "--cafile", thing.files["ca"], "-q", "1"]
    common += ["--cert", thing.files["certificate"], "--key", thing.files["key"], "-t", "five/mosquitto"]
    listen = ["stdbuf", "-oL", "mosquitto_sub", *common, "-i", "sub", "-C", "2", "-W", "20", "-d"]
    with (tmp_path / "sub").open("wb") as out:
        subscriber = subprocess.Popen(listen, stdout=out, stderr=out, env=clean_environment())
    _until(lambda: b"Subscribed" in (tmp_path / "sub").read_bytes())
    for text in ("one", "two"):
        publish = ["mosquitto_pub", *common, "-i", "pub", "-m", text, "-D", "publish", "content-type", "text/plain"]
        subprocess.run(publish, check=True, timeout=20, env=clean_environment())
    assert subscriber.wait(20) == 0
    assert {b"one", b"two"} <= set((tmp_path / "sub").read_bytes().splitlines())


def test_paho_is_given_a_client_id_and_hears_why_it_is_refused(enroll: Enroll) -> None:
    thing = enroll("five-paho", statement("iot:*"))
    connected: queue.Queue[tuple[int, str]] = queue.Queue()
    client = paho.Client("", protocol=paho.MQTTv5)
    client.tls_set(
        thing.files["ca"], thing.files["certificate"], thing.files["key"], tls_version=ssl.PROTOCOL_TLS_CLIENT
    )
    client.on_connect = lambda _c, _u, _f, code, told: connected.put((code.value, told.AssignedClientIdentifier))
    wanted = Properties(PacketTypes.CONNECT)
    wanted.SessionExpiryInterval = 60
    wanted.ReceiveMaximum = 5
    client.connect(thing.files["endpoint"], 8883, properties=wanted)
    client.loop_start()
    try:
        code, name = connected.get(timeout=20)
        assert (code, name[:5]) == (0, "$GEN/")
        messages = [client.publish("five/paho", f"{number}", 1) for number in range(50)]
        for message in messages:
            message.wait_for_publish(20)
        assert all(message.is_published() for message in messages)
    finally:
        client.disconnect()
        client.loop_stop()


@for_one
def test_no_session_is_kept_longer_by_asking_in_disconnect(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("five-longer", statement("iot:*"))
    client = paho.Client(thing.name, protocol=paho.MQTTv5)
    client.tls_set(
        thing.files["ca"], thing.files["certificate"], thing.files["key"], tls_version=ssl.PROTOCOL_TLS_CLIENT
    )
    wanted = Properties(PacketTypes.CONNECT)
    wanted.SessionExpiryInterval = 10
    client.connect(thing.files["endpoint"], 8883, properties=wanted)
    client.loop_start()
    _until(client.is_connected)
    longer = Properties(PacketTypes.DISCONNECT)
    longer.SessionExpiryInterval = 0xFFFFFFFF
    client.disconnect(properties=longer)
    client.loop_stop()

    def stored() -> tuple[int, bool]:
        with contextlib.closing(sqlite3.connect(f"file:{server.data / 'birthmark.db'}?mode=ro", uri=True)) as database:
            asked = "SELECT expiry_s, expires_at IS NOT NULL FROM sessions WHERE client = ? AND owner IS NULL"
            return tuple(database.execute(asked, (thing.name,)).fetchone() or (0, False))

    _until(lambda: stored()[0] > 0)
    assert stored() == (7 * 24 * 3600, True)


def test_mqtt_js_keeps_within_the_aliases_it_is_allowed(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("five-js", statement("iot:*"))
    script = """
const fs = require("fs"), mqtt = require("mqtt");
const [host, ca, cert, key] = process.argv.slice(1);
const client = mqtt.connect({host, port: 8883, protocol: "mqtts", protocolVersion: 5, clientId: "five-js",
  reconnectPeriod: 0, autoAssignTopicAlias: true, properties: {topicAliasMaximum: 4, receiveMaximum: 3},
  ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key)});
const seen = [];
client.on("connect", async (connack) => {
  await client.subscribeAsync("five/js/#", {qos: 1});
  for (let n = 0; n < 40; n++) await client.publishAsync("five/js/" + (n % 10), String(n), {qos: 1});
});
client.on("message", (topic, payload) => {
  seen.push(topic + " " + payload);
  if (seen.length === 40) { console.log(JSON.stringify(seen)); client.end(); }
});
client.on("error", (error) => { console.log(String(error)); process.exit(1); });
"""
    files = thing.files
    node = Path(__file__).parents[2] / "node"
    done = subprocess.run(  # noqa: PLW1510 (what it printed says more than its code)
        [shutil.which("node") or "node", "-e", script]
        + [files[name] for name in ("endpoint", "ca", "certificate", "key")],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=40,
        env=clean_environment(),
    )
    wanted = [f"five/js/{number % 10} {number}" for number in range(40)]
    assert done.stdout.strip() == str(wanted).replace("'", '"').replace(", ", ","), done.stderr + server.log()[-2000:]


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError
