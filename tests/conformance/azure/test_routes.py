"""Messages of the unmodified device SDK leave by routes to real receivers, and what twins and devices say.

Receivers are an HTTP server, NATS, mosquitto, files and a stream; the server is killed in the middle.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import paho.mqtt.client as paho
import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import sends_ten
from support.azure.credentials import Shown, at_hub
from support.server.servers import RunningServer, a_server
from support.server.workers_of import below, hit
from support.services.nats_server import a_nats
from support.services.postgres import a_postgres
from support.services.receivers import Receiver, a_mosquitto

pytestmark = pytest.mark.system


def until(found: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (known := found()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)
    return known


def told(bodies: list[bytes], device: str) -> list[dict[str, Any]]:
    every = [json.loads(one) for one in bodies]
    return [one for one in every if one["SystemProperties"]["connectionDeviceId"] == device]


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with a_nats() as url:
        yield url


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with a_mosquitto(tmp_path_factory.mktemp("mosquitto")) as port:
        yield port


@pytest.fixture(scope="module")
def birthmark_config(nats_url: str, mosquitto: int) -> str:
    config = '[outbound]\nallow = ["127.0.0.1/32"]\n'
    return config + f'[servers.plant]\nurl = "{nats_url}"\n[servers.broker]\nurl = "mqtt://127.0.0.1:{mosquitto}"\n'


@pytest.fixture
def device(server: RunningServer, cloud: Cloud) -> Iterator[AzureDevice]:
    """A device that is enrolled; what was routed for it is routed no more."""
    yield cloud.azure_device()
    for one in server.rows("hub", "route", "ls"):
        if one["name"] != "$fallback":
            server.run("hub", "route", "rm", one["name"], "--yes")
    for one in server.rows("hub", "endpoint", "ls"):
        server.run("hub", "endpoint", "rm", one["name"], "--yes")


def endpoint(server: RunningServer, *words: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(server.run("hub", "endpoint", "create", *words, "--json").stdout)
    return shown


def test_what_a_condition_takes_arrives_at_a_webhook_signed_and_nothing_else(
    server: RunningServer, device: AzureDevice
) -> None:
    with Receiver() as receiver:
        secret = endpoint(server, "hook", "--webhook", receiver.url("/in"))["secret"]
        server.run("hub", "route", "create", "warm", "--endpoint", "hook", "--condition", "$body.temperature >= 20.5")
        assert sends_ten(device).returncode == 0
        until(lambda: len(receiver.got) >= 5)
        bodies = [one["Body"]["number"] for one in told(receiver.bodies("/in"), device.name)]
        assert sorted(bodies) == [5, 6, 7, 8, 9]
        (one, *_) = receiver.got
        signed = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        right = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert one.headers["webhook-signature"] == f"v1,{right}"
        assert len(device.messages()) == 10


JSON_TYPE, UTF_8 = "contentType=application/json", "contentEncoding=utf-8"


@pytest.mark.parametrize(
    ("given", "route"), [((), "$fallback"), ((JSON_TYPE,), "$fallback"), ((JSON_TYPE, UTF_8), "hot")]
)
def test_a_route_is_tested_with_the_properties_that_are_given_alone(
    server: RunningServer, device: AzureDevice, given: tuple[str, ...], route: str
) -> None:
    endpoint(server, "st", "--stream")
    server.run("hub", "route", "create", "hot", "--condition", "$body.a = 1", "--endpoint", "st")
    system = [word for one in given for word in ("--system", one)]
    told = server.attempt("hub", "route", "test", "--body", '{"a":1}', "--device", device.name, *system)
    assert told.stdout.partition(" ->")[0] == route
    assert ("see no JSON" in told.stderr) == (route == "$fallback")


def test_it_arrives_in_files_that_are_named_by_its_time(server: RunningServer, device: AzureDevice) -> None:
    endpoint(server, "archive", "--folder", "archive")
    server.run("hub", "route", "create", "all", "--endpoint", "archive")
    assert sends_ten(device).returncode == 0
    folder = server.data / "buckets" / "hub@birthmark" / "archive" / "birthmark"

    def lines() -> list[dict[str, Any]]:
        files = [one for one in folder.glob("[0-3]/20[0-9][0-9]/[01][0-9]/[0-3][0-9]/*/*") if one.is_file()]
        return told([line for one in files for line in one.read_bytes().splitlines()], device.name)

    until(lambda: len(lines()) >= 10)
    assert sorted(one["Body"]["number"] for one in lines()) == list(range(10))


def test_a_stream_is_read_by_groups(server: RunningServer, device: AzureDevice) -> None:
    endpoint(server, "live", "--stream")
    server.run("hub", "route", "create", "all", "--endpoint", "live")
    assert sends_ten(device).returncode == 0
    read = ("hub", "endpoint", "read", "live")
    until(lambda: len(server.rows(*read)) >= 10)
    first = server.rows(*read, "--consumer-group", "one")
    assert [json.loads(one["body"])["Body"]["number"] for one in first] == list(range(10))
    assert server.rows(*read, "--consumer-group", "one") == []
    assert len(server.rows(*read, "--consumer-group", "two")) == 10


def test_it_arrives_at_nats_by_a_subject_with_the_devices_name(
    server: RunningServer, device: AzureDevice, nats_url: str
) -> None:
    endpoint(server, "plant", "--server", "plant", "--topic", "hubs.{iothub}.{device}")
    server.run("hub", "route", "create", "all", "--endpoint", "plant")

    async def heard() -> list[bytes]:
        client = await nats.connect(nats_url)
        subscription = await client.subscribe(f"hubs.birthmark.{device.name}")
        await client.flush()
        done = await asyncio.to_thread(sends_ten, device)
        assert done.returncode == 0
        found = [(await subscription.next_msg(timeout=20)).data for _ in range(10)]
        await client.close()
        return found

    bodies = told(asyncio.run(heard()), device.name)
    assert sorted(one["Body"]["number"] for one in bodies) == list(range(10))


def test_it_arrives_at_an_mqtt_broker(server: RunningServer, device: AzureDevice, mosquitto: int) -> None:
    endpoint(server, "broker", "--server", "broker", "--topic", "hubs/{iothub}/{device}")
    server.run("hub", "route", "create", "all", "--endpoint", "broker")
    got: list[bytes] = []
    ready = threading.Event()
    client = paho.Client("reader", protocol=paho.MQTTv311)
    client.on_message = lambda _client, _data, message: got.append(message.payload)
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", mosquitto)
    client.loop_start()
    client.subscribe(f"hubs/birthmark/{device.name}", 1)
    assert ready.wait(10)
    assert sends_ten(device).returncode == 0
    until(lambda: len(got) >= 10)
    client.loop_stop()
    assert sorted(one["Body"]["number"] for one in told(got, device.name)) == list(range(10))


def test_a_device_that_registers_connects_and_changes_says_so(server: RunningServer, device: AzureDevice) -> None:
    with Receiver() as receiver:
        endpoint(server, "hook", "--webhook", receiver.url("/in"))
        for source in ("TwinChangeEvents", "DeviceLifecycleEvents", "DeviceConnectionStateEvents"):
            server.run("hub", "route", "create", source, "--endpoint", "hook", "--source", source)
        assert sends_ten(device).returncode == 0
        server.run("hub", "twin", device.name, "--desired", '{"interval": 5}')
        server.run("hub", "device", "rm", device.name, "--yes")

        def operations() -> list[str]:
            return [one["Properties"]["opType"] for one in told(receiver.bodies("/in"), device.name)]

        wanted = {"createDeviceIdentity", "deviceConnected", "deviceDisconnected", "updateTwin", "deleteDeviceIdentity"}
        until(lambda: wanted <= set(operations()))
        (changed,) = [
            one for one in told(receiver.bodies("/in"), device.name) if one["Properties"]["opType"] == "updateTwin"
        ]
        assert changed["Body"]["properties"]["desired"]["interval"] == 5
        assert changed["Properties"]["iothub-message-schema"] == "twinChangeNotification"


# ---- killed in the middle


def published(
    server: RunningServer, device: AzureDevice, count: int, hit_at: int, strike: Callable[[], None]
) -> set[int]:
    """Publish numbers by QoS 1, strike when so many are safe, go on; return those that were said to be safe."""
    safe: set[int] = set()
    left = list(range(count))
    is_struck = False
    while left:
        with at_hub(server, Shown(Path(device.certificate_file), Path(device.key_file)), device.name) as one:
            sent: dict[int, int] = {}
            acked: list[int] = []
            one.client.on_publish = lambda _client, _data, mid, acked=acked: acked.append(mid)
            topic = f"devices/{device.name}/messages/events/$.ct=application%2Fjson&$.ce=utf-8"
            for number in left[:50]:
                info = one.client.publish(topic, json.dumps({"number": number}), qos=1)
                sent[info.mid] = number
            deadline = time.monotonic() + 20
            while len(acked) < len(sent) and not one.is_over and time.monotonic() < deadline:
                if not is_struck and len(safe) + len(acked) >= hit_at:
                    is_struck = True
                    strike()
                time.sleep(0.002)
            safe |= {sent[mid] for mid in acked if mid in sent}
            one.client.on_disconnect = None
        left = [number for number in left if number not in safe]
    assert is_struck
    return safe


def test_of_a_server_that_is_killed_each_message_that_was_safe_is_seen_at_least_once(tmp_path: Path) -> None:
    with Receiver() as receiver, a_server(tmp_path, '[outbound]\nallow = ["127.0.0.1/32"]\n', is_warm=False) as server:
        device = server.cloud.azure_device("killed", at="hub")
        endpoint(server, "hook", "--webhook", receiver.url("/in"))
        endpoint(server, "live", "--stream")
        server.run("hub", "route", "create", "all", "--endpoint", "hook", "--endpoint", "live")

        def strike() -> None:
            server.kill()
            server.start()

        safe = published(server, device, 400, 120, strike)
        until(lambda: safe <= {one["Body"]["number"] for one in told(receiver.bodies("/in"), "killed")}, 60)

        def streamed() -> set[int]:
            rows = server.rows("hub", "endpoint", "read", "live")
            return {json.loads(one["body"])["Body"]["number"] for one in rows}

        until(lambda: safe <= streamed())


def test_of_two_workers_the_one_that_is_left_goes_on(tmp_path: Path) -> None:
    with a_postgres() as url, Receiver() as receiver:
        config = f'workers = 2\ndatabase = "{url}"\n[outbound]\nallow = ["127.0.0.1/32"]\n'
        with a_server(tmp_path, config, is_warm=False) as server:
            device = server.cloud.azure_device("two", at="hub")
            endpoint(server, "hook", "--webhook", receiver.url("/in"))
            server.run("hub", "route", "create", "all", "--endpoint", "hook")
            server.run("hub", "route", "create", "twins", "--endpoint", "hook", "--source", "TwinChangeEvents")

            def strike() -> None:
                hit(below(server)["worker 1"], signal.SIGKILL)

            safe = published(server, device, 200, 60, strike)
            server.run("hub", "twin", "two", "--desired", '{"interval": 5}')

            def seen() -> list[dict[str, Any]]:
                return told(receiver.bodies("/in"), "two")

            until(lambda: safe <= {one["Body"].get("number") for one in seen()}, 90)
            until(lambda: any(one["Properties"].get("opType") == "updateTwin" for one in seen()))
