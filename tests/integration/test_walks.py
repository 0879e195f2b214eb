"""The walks of docs/explanation/how-it-works.md are those of a running server: each call, in that order."""

import asyncio
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from fixes.desk import a_connect, a_publish, a_subscribe

import birthmark
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.server.server import Server
from birthmark.server.settings import read_settings
from support.azure.clients import a_file_device
from support.server.servers import BIRTHMARK, clean_environment, free_address

pytestmark = pytest.mark.integration

SOURCE = str(Path(birthmark.__file__).parent) + "/"
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "how-it-works.md"


def walk(title: str) -> list[str]:
    """Return the calls of a walk, as module and name."""
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^    ([\w.]+) +([\w.]+) {2,}\S", section, re.MULTILINE)
    return [f"{module}.{name}" for module, name in found]


@contextmanager
def calls() -> Iterator[list[str]]:
    """Note every call of ours in this thread."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(SOURCE):
            module = file.removeprefix(SOURCE).removesuffix(".py").replace("/", ".")
            found.append(f"{module}.{frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


def missing_of(walk: list[str], found: list[str]) -> list[str]:
    """Return what of a walk was not called, or not in its order."""
    rest = iter(found)
    return [call for call in walk if not any(one == call for one in rest)]


def topic_of(publish: bytes) -> tuple[str, bytes]:
    """Return topic and packet id of a short PUBLISH."""
    begin = 4 if publish[1] < 128 else 5
    end = begin + int.from_bytes(publish[begin - 2 : begin], "big")
    return publish[begin:end].decode(), publish[end : end + 2]


async def test_the_walks_are_those_of_a_running_server(tmp_path: Path) -> None:
    address, data, name = free_address(), tmp_path / "data", "walker"
    server = Server(read_settings(None, {}, data=str(data), listen=[address]), SystemClock(), SystemEntropy())
    ends = await server.start()
    try:
        device = a_file_device(tmp_path, name)
        enroll = [BIRTHMARK, "device", "enroll", name, "--cert", str(device.certificate_file)]
        environment = clean_environment(BIRTHMARK_DATA=str(data), HOME=str(tmp_path))
        await asyncio.to_thread(subprocess.run, enroll, env=environment, check=True, capture_output=True, timeout=60)
        context = ssl.create_default_context(cafile=ends["trust_bundle"])
        context.load_cert_chain(device.certificate_file, device.key_file)

        async def told(command: str, *words: str, answer: Callable[[str, bytes], bytes]) -> list[str]:
            """Have an operator tell the device, which answers; return the calls."""
            reader, writer = await asyncio.open_connection(address, 8883, ssl=context)
            wanted = a_subscribe(f"devices/{name}/messages/devicebound/#", "$iothub/methods/POST/#")
            for packet in (a_connect(name, f"{ends['iothub']['host']}/{name}/?api-version=2021-04-12"), wanted):
                writer.write(packet)
                assert await reader.read(4096)
            typed = [BIRTHMARK, "hub", command, name, *words]
            with calls() as found:
                done = asyncio.create_task(asyncio.to_thread(subprocess.run, typed, env=environment, check=True))
                writer.write(answer(*topic_of(await reader.read(4096))))
                await done
                while not any(one.endswith((".settle", ".accept_response")) for one in found):
                    await asyncio.sleep(0.01)
            writer.close()
            return found

        async def say(username: str, *packets: bytes) -> list[str]:
            reader, writer = await asyncio.open_connection(address, 8883, ssl=context)
            with calls() as found:
                for packet in (a_connect(name, username), *packets):
                    writer.write(packet)
                    assert await reader.read(4096)
            writer.close()
            return found

        registration = {"registrationId": name, "payload": None}
        register = a_publish("$dps/registrations/PUT/iotdps-register/?$rid=1", json.dumps(registration).encode())
        scope = ends["dps"]["id_scope"]
        found = await say(f"{scope}/registrations/{name}/api-version=2019-03-31", register)
        assert missing_of(walk("A registration, step by step"), found) == []

        event = a_publish(f"devices/{name}/messages/events/site=a")
        found = await say(f"{ends['iothub']['host']}/{name}/?api-version=2021-04-12", event)
        assert missing_of(walk("A message, step by step"), found) == []

        found = await told("c2d", "hello", answer=lambda _topic, packet_id: b"\x40\x02" + packet_id)
        assert missing_of(walk("A message to a device, step by step"), found) == []
        response = "$iothub/methods/res/200/?$rid="
        found = await told(
            "method", "go", answer=lambda topic, _: a_publish(response + topic.rpartition("=")[2], b"{}", qos=0)
        )
        assert missing_of(walk("A method call, step by step"), found) == []
        assert len(walk("A message to a device, step by step")) > 5 < len(walk("A method call, step by step"))
        assert len(walk("A message, step by step")) > 5 < len(walk("A registration, step by step"))
    finally:
        await server.stop()
