"""Devices as MQTT clients: one that connects and goes, and many that publish as fast as they are acknowledged."""

import select
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from rig import Device, connected

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, Publish

PAYLOAD = b'{"temperature":21.5,"humidity":48.25,"pressure":1013.2,"battery":3.71,"ok":true}'
_PUBACK_BYTES = 4
_DISCONNECT = b"\xe0\x00"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the clients go; `host` is the hub's name in their user names, empty for who wants none."""

    address: str
    port: int
    host: str = ""


def connect(broker: Broker, device: Device) -> ssl.SSLSocket:
    """Return a connection whose CONNECT was taken."""
    sock = connected(broker.address, broker.port, device.context)
    username = f"{broker.host}/{device.name}/?api-version=2021-04-12" if broker.host else None
    sock.sendall(codec.encode(Connect(device.name, clean_start=True, keep_alive_s=1000, username=username)))
    answer = sock.recv(16)
    assert answer == b"\x20\x02\x00\x00", answer
    return sock


def visit(broker: Broker, device: Device) -> None:
    """Connect, then go."""
    sock = connect(broker, device)
    sock.sendall(_DISCONNECT)
    sock.close()


class Publishers:
    """A connection for each device, to one broker."""

    def __init__(self, broker: Broker, devices: Sequence[Device]) -> None:
        self._sockets: dict[int, tuple[ssl.SSLSocket, str]] = {}
        self._poll = select.epoll()
        for device in devices:
            sock = connect(broker, device)
            sock.settimeout(0)
            self._sockets[sock.fileno()] = sock, f"devices/{device.name}/messages/events/"
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def publish(self, in_flight: int, rounds: int, *, each: bool = False) -> int:
        """Have each device send `in_flight` messages of QoS 1 in one write, and again when all are acknowledged.

        `each` sends every message in a TLS record of its own, as most SDKs do.

        Return how many that were after `rounds` of it.
        """
        want, ids = _PUBACK_BYTES * in_flight, range(1, in_flight + 1)
        bursts = {
            number: [codec.encode(Publish(topic, PAYLOAD, 1, packet_id=packet_id)) for packet_id in ids]
            for number, (_, topic) in self._sockets.items()
        }
        if not each:
            bursts = {number: [b"".join(packets)] for number, packets in bursts.items()}
        awaited, left = dict.fromkeys(bursts, want), dict.fromkeys(bursts, rounds - 1)
        for number, (sock, _) in self._sockets.items():
            _send(sock, bursts[number])
        busy = len(bursts)
        while busy:
            for number, _ in self._poll.poll(30):
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
                    left[number] -= 1
                    awaited[number] = want
                    _send(sock, bursts[number])
                else:
                    busy -= 1
        return rounds * len(bursts) * in_flight


def _send(sock: ssl.SSLSocket, records: Sequence[bytes]) -> None:
    for record in records:
        sock.send(record)
