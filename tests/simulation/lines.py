"""Devices on simulated workers: MQTT bytes to the real pump of a connection, over a line without TLS or sockets."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, Packet, PubAck, Publish
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.tls import TlsPeer
from simulation.rooms import RoomWorker
from simulation.virtual import VirtualTimer

P = TypeVar("P")
ADDRESS = "192.0.2.1"


class Line:
    """One connection: the pump's transport, and the engine of the client at its other end.

    What the client sends comes in its order, and late; what the server writes is there at once. Nothing comes through
    once its worker is killed.
    """

    def __init__(self, worker: RoomWorker, peer: TlsPeer, hear: Callable[["Line", Packet], None]) -> None:
        self.worker = worker
        self.client = MqttEngine(MqttRole.CLIENT)
        self.is_open = self.is_over = False
        self.heard: list[Packet] = []
        self._hear = hear
        self._is_paused = False
        self._came: deque[bytes] = deque()
        self._deadline: VirtualTimer | None = None
        self.driver: MqttDriver = worker.process.call(lambda: worker.doors.mqtt(peer))
        worker.process.call(lambda: self.driver.start(self, ADDRESS))

    def got(self, kind: type[P]) -> list[P]:
        return [packet for packet in self.heard if isinstance(packet, kind)]

    # ---- the client's end

    def say(self, *packets: Packet) -> None:
        """Send packets; nothing is sent on a line that is over."""
        if self.is_over:
            return
        for packet in packets:
            self.client.send(packet)
        data = self.client.data_to_send()
        self._ask("bytes", lambda: self._bring(data))

    def cut(self) -> None:
        """Be gone without a word: the worker hears of it behind what was sent."""
        if not self.is_over:
            self.is_over = True
            self._ask("bytes", self._lose)

    def _ask(self, what: str, act: Callable[[], Any]) -> None:
        self.worker.house.world.ask_for(self.worker.name, what, act, self)

    async def _bring(self, data: bytes) -> None:
        self._came.append(data)
        self.worker.process.call(self._hand_on)

    async def _lose(self) -> None:
        self.worker.process.call(lambda: self.driver.connection_lost(None))

    def _hand_on(self) -> None:
        while self._came and not self._is_paused:
            self.driver.data_received(self._came.popleft())

    # ---- the driver's transport

    def write(self, data: bytes) -> None:
        if self.is_over or not self.worker.is_alive:
            return
        self.client.receive_data(data, 0.0)
        while (packet := self.client.next_event()) is not None:
            self.heard.append(packet)
            self._hear(self, packet)

    def close(self) -> None:
        if self.worker.is_alive:
            self.is_over = True
            self.set_deadline(None)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._hand_on()

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if after_s is not None and act is not None:
            process = self.worker.process
            self._deadline = process.world.call_later(process.name, after_s, lambda: process.call(act))

    def mark_authenticated(self, owner: str) -> None: ...

    def record_incomplete(self, size: int) -> None: ...


@dataclass
class Client:
    """Somebody with a certificate and a client id, whatever connections it has had."""

    name: str
    peer: TlsPeer
    lines: list[Line] = field(default_factory=list)
    acknowledges: bool = True

    @property
    def line(self) -> Line:
        """Return its newest connection."""
        return self.lines[-1]

    @property
    def is_there(self) -> bool:
        return bool(self.lines) and self.line.is_open and not self.line.is_over

    def begin(self, worker: RoomWorker, connect: Connect) -> Line:
        """Send CONNECT on a line of its own."""
        line = Line(worker, self.peer, self.hear)
        self.lines.append(line)
        line.say(connect)
        return line

    def hear(self, line: Line, packet: Packet) -> None:
        """Take note of a packet; acknowledge a message, unless this client holds its acknowledgements back."""
        if isinstance(packet, ConnAck):
            line.is_open = not packet.code
        elif isinstance(packet, Publish):
            self.came(line, packet)
            if packet.packet_id is not None and self.acknowledges:
                line.say(PubAck(packet.packet_id))

    def came(self, line: Line, message: Publish) -> None:
        """Take note of a message."""

    def killed(self, worker: RoomWorker) -> None:
        """Notice that its worker is gone."""
        for line in self.lines:
            if line.worker is worker:
                line.is_over = True


def peer_of(certificate: Any, chain: Sequence[Any] = (), alpn: bytes = b"") -> TlsPeer:
    """Return what a handshake with this certificate would have proved."""
    return TlsPeer(certificate, tuple(chain), alpn, "", "TLSv1.3")
