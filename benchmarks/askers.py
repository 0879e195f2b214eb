"""Devices that ask and wait for the answer, on connections that stay: twins, shadows, methods."""

import select
import ssl
from collections.abc import Callable, Sequence

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish, Subscribe

_PATIENCE_S = 30
Ask = Callable[[int, int], bytes]
"""The packet that a client, by its number, asks with the n-th time."""


class Asker:
    """One connection. `take` reads, acknowledges, and says whether a message came to a topic with `mark` in it."""

    def __init__(self, sock: ssl.SSLSocket, filters: Sequence[tuple[str, int]], mark: bytes) -> None:
        self.sock = sock
        self._mark = mark
        self._rest = b""
        sock.settimeout(_PATIENCE_S)
        sock.sendall(codec.encode(Subscribe(1, tuple(filters))))
        answer = sock.recv(64)
        assert answer[0] == 0x90, answer
        assert not set(answer[4:]) & {0x80}, answer
        sock.settimeout(0)
        self.last = b""

    def take(self) -> bool:
        """Read what is there; `last` is the packet with the mark."""
        found, answers = False, b""
        try:
            while data := self.sock.recv(65536):
                self._rest += data
            raise AssertionError("the server closed a connection")
        except ssl.SSLWantReadError:
            pass
        while (cut := _cut(self._rest)) is not None:
            place, end = cut
            packet, self._rest = self._rest[:end], self._rest[end:]
            if packet[0] & 0xF0 != 0x30:
                continue
            size = packet[place] << 8 | packet[place + 1]
            if packet[0] & 0x06:
                answers += b"\x40\x02" + packet[place + 2 + size : place + 4 + size]
            if self._mark in packet[place + 2 : place + 2 + size]:
                found, self.last = True, packet
        if answers:
            self.sock.send(answers)
        return found


def _cut(data: bytes) -> tuple[int, int] | None:
    """Return where the first packet's content begins and where it ends, if all of it is there."""
    if len(data) < 2:
        return None
    length, place = data[1] & 0x7F, 2
    while data[place - 1] & 0x80:
        if len(data) <= place:
            return None
        length |= (data[place] & 0x7F) << 7 * (place - 1)
        place += 1
    return (place, place + length) if len(data) >= place + length else None


def ask(askers: Sequence[Asker], rounds: int, request: Ask) -> int:
    """Have each ask `rounds` times, one question at a time; return how many answers came."""
    poll, numbers = select.epoll(), {asker.sock.fileno(): number for number, asker in enumerate(askers)}
    for number, asker in enumerate(askers):
        poll.register(asker.sock.fileno(), select.EPOLLIN)
        asker.sock.send(request(number, 0))
    done, busy = [0] * len(askers), len(askers)
    while busy:
        ready = poll.poll(_PATIENCE_S)
        assert ready, f"{busy} clients got no answer"
        for file, _ in ready:
            number = numbers[file]
            if not askers[number].take():
                continue
            done[number] += 1
            if done[number] < rounds:
                askers[number].sock.send(request(number, done[number]))
            else:
                busy -= 1
    poll.close()
    return rounds * len(askers)


def message(topic: str, body: bytes, qos: int) -> bytes:
    """Return a PUBLISH."""
    return codec.encode(Publish(topic, body, qos, packet_id=1 if qos else None))
