"""A webhook: agrees that rules may send to it, and notes what they send, a line each, in its file.

    python webhook_receiver.py FILE

Uses nothing but Python. It prints its port. SSL_CERT_FILE names the root that the server's link is trusted by.
"""

import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
        if self.headers["x-amz-rules-engine-message-type"] == "DestinationConfirmation":
            link = json.loads(body)["enableUrl"]
            with urllib.request.urlopen(link):  # noqa: S310 - an https link of the server that was asked to send it
                pass
            return
        with _LOCK, Path(sys.argv[1]).open("ab") as file:
            file.write(body + b"\n")

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
