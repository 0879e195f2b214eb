"""One row's place: a shell with the server's variables, AWS's client, and clients that say what they are told."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fixes.applied import Apply
from fixes.scene import Scene

from support.azure.clients import Device, a_file_device
from support.server.servers import RunningServer

_CONNACK, _SUBACK, _FAILURE = 0x20, 0x90, 0x80


class RefusedError(Exception):
    """The server refused, in whatever way its protocol has."""


@dataclass
class Desk:
    """What a row may use; `scene` is its shell and directory."""

    scene: Scene
    server: RunningServer
    iot: Any
    device: Device | None = None

    def make_device(self, name: str, **options: Any) -> Device:
        """Make a device whose files are in the shell's environment."""
        self.device = a_file_device(self.scene.directory, name, **options)
        self.scene.environment |= {
            "X509_CERT_FILE": str(self.device.certificate_file),
            "X509_KEY_FILE": str(self.device.key_file),
        }
        return self.device

    def use_device(self, certificate: str, key: str) -> None:
        """Connect with these files from now on."""
        assert self.device is not None
        self.device = replace(self.device, certificate_file=self.path(certificate), key_file=self.path(key))

    def type(self, line: str) -> None:
        """Type a line; raise when it fails."""
        done = self.scene.type(line)
        if done.returncode != 0:
            raise RefusedError(f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def path(self, name: str) -> Path:
        return self.scene.directory / name

    def text(self, name: str) -> str:
        return self.path(name).read_text()

    def tls(self, port: int) -> ssl.SSLSocket:
        """Connect as the device, when there is one."""
        context = ssl.create_default_context(cafile=self.scene.environment["SSL_CERT_FILE"])
        if self.device is not None:
            context.load_cert_chain(self.device.certificate_file, self.device.key_file)
        raw = socket.create_connection((self.server.address, port), 10)
        return context.wrap_socket(raw, server_hostname=self.server.endpoints["dps"]["host"])

    def mqtt(self, connect: bytes, *packets: bytes) -> None:
        """Say packets, each after the answer to the one before; raise when one is refused."""
        with self.tls(8883) as sock:
            sock.settimeout(10)
            for packet in (connect, *packets):
                sock.sendall(packet)
                answer = _answer(sock)
                code = answer[3] if answer[0] == _CONNACK else answer[-1] if answer[0] == _SUBACK else 0
                if code >= (1 if answer[0] == _CONNACK else _FAILURE):
                    raise RefusedError(answer.hex())
            sock.sendall(b"\xe0\x00")

    def raw(self, data: bytes, port: int = 8443) -> bytes:
        """Say bytes of HTTP; return the answer, and raise when its status is none of success."""
        with self.tls(port) as sock:
            sock.settimeout(10)
            sock.sendall(data)
            head = b""
            with contextlib.suppress(OSError):
                while chunk := sock.recv(65536):
                    head += chunk
        if not head.startswith(b"HTTP/1.1 2"):
            raise RefusedError(head[:500])
        return head


def _answer(sock: ssl.SSLSocket) -> bytes:
    try:
        data = sock.recv(4096)
    except OSError as error:
        raise RefusedError(str(error)) from error
    if not data:
        raise RefusedError("the connection was closed")
    return data


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)[0], rest % 128
        length += bytes([digit | (0x80 if rest else 0)])
        if not rest:
            return bytes([first]) + length + body


def a_connect(
    client_id: str,
    username: str | None = None,
    *,
    clean: bool = True,
    level: int = 4,
    will: str | None = None,
    password: str = "",
) -> bytes:
    flags = (2 if clean else 0) | (0 if username is None else 0x80) | (0 if will is None else 4)
    flags |= 0x40 if password else 0
    body = _text("MQTT") + bytes([level, flags, 0, 60]) + (b"\0" if level > 4 else b"") + _text(client_id)
    secret = _text(password) if password else b""
    left = b"" if will is None else _text(will) + _text("gone")
    return _packet(0x10, body + left + (b"" if username is None else _text(username)) + secret)


def a_publish(topic: str, payload: bytes = b"hello", *, qos: int = 1, retain: bool = False) -> bytes:
    packet_id = b"\x00\x01" if qos else b""
    return _packet(0x30 | qos << 1 | retain, _text(topic) + packet_id + payload)


def a_subscribe(*filters: str) -> bytes:
    return _packet(0x82, b"\x00\x02" + b"".join(_text(one) + b"\x01" for one in filters))


@dataclass(frozen=True)
class Row:
    """`prepare` sets the desk; `act` is refused, the fix is typed, and `act` passes.

    With `is_instead` the fix is the corrected action itself, or shows what there is to choose from. `then` is the code
    of what is refused next, whose fix is typed too. With `apply` the fix is no command: it is done as `fixes.applied`
    has it.
    """

    act: Callable[[Desk], object]
    prepare: Callable[[Desk], object] = lambda _desk: None
    is_instead: bool = False
    then: Sequence[str] = ()
    apply: Apply | None = None


def steps(*each: Callable[[Desk], object]) -> Callable[[Desk], None]:
    def run(desk: Desk) -> None:
        for step in each:
            step(desk)

    return run


def typing(*lines: str) -> Callable[[Desk], None]:
    return steps(*[lambda desk, line=line: desk.type(line) for line in lines])
