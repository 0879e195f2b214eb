"""Receivers that rules send to: an HTTP server that keeps what it gets, and a mosquitto."""

import contextlib
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from support.services.postgres import free_port


@dataclass
class Got:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    """What it was answered."""


@dataclass
class Receiver:
    """An HTTP server on loopback; `status` is what it answers, and `delay_s` later."""

    status: int = 200
    delay_s: float = 0.0
    got: list[Got] = field(default_factory=list)
    location: str = ""

    def __enter__(self) -> Self:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                if len(body := self.rfile.read(length)) < length:
                    return  # who sent it was killed meanwhile
                got = Got(self.path, dict(self.headers.items()), body, outer.status)
                outer.got.append(got)
                time.sleep(outer.delay_s)
                self.send_response(got.status)
                if outer.location:
                    self.send_header("location", outer.location)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def bodies(self, path: str, status: int | None = None) -> list[bytes]:
        """What came to `path`, and, where `status` says so, was answered with that."""
        return [one.body for one in self.got if one.path == path and status in (None, one.status)]


@contextlib.contextmanager
def a_mosquitto(directory: Path) -> Iterator[int]:
    """Run a mosquitto that lets anybody in, and return its port."""
    port = free_port()
    config = directory / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    assert program is not None
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()
