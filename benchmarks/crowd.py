"""Clients of a broker: many that publish as fast as they are acknowledged, and some that take what comes."""

import select
import ssl
import time
from collections.abc import Callable, Sequence

from rig import Device, connected
from swarm import PAYLOAD, Broker

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, Publish, Subscribe

_PUBACK_BYTES = 4
_PATIENCE_S = 30


def open_client(broker: Broker, device: Device, client_id: str, *, clean: bool) -> ssl.SSLSocket:
    """Return a connection whose CONNECT was taken."""
    sock = connected(broker.address, broker.port, device.context)
    sock.sendall(codec.encode(Connect(client_id, clean_start=clean, keep_alive_s=1000)))
    answer = sock.recv(16)
    assert answer[:2] == b"\x20\x02", answer
    assert answer[3] == 0, answer
    return sock


class Sink:
    """A subscriber that acknowledges at once and counts."""

    def __init__(self, broker: Broker, device: Device, client_id: str, topic_filter: str, *, clean: bool) -> None:
        self.sock = open_client(broker, device, client_id, clean=clean)
        self.sock.sendall(codec.encode(Subscribe(1, ((topic_filter, 1),))))
        answer = self.sock.recv(64)
        assert answer[0] == 0x90, answer
        self.sock.settimeout(0)
        self._rest = b""
        self.count = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def take(self) -> None:
        """Read what is there, acknowledge and count it."""
        answers: list[bytes] = []
        try:
            while data := self.sock.recv(65536):
                self._rest += data
                self._cut(answers)
            raise AssertionError(f"the broker closed a sink's connection after {self.count} messages")
        except ssl.SSLWantReadError:
            pass
        if answers:
            self.sock.settimeout(_PATIENCE_S)
            self.sock.sendall(b"".join(answers))
            self.sock.settimeout(0)

    def _cut(self, answers: list[bytes]) -> None:
        data, at = self._rest, 0
        while len(data) - at >= 5:
            length, place = data[at + 1], at + 2
            if length & 0x80:
                length, place = length & 0x7F | data[at + 2] << 7, at + 3
            if len(data) < place + length:
                break
            if data[at] & 0xF0 == 0x30:
                self.count += 1
                topic = data[place] << 8 | data[place + 1]
                if data[at] & 0x06:
                    answers.append(b"\x40\x02" + data[place + 2 + topic : place + 4 + topic])
            at = place + length
        self._rest = data[at:]


class Crowd:
    """Connections that publish."""

    def __init__(
        self,
        broker: Broker,
        devices: Sequence[Device],
        name: str,
        opened: Callable[[str], ssl.SSLSocket] | None = None,
    ) -> None:
        self._sockets: dict[int, tuple[ssl.SSLSocket, int]] = {}
        for number, device in enumerate(devices):
            client = f"{name}-{number}"
            sock = open_client(broker, device, client, clean=True) if opened is None else opened(client)
            sock.settimeout(0)
            self._sockets[sock.fileno()] = sock, number

    def publish(  # noqa: C901, PLR0912 (one loop over whoever is ready, as cheap as it gets)
        self, in_flight: int, rounds: int, sinks: Sequence[Sink], prefix: str
    ) -> int:
        """Have each connection send `in_flight` messages at once, and again when all are acknowledged.

        Return how many that were, when every sink has all of them.
        """
        poll = select.epoll()
        want, ids = _PUBACK_BYTES * in_flight, range(1, in_flight + 1)
        bursts: dict[int, bytes] = {}
        for number, (_, place) in self._sockets.items():
            topic = f"{prefix}/{place}"
            bursts[number] = b"".join(codec.encode(Publish(topic, PAYLOAD, 1, packet_id=one)) for one in ids)
            poll.register(number, select.EPOLLIN)
        takers = {sink.fileno(): sink for sink in sinks}
        for number in takers:
            poll.register(number, select.EPOLLIN)
        total = rounds * len(bursts) * in_flight
        until = {number: sink.count + total for number, sink in takers.items()}
        awaited, left = dict.fromkeys(bursts, want), dict.fromkeys(bursts, rounds - 1)
        for number, (sock, _) in self._sockets.items():
            sock.send(bursts[number])
        sent, most, ready = len(bursts) * in_flight, len(bursts) * in_flight, list[int]()
        busy, waiting, deadline = len(bursts), set(takers), time.monotonic() + 60
        while busy or waiting:
            lack = [until[at] - takers[at].count for at in waiting]
            assert time.monotonic() < deadline, f"{busy} publishers are not done, sinks lack {lack[:3]}"
            for number, _ in poll.poll(5):
                if number in takers:
                    takers[number].take()
                    if takers[number].count >= until[number]:
                        waiting.discard(number)
                    continue
                sock = self._sockets[number][0]
                try:
                    while data := sock.recv(4096):
                        awaited[number] -= len(data)
                    raise AssertionError("the broker closed a publisher's connection")
                except ssl.SSLWantReadError:
                    pass
                if awaited[number]:
                    continue
                if left[number]:
                    ready.append(number)
                else:
                    busy -= 1
            # Nobody runs ahead of the sinks: a broker drops what it cannot hold for them.
            arrived = min((sink.count - until[at] + total for at, sink in takers.items()), default=sent)
            while ready and sent + in_flight - arrived <= most:
                number = ready.pop()
                left[number] -= 1
                awaited[number] = want
                self._sockets[number][0].send(bursts[number])
                sent += in_flight
        poll.close()
        assert all(sink.count == until[number] for number, sink in takers.items()), "more arrived than was sent"
        return total
