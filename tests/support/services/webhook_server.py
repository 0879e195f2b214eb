"""What stands for a user's own program: an HTTP server that answers as a test tells it."""

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any, Self

Answer = tuple[int, Any]


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


class WebhookServer:
    """`asked` is what it was asked, with its path; `answers` says by the path what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Answer]] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, request))
                status, answer = outer.answers[self.path.partition("?")[0]](request)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if status == http.HTTPStatus.FOUND:
                    self.send_header("location", "/other")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"
