"""What stands for functions of AWS Lambda: an HTTP server that checks who calls it, and answers as a test tells it."""

import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from birthmark.outbound.webhook_signature import headers_of, secret_of

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
SECRET = secret_of(b"f" * 32)


class FunctionServer:
    """Functions by the path of their address; `events` are what they were asked."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                said = {name.lower(): value for name, value in self.headers.items()}
                again = headers_of(said["webhook-id"], int(said["webhook-timestamp"]), body, [SECRET])
                assert said["webhook-signature"] == again["webhook-signature"]
                event = json.loads(body)
                outer.events.append(event)
                try:
                    answer = json.dumps(outer.answers[self.path.strip("/")](event)).encode()
                    status = 200
                except Exception:  # noqa: BLE001 - as a function fails, whatever the reason
                    answer, status = b"{}", 500
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def config(self, directory: Path, *names: str) -> str:
        """Return what a server's configuration says of these functions."""
        secret = directory / "function.secret"
        secret.write_text(f"{SECRET}\n")
        port = self._server.server_address[1]
        tables = (
            f'[functions."{ARN}{name}"]\nurl = "http://127.0.0.1:{port}/{name}"\nsecret_file = "{secret}"\n'
            for name in names
        )
        return '[outbound]\nallow = ["127.0.0.1/32"]\n' + "".join(tables)
