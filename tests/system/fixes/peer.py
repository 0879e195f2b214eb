"""Somebody else's server, or one that stumbles: it says one wrong thing; healed, it passes all on to ours."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fixes.scene import Scene

from birthmark.ca.key_files import read_key
from support.pki.pki_builders import key_pem
from support.server.servers import free_address

Say = Callable[[socket.socket], object]
PEER = free_address()
NAMED = f'names = ["{PEER}"]\n'
"""For the configuration of a server that is reached through the peer as well."""


@dataclass
class Peer:
    """Listens where it is told; `say` answers each connection until `heal` is called."""

    scene: Scene
    say: Say | None
    port: int
    host: str = PEER
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        listener = socket.create_server((self.host, self.port))
        self.scene.closing.callback(listener.close)
        self.scene.closing.callback(listener.shutdown, socket.SHUT_RDWR)
        self.scene.closing.callback(self._over.set)
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def heal(self) -> None:
        self.say = None

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(60)
            if self.say is None:
                self._pass_on(sock)
            else:
                self.say(sock)

    def _pass_on(self, sock: socket.socket) -> None:
        assert self.scene.server is not None
        with socket.create_connection((self.scene.server.address, self.port)) as beyond:
            back = threading.Thread(target=_pump, args=(beyond, sock), daemon=True)
            back.start()
            _pump(sock, beyond)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def by_tls(scene: Scene, say: Say, *, asks_for_certificate: bool = False) -> Say:
    """Speak behind TLS, with our server's own certificate."""
    assert scene.server is not None
    tls = scene.server.data / "tls"
    key = read_key(tls / "server.key", (scene.server.data / "tls.passphrase").read_bytes().strip())
    plain = scene.directory / "peer.key"
    plain.write_text(key_pem(key))

    def answer(sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", plain)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(tls / "server.pem")
        with sock.dup() as kept:
            try:
                with context.wrap_socket(sock, server_side=True) as secure:
                    say(secure)
            except ssl.SSLError:  # read on, so that a reset does not overtake the alert
                silence(kept)

    return answer


def saying(*answers: bytes | Callable[[bytes], bytes]) -> Say:
    """Answer each thing that is said; then hang up."""

    def say(sock: socket.socket) -> None:
        for answer in answers:
            heard = sock.recv(65536)
            sock.sendall(answer(heard) if callable(answer) else answer)
            sock.settimeout(5)
        with contextlib.suppress(OSError):
            sock.recv(65536)

    return say


def silence(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


CONNACK = b"\x20\x02\x00"


def suback(heard: bytes) -> bytes:
    """Answer a SUBSCRIBE to one filter."""
    return b"\x90\x03" + heard[2:4] + b"\x00"


def suback_refused(heard: bytes) -> bytes:
    """Answer a SUBSCRIBE, which has its packet id after two bytes."""
    return b"\x90\x03" + heard[2:4] + b"\x80"
