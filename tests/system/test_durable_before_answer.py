"""The disk has it before the client hears of it: the order of system calls while one message is acknowledged."""

import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, PubAck
from support.azure.clients import Device, a_file_device, run_app
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


def test_a_message_is_synced_before_its_puback_is_written(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = a_file_device(tmp_path, "synced-1")
        server.run("device", "enroll", "synced-1", "--cert", str(device.certificate_file))
        assert run_app(server, device).returncode == 0
        engine, sock = connected(server, device)
        with sock:
            trace = tmp_path / "trace"
            tracer = attach(server, trace)
            engine.publish("devices/synced-1/messages/events/", b"x", 1)
            sock.sendall(engine.data_to_send())
            answer = read(engine, sock)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
            assert tracer.stderr is not None
            tracer.stderr.close()
        assert isinstance(answer, PubAck)
    order = [kind for line in trace.read_text().splitlines() if (kind := kind_of(line)) is not None]
    came = order.index("read")
    synced = order.index("sync", came)
    answered = order.index("write", came)
    assert came < synced < answered, order


def kind_of(line: str) -> str | None:
    """Tell reads and writes on TCP sockets and syncs of files; -yy prints what a descriptor is."""
    if re.search(r"\b(fsync|fdatasync)\(", line) and "resumed" not in line:
        return "sync"
    if "TCP:[" not in line or "8883" not in line:
        return None
    if re.search(r"\b(read|recvfrom|recvmsg|readv)\(", line):
        return "read"
    if re.search(r"\b(write|sendto|sendmsg|writev)\(", line):
        return "write"
    return None


def attach(server: RunningServer, trace: Path) -> "subprocess.Popen[bytes]":
    assert server.process is not None
    calls = "trace=fsync,fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg"
    command = ["strace", "-f", "-yy", "-e", calls, "-o", str(trace), "-p", str(server.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    while b"attached" not in tracer.stderr.readline():
        assert tracer.poll() is None, "strace cannot attach"
    os.set_blocking(tracer.stderr.fileno(), False)
    return tracer


def connected(server: RunningServer, device: Device) -> tuple[MqttEngine, ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.load_cert_chain(device.certificate_file, device.key_file)
    sock = context.wrap_socket(socket.create_connection((server.address, 8883), 10), server_hostname=server.address)
    engine = MqttEngine(MqttRole.CLIENT)
    engine.send(Connect("synced-1", username=f"{server.address}/synced-1/?api-version=2021-04-12"))
    sock.sendall(engine.data_to_send())
    answer = read(engine, sock)
    assert isinstance(answer, ConnAck)
    assert answer.code == 0
    return engine, sock


def read(engine: MqttEngine, sock: ssl.SSLSocket) -> object:
    while (packet := engine.next_event()) is None:
        engine.receive_data(sock.recv(4096), 0.0)
    return packet
