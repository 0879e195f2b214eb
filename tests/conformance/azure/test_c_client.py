"""The C client of examples/c, on mbedTLS: built as the page says, with sanitizers, against the unmodified server."""

import contextlib
import ctypes
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, Publish
from birthmark.testing.cloud import AzureDevice, Cloud
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
SOURCES = Path(__file__).parents[3] / "examples" / "c"
STRICT = (
    "-std=c99",
    "-D_POSIX_C_SOURCE=200809L",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wno-sign-conversion",
)


def build(directory: Path, header: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "birthmark.h").write_text(header)
    program = directory / "device"
    sanitized = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Werror")
    command: list[str | Path] = ["cc", *STRICT, *sanitized, f"-I{directory}", "-o", program, *SOURCES.glob("*.c")]
    subprocess.run([*command, "-lmbedtls", "-lmbedx509", "-lmbedcrypto"], check=True)
    return program


@pytest.fixture(scope="module")
def header(server: RunningServer) -> str:
    return server.run("env", "--format", "c").stdout


@pytest.fixture(scope="module")
def program(header: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("c"), header)


def run(program: Path, device: AzureDevice) -> "subprocess.CompletedProcess[str]":
    command = [str(program), device.certificate_file, device.key_file, device.name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_registers_and_sends(cloud: Cloud, program: Path) -> None:
    device = cloud.azure_device()
    done = run(program, device)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"assigned: {device.name} at {cloud.host}", "3 messages sent"]
    bodies = [row["body"] for row in device.messages()]
    assert [f'{{"number":{number},"from":"C"}}' for number in range(3)] == bodies


def test_who_is_not_on_record_is_refused_and_the_server_tells_why(cloud: Cloud, program: Path) -> None:
    device = cloud.azure_device()
    cloud.refuse("dps.not_enrolled", device)
    done = run(program, device)
    assert done.returncode == 1
    assert done.stderr
    assert device.why()["code"] == "dps.not_enrolled"


def test_a_server_of_another_root_is_not_trusted(cloud: Cloud, header: str, tmp_path: Path) -> None:
    start = header.index('    "-----BEGIN'), header.index("    ;")
    lines = "".join(f'    "{line}\\n"\n' for line in a_ca().certificate.pem().splitlines())
    program = build(tmp_path / "other", header[: start[0]] + lines + header[start[1] :])
    done = run(program, cloud.azure_device())
    assert done.returncode == 1
    assert "Certificate verification failed" in done.stderr


def test_a_server_under_another_address_is_not_trusted(cloud: Cloud, header: str, tmp_path: Path) -> None:
    """The certificate is right, and names another address: mbedTLS 2.28 itself would not look."""
    elsewhere = header.replace(f'BIRTHMARK_DPS_HOST "{cloud.host}"', 'BIRTHMARK_DPS_HOST "127.0.0.2"')
    with relayed(cloud.host) as port:
        program = build(tmp_path / "elsewhere", elsewhere.replace('MQTT_PORT "8883"', f'MQTT_PORT "{port}"'))
        done = run(program, cloud.azure_device())
    assert done.returncode == 1
    assert "Certificate verification failed" in done.stderr


@contextlib.contextmanager
def relayed(address: str) -> Iterator[int]:
    """Pass on one connection to 127.0.0.2 to the server's MQTT port."""
    with socket.create_server(("127.0.0.2", 0)) as door:

        def pass_on() -> None:
            near, _ = door.accept()
            with near, socket.create_connection((address, 8883)) as far:
                threading.Thread(target=copy, args=(far, near), daemon=True).start()
                copy(near, far)

        def copy(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while piece := source.recv(4096):
                    sink.sendall(piece)

        threading.Thread(target=pass_on, daemon=True).start()
        yield door.getsockname()[1]


# ---- its MQTT, by the server's own engine


class Parsed(ctypes.Structure):
    """`mqtt_packet` of mqtt.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("packet_id", ctypes.c_uint16),
        ("code", ctypes.c_int),
        ("topic", ctypes.c_void_p),
        ("topic_length", ctypes.c_size_t),
        ("payload", ctypes.c_void_p),
        ("payload_length", ctypes.c_size_t),
    )


@pytest.fixture(scope="module")
def mqtt(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("mqtt") / "mqtt.so"
    subprocess.run(["cc", *STRICT, "-Werror", "-shared", "-fPIC", "-o", library, SOURCES / "mqtt.c"], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.mqtt_parse.restype = ctypes.c_long
    for name in ("mqtt_connect", "mqtt_publish"):
        getattr(loaded, name).restype = ctypes.c_size_t
    return loaded


def heard(connect: bytes, more: bytes) -> list[Struct]:
    engine = MqttEngine(MqttRole.SERVER)
    engine.receive_data(connect, 0.0)
    first = list(iter(engine.next_event, None))
    engine.send(ConnAck())
    engine.receive_data(more, 0.0)
    return [*first, *iter(engine.next_event, None)]


NAMES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="+#"), min_size=1, max_size=200
)


@given(NAMES, NAMES, NAMES, st.binary(max_size=2000))
def test_what_it_writes_is_read_by_the_server(
    mqtt: ctypes.CDLL, client: str, user: str, topic: str, payload: bytes
) -> None:
    out = ctypes.create_string_buffer(4096)
    size = ctypes.c_size_t(4096)
    length = mqtt.mqtt_connect(out, size, client.encode(), user.encode(), ctypes.c_uint16(60))
    data = out.raw[:length]
    length = mqtt.mqtt_publish(out, size, ctypes.c_uint16(7), topic.encode(), payload, ctypes.c_size_t(len(payload)))
    connect, publish = heard(data, out.raw[:length])
    assert isinstance(connect, Connect)
    assert (connect.client_id, connect.username) == (client, user)
    assert isinstance(publish, Publish)
    assert (publish.topic, publish.payload) == (topic, payload)


@given(st.integers(0, 400))
def test_what_does_not_fit_is_not_written(mqtt: ctypes.CDLL, size: int) -> None:
    out = ctypes.create_string_buffer(b"\xee" * 500, 500)
    payload = bytes(300)
    length = mqtt.mqtt_publish(
        out, ctypes.c_size_t(size), ctypes.c_uint16(7), b"a/b", payload, ctypes.c_size_t(len(payload))
    )
    assert length <= size
    assert length in (0, 310)
    assert set(out.raw[size:]) == {0xEE}


@given(st.binary(max_size=300))
def test_whatever_a_server_sends_is_read_within_its_bounds(mqtt: ctypes.CDLL, data: bytes) -> None:
    packet = Parsed()
    raw = ctypes.create_string_buffer(data, max(len(data), 1))
    used = mqtt.mqtt_parse(raw, ctypes.c_size_t(len(data)), ctypes.byref(packet))
    assert -1 <= used <= len(data)
    if used > 0 and packet.topic:
        start, end = ctypes.addressof(raw), ctypes.addressof(raw) + len(data)
        assert start <= packet.topic <= packet.topic + packet.topic_length <= end
        assert start <= packet.payload <= packet.payload + packet.payload_length <= end
