"""One device that floods a server with what it may send, and a witness beside it: shared by the tests and the soak.

A flood is a program of its own (`python floods.py '{...}'`): it encrypts whole rounds of packets, each in a TLS record
of its own or many in one, and writes them as fast as the server reads. It prints how many bytes it has sent so far when
it is asked by a line, so that a witness can say how much of the flood went before its own turn.
"""

import base64
import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from birthmark.amqp.composite import encode_composite
from birthmark.amqp.framer import AMQP_HEADER, SASL_FRAME, SASL_HEADER, encode_frame
from birthmark.amqp.message import AmqpMessage, DataBody, write_message
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    End,
    Flow,
    Open,
    Performative,
    Source,
    Target,
    Transfer,
    encode_performative,
)
from birthmark.amqp.sasl import SaslInit
from birthmark.amqp.values import Symbol
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, Packet, PingReq, PubAck, Publish, Subscribe, Unsubscribe

BEGUN = b"\x00\x53\x11"
"""How the answer to a BEGIN begins."""
ROUND_BYTES = 128 * 1024
RECORD_BYTES = 16384
KINDS: Mapping[str, tuple[str, int]] = {
    # what is sent: to which cloud, at which level
    "denied filters": ("aws", 5),
    "filters": ("aws", 5),
    "unsubscribes": ("aws", 5),
    "denied messages": ("aws", 5),
    "pings": ("aws", 4),
    "messages of QoS 0": ("aws", 4),
    "messages of QoS 1": ("aws", 4),
    "messages that cost a rule much": ("aws", 4),
    "acknowledgements of nothing": ("aws", 4),
    "shadows that are too large": ("aws", 4),
    "shadow updates": ("aws", 4),
    "method answers": ("hub", 4),
    "twin patches that are too large": ("hub", 4),
    "twin patches": ("hub", 4),
    "twin reads": ("hub", 4),
    "telemetry of QoS 0": ("hub", 4),
    "AMQP sessions": ("amqp", 0),
    "AMQP links to nowhere": ("amqp", 0),
    "AMQP readers": ("amqp", 0),
    "AMQP flows": ("amqp", 0),
    "AMQP links of a device": ("amqp", 0),
    "AMQP telemetry": ("amqp", 0),
    "AMQP twin requests": ("amqp", 0),
    "requests without rights": ("http", 0),
    "requests for certificates": ("http", 0),
    "chunks of a byte": ("http", 0),
}


@dataclass(frozen=True)
class Visit:
    """Who connects where, and how."""

    address: str
    cloud: str
    name: str
    certificate: str
    key: str
    host: str
    level: int = 4
    over_websocket: bool = False
    token: str = ""

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.certificate, self.key)
        return context

    def hello(self) -> bytes:
        if self.cloud == "amqp":
            plain = SaslInit("PLAIN", f"\0iothubowner@sas.root.birthmark\0{self.token}".encode(), self.host)
            sasl = SASL_HEADER + encode_frame(0, encode_composite(plain), SASL_FRAME)
            return sasl + AMQP_HEADER + amqp_frame(Open(self.name, self.host)) + amqp_frame(Begin(None, 0, 2048, 2048))
        user = f"{self.host}/{self.name}/?api-version=2021-04-12" if self.cloud == "hub" else None
        packet = Connect(self.name, level=self.level, username=user, clean_start=True, keep_alive_s=600)
        return codec.encode(packet, self.level)

    @property
    def port(self) -> int:
        return 8443 if self.over_websocket or self.cloud == "http" else 5671 if self.cloud == "amqp" else 8883


class Line:
    """A TLS connection whose records are made by hand."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.raw = socket.create_connection((visit.address, visit.port), 60)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = visit.context().wrap_bio(self._in, self._out, server_hostname="localhost")
        self._handshake()
        self.plain = bytearray()
        if visit.over_websocket:
            self._upgrade()

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            else:
                self.flush()
                return

    def _upgrade(self) -> None:
        key = base64.b64encode(os.urandom(16))
        path, protocol = {
            "amqp": (b"/$servicebus/websocket", b"AMQPWSB10"),
            "hub": (b"/$iothub/websocket", b"mqtt"),
            "aws": (b"/mqtt", b"mqtt"),
        }[self.visit.cloud]
        self.seal(
            b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "
            + protocol
            + b"\r\nSec-WebSocket-Key: "
            + key
            + b"\r\n\r\n"
        )
        self.flush()
        while b"\r\n\r\n" not in self.plain:
            self.read()
        assert self.plain.startswith(b"HTTP/1.1 101"), self.plain
        del self.plain[: self.plain.index(b"\r\n\r\n") + 4]

    def _fill(self) -> None:
        data = self.raw.recv(262144)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._in.write(data)

    def seal(self, data: bytes) -> None:
        """Make one record of at most 16 KiB."""
        self._tls.write(data)

    def sealed(self) -> bytes:
        return self._out.read()

    def flush(self) -> None:
        if data := self._out.read():
            self.raw.sendall(data)

    def read(self) -> None:
        """Take what comes next into `plain`."""
        self._fill()
        try:
            while data := self._tls.read(65536):
                self.plain += data
        except ssl.SSLWantReadError:
            pass

    def framed(self, packets: bytes) -> bytes:
        """Return what carries packets: themselves, or a WebSocket frame of a client."""
        if not self.visit.over_websocket:
            return packets
        size = len(packets)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2) if size < 65536 else b""
        if not length:
            length = b"\xff" + size.to_bytes(8)
        return b"\x82" + length + bytes(4) + packets

    def open(self) -> Self:
        """Connect by MQTT or AMQP."""
        self.seal(self.framed(self.visit.hello()))
        self.flush()
        if self.visit.cloud == "amqp":
            while BEGUN not in self.plain:
                self.read()
            self.plain.clear()
            return self
        while len(self.plain) < (6 if self.visit.over_websocket else 4):
            self.read()
        answer = self.plain[2:] if self.visit.over_websocket else self.plain
        assert answer[0] == 0x20, bytes(answer)
        assert answer[3] == 0, bytes(answer)
        self.plain.clear()
        return self

    def close(self) -> None:
        self.raw.close()


def packets_of(kind: str, visit: Visit) -> list[bytes]:
    """Return some of what this flood is made of; all of it may be sent again and again."""
    cloud, level = KINDS[kind]
    large = b'{"a":[' + b"1," * 60_000 + b"1]}"
    made: dict[str, list[Packet]] = {
        "denied filters": [Subscribe(7, (("forbidden/x", 1),))],
        "filters": [Subscribe(7, (("open/x", 1),))],
        "unsubscribes": [Unsubscribe(7, ("open/x",))],
        "denied messages": [Publish("forbidden/x", b"x", 1, False, False, n) for n in range(1, 50)],
        "pings": [PingReq()],
        "messages of QoS 0": [Publish("open/x", b"x")],
        "messages of QoS 1": [Publish("open/x", b"x", 1, False, False, n) for n in range(1, 1000)],
        "messages that cost a rule much": [
            Publish("open/costly", b'{"n":%d,"text":"%s"}' % (n, b"a1 \xc3\xa9" * 7_000), 1, False, False, n)
            for n in range(1, 20)
        ],
        "acknowledgements of nothing": [PubAck(n) for n in range(1, 50)],
        "shadows that are too large": [
            Publish(f"$aws/things/{visit.name}/shadow/update", b'{"state":{"reported":%s}}' % large)
        ],
        "shadow updates": [
            Publish(f"$aws/things/{visit.name}/shadow/update", b'{"state":{"reported":{"a":%d}}}' % n)
            for n in range(50)
        ],
        "method answers": [Publish(f"$iothub/methods/res/200/?$rid={n}", b"{}") for n in range(50)],
        "twin patches that are too large": [Publish("$iothub/twin/PATCH/properties/reported/?$rid=1", large)],
        "twin patches": [
            Publish(f"$iothub/twin/PATCH/properties/reported/?$rid={n}", b'{"a":%d}' % n) for n in range(50)
        ],
        "twin reads": [Publish(f"$iothub/twin/GET/?$rid={n}", b"") for n in range(50)],
        "telemetry of QoS 0": [Publish(f"devices/{visit.name}/messages/events/", b"x")],
    }
    if cloud == "amqp":
        return [amqp_frame(*frame) for frame in amqp_frames_of(kind, visit.name)]
    if cloud != "http":
        return [codec.encode(packet, level) for packet in made[kind]]
    head = b"Host: x\r\nAuthorization: Basic eDp5\r\n"
    if kind == "requests without rights":
        return [b"POST /topics/forbidden?qos=1 HTTP/1.1\r\n" + head + b"Content-Length: 1\r\n\r\nx"]
    if kind == "requests for certificates":
        return [b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n"]
    begun = b"POST /topics/forbidden?qos=1 HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n"
    return [begun, *[b"1\r\nx\r\n"] * 2000, b"0\r\n\r\n"]


def amqp_frame(performative: Performative, channel: int = 0, payload: bytes = b"") -> bytes:
    return encode_frame(channel, encode_performative(performative) + payload)


def amqp_frames_of(kind: str, name: str) -> list[tuple[Performative, int, bytes]]:
    """Return performatives, channels and payloads, which the device `name` may send again and again."""
    nowhere, events = Source("nowhere"), Source("birthmark/ConsumerGroups/$Default/Partitions/0")
    telemetry, twin = Target(f"/devices/{name}/messages/events"), f"/devices/{name}/twin"
    get = write_message(AmqpMessage(DataBody((b"",)), message_annotations={Symbol("operation"): "GET"}))

    def sends(payload: bytes, count: int) -> list[tuple[Performative, int, bytes]]:
        return [(Transfer(0, n, b"t", 0, settled=True), 0, payload) for n in range(count)]

    def attached(target: Target) -> tuple[Performative, int, bytes]:
        return Attach("s", 0, SENDER, source=Source("me"), target=target, initial_delivery_count=0), 0, b""

    made: dict[str, list[tuple[Performative, int, bytes]]] = {
        "AMQP sessions": [(Begin(None, 0, 100, 100), 1, b""), (End(), 1, b"")],
        "AMQP links to nowhere": [
            (Attach("x", 0, RECEIVER, source=nowhere, target=Target("me")), 0, b""),
            (Detach(0), 0, b""),
        ],
        "AMQP readers": [(Attach("x", 0, RECEIVER, source=events, target=Target("me")), 0, b""), (Detach(0), 0, b"")],
        "AMQP flows": [(Flow(0, 2048, 0, 2048, echo=True), 0, b"")],
        "AMQP links of a device": [attached(telemetry), (Detach(0, closed=True), 0, b"")],
        "AMQP telemetry": [
            attached(telemetry),
            *sends(write_message(AmqpMessage(DataBody((b"x",)))), 90),
            (Detach(0, closed=True), 0, b""),
        ],
        "AMQP twin requests": [
            (Attach("r", 1, RECEIVER, source=Source(twin), target=Target("me")), 0, b""),
            (Flow(0, 2048, 0, 2048, 1, 0, 1000), 0, b""),
            attached(Target(twin)),
            *sends(get, 40),
            (Detach(0, closed=True), 0, b""),
            (Detach(1, closed=True), 0, b""),
        ],
    }
    return made[kind]


def flood(visit: Visit, kind: str, *, many_in_one: bool) -> None:
    """Send until standard input ends; answer each line there with the bytes sent so far."""
    line = Line(visit)
    if visit.cloud != "http":
        line.open()
    parts = [line.framed(packet) for packet in packets_of(kind, visit)]
    teller = Teller()
    if visit.cloud == "http":
        serve_http(line, parts, teller, many_in_one=many_in_one)
        return
    while True:
        with contextlib.suppress(OSError, ssl.SSLError):  # the server has closed the connection
            for waiting in rounds(line, parts, many_in_one=many_in_one):
                pour(line, waiting, teller)
                if teller.is_over:
                    return
        line.close()
        line = Line(visit).open()


class Teller:
    """Says how much was sent, to whoever asks by a line."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_over = False
        sys.stdout.write("flooding\n")
        sys.stdout.flush()

    def answer(self) -> None:
        if sys.stdin.readline():
            sys.stdout.write(f"{self.sent}\n")
            sys.stdout.flush()
        else:
            self.is_over = True


def pour(line: Line, waiting: bytes, teller: Teller) -> None:
    """Send, and read what comes meanwhile and throw it away."""
    at = 0
    while at < len(waiting) and not teller.is_over:
        readable, writable, _ = select.select([line.raw, sys.stdin], [line.raw], [], 1)
        if sys.stdin in readable:
            teller.answer()
        if line.raw in readable and not line.raw.recv(1 << 20):
            raise ConnectionResetError
        if line.raw in writable:
            done = line.raw.send(waiting[at : at + ROUND_BYTES])
            at += done
            teller.sent += done


def rounds(line: Line, parts: Sequence[bytes], *, many_in_one: bool) -> Iterator[bytes]:
    """Yield what goes over the line, some at a time."""
    line.raw.setblocking(False)
    at = 0
    while True:
        size, joined = 0, bytearray()
        while size < ROUND_BYTES:
            part = parts[at % len(parts)]
            at += 1
            size += len(part)
            if many_in_one and len(joined) + len(part) <= RECORD_BYTES:
                joined += part
                continue
            if joined:
                line.seal(bytes(joined))
                joined.clear()
            for cut in range(0, len(part), RECORD_BYTES):
                line.seal(part[cut : cut + RECORD_BYTES])
        if joined:
            line.seal(bytes(joined))
        yield line.sealed()


def serve_http(line: Line, parts: Sequence[bytes], teller: Teller, *, many_in_one: bool) -> None:
    """Send requests, eight ahead of their answers, and connect again where the server closes."""
    ahead = 8 if len(parts) == 1 else 1
    whole = b"".join(parts) * ahead if many_in_one else b""
    while not teller.is_over:
        if select.select([sys.stdin], [], [], 0)[0]:
            teller.answer()
        try:
            pieces = [whole[at : at + RECORD_BYTES] for at in range(0, len(whole), RECORD_BYTES)] or [*parts] * ahead
            for piece in pieces:
                line.seal(piece)
            data = line.sealed()
            teller.sent += len(data)
            line.raw.sendall(data)
            while line.plain.count(b"HTTP/1.1 ") < ahead:
                line.read()
            line.plain.clear()
        except (OSError, ssl.SSLError):
            line.close()
            line = Line(line.visit)


@dataclass
class Flood:
    """A flood that runs."""

    process: subprocess.Popen[str]

    def sent(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the flood ended"
        return int(line)


@contextlib.contextmanager
def a_flood(visit: Visit, kind: str, *, many_in_one: bool) -> Iterator[Flood]:
    told = {"visit": asdict(visit), "kind": kind, "many_in_one": many_in_one}
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "flooding\n"
    try:
        yield Flood(process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@dataclass
class Waits:
    """What a witness met: seconds, and how many bytes of the flood went meanwhile."""

    acknowledged: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    flooded: list[int] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max((*self.acknowledged, *self.connected))


def witness(visit: Visit, flood: Flood, *, times: int, pause_s: float = 0.02) -> Waits:
    """Publish and be acknowledged, and connect anew, again and again."""
    topic = f"devices/{visit.name}/messages/events/" if visit.cloud == "hub" else "open/witness"
    waits, line = Waits(), Line(visit).open()
    for number in range(1, times + 1):
        with measured(waits.acknowledged, waits, flood):
            line.seal(codec.encode(Publish(topic, b"here", 1, retain=False, dup=False, packet_id=number), visit.level))
            line.flush()
            while len(line.plain) < 4:
                line.read()
        assert line.plain[0] == 0x40, bytes(line.plain)
        line.plain.clear()
        time.sleep(pause_s)
        if number % 4 == 0:
            line.close()
            with measured(waits.connected, waits, flood):
                line = Line(visit).open()
    line.close()
    return waits


@contextlib.contextmanager
def measured(seconds: list[float], waits: Waits, flood: Flood) -> Iterator[None]:
    sent, started = flood.sent(), time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)
    waits.flooded.append(flood.sent() - sent)


def main() -> None:
    told: dict[str, Any] = json.loads(sys.argv[1])
    flood(Visit(**told["visit"]), told["kind"], many_in_one=told["many_in_one"])


if __name__ == "__main__":
    main()
