"""P2, P12, P36: a device registers at DPS by its enrollment group, over MQTT; the answer comes when it is on disk."""

import json
import sqlite3
import ssl
from collections.abc import Callable
from itertools import count

import peers
from rig import Device, Rig, connected, cpu_us_each, each

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, Packet, Publish, SubAck
from measures.handshake import shake_nginx
from measures.measure import Measure, Sample
from support.server.servers import RunningServer

OPERATIONS = 200
FEW, MANY = 1_000, 100_000


def register(server: RunningServer, device: Device) -> None:
    """Connect, subscribe, register, read `assigned`, go: what the vendors' SDKs do."""
    scope = server.endpoints["dps"]["id_scope"]
    engine = MqttEngine(MqttRole.CLIENT)
    with connected(server.address, 8883, device.context) as sock:
        username = f"{scope}/registrations/{device.name}/api-version=2019-03-31"
        engine.send(Connect(device.name, clean_start=False, username=username))
        answer = expect(sock, engine, ConnAck)
        assert answer == ConnAck(), answer
        engine.subscribe([("$dps/registrations/res/#", 1)])
        expect(sock, engine, SubAck)
        body = json.dumps({"registrationId": device.name}).encode()
        engine.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body, 1)
        reply = expect(sock, engine, Publish)
        assert isinstance(reply, Publish), reply
        assert "/res/200/" in reply.topic, reply
        engine.send(Disconnect())
        sock.sendall(engine.data_to_send())


def expect(sock: ssl.SSLSocket, engine: MqttEngine, kind: type) -> Packet:
    """Say what there is to say, and return the next packet of a kind."""
    while True:
        sock.sendall(engine.data_to_send())
        while (packet := engine.next_event()) is not None:
            if isinstance(packet, kind):
                return packet
        engine.receive_data(sock.recv(65536), 0.0)


class Registration(Measure):
    """Beside a handshake with nginx: nobody else registers devices. Every device registers for the first time."""

    name, title, peer = "P2", "DPS registration by group, committed", "nginx's handshake"
    unit, gate, aim = "us", 2.5, 2.3

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._nginx = rig.once("nginx", peers.nginx)
        rig.once("group", lambda rig: put_group(rig, rig.server))
        self._runs = count()

    def round(self) -> Sample:
        fresh = self._rig.devices(OPERATIONS, f"register-{next(self._runs)}")
        return Sample(cost(self._rig.server, fresh), shake_nginx(self._nginx, fresh))


class RegistrationAmongMany(Measure):
    """At 100,000 individual enrollments, beside the same at 1,000."""

    name, title, peer = "P12", "registration at 100 k enrollments", "itself at 1 k"
    unit, gate, aim = "us", 1.1, 1.02

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._many, self._few = (_filled(rig, size) for size in (MANY, FEW))
        self._runs = count()

    def round(self) -> Sample:
        run = next(self._runs)
        return Sample(
            cost(self._many, self._rig.devices(OPERATIONS, f"many-{run}")),
            cost(self._few, self._rig.devices(OPERATIONS, f"few-{run}")),
        )


_WITHOUT_FIGURES = """
from birthmark.store import Changes
Changes.count = lambda self, *_, **__: self
"""


class RegistrationWithFigures(Measure):
    """With the figures that follow each registration, beside a server that keeps none."""

    name, title, peer = "P36", "registration and its figures", "itself without figures"
    unit, gate, aim = "us", 1.03, 1.01

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._with, self._without = rig.a_server("figures"), rig.a_server("no-figures", changed_by=_WITHOUT_FIGURES)
        for server in (self._with, self._without):
            put_group(rig, server)
        self._runs = count()

    def round(self) -> Sample:
        run = next(self._runs)
        return Sample(
            cost(self._with, self._rig.devices(OPERATIONS, f"figures-{run}")),
            cost(self._without, self._rig.devices(OPERATIONS, f"no-figures-{run}")),
        )


def cost(server: RunningServer, devices: list[Device]) -> float:
    """Return what a registration costs `server`; each is in its database afterwards."""
    before = _registered(server)
    spent = cpu_us_each(server.pid, lambda: each(lambda d: register(server, d), devices))
    assert _registered(server) - before == len(devices)
    return spent


def put_group(rig: Rig, server: RunningServer) -> bool:
    """Put the rig's CA on record, and a group by it."""
    server.run("dps", "ca", "create", "bench", str(rig.ca_file), "--verified")
    server.run("device", "enroll-group", "bench", "--ca-name", "bench")
    return True


def _filled(rig: Rig, size: int) -> RunningServer:
    """Start a server with `size` individual enrollments: one by the command, the others copies of its row."""
    server = rig.a_server(f"data-{size}")
    put_group(rig, server)
    pem = rig.directory / "one.pem"
    rig.devices(1, "one")
    pem.write_text((rig.directory / "device.pem").read_text())
    server.run("device", "enroll", "--cert", str(pem))
    server.stop()
    copy: Callable[[int], str] = lambda number: f"copy-{number:06}"  # noqa: E731 - a name for what is handed on
    with sqlite3.connect(server.data / "birthmark.db") as database:
        row = database.execute("SELECT scope, kind, id, document, etag FROM dps_enrollments WHERE kind != 'group'")
        scope, kind, name, document, etag = row.fetchone()
        rows = ((scope, kind, copy(n), document.replace(name, copy(n)), etag) for n in range(size - 1))
        database.executemany(
            "INSERT INTO dps_enrollments (scope, kind, id, document, etag) VALUES (?, ?, ?, ?, ?)", rows
        )
    database.close()
    return server.start()


def _registered(server: RunningServer) -> int:
    with sqlite3.connect(f"file:{server.data}/birthmark.db?mode=ro", uri=True) as database:
        return int(database.execute("SELECT count(*) FROM dps_registrations").fetchone()[0])
