"""A real Chromium, driven by its DevTools protocol: no more of it than a walk over some pages takes."""

import contextlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
)


class LeftError(AssertionError):
    """The page that was asked is not there any more."""


class Tab:
    """One page of it."""

    def __init__(self, socket: Connection) -> None:
        self._socket, self._numbers = socket, count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(30))
            if told.get("id") == number:
                if "navigated" in told.get("error", {}).get("message", ""):
                    raise LeftError(told)
                assert "error" not in told, told
                return dict(told["result"])

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return what a script says, as somebody types it into the console."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> None:
        """Return when a script says yes on a page that is loaded."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            asked = f"document.readyState === 'complete' && ({script})"
            try:
                if self.evaluate(asked) is True:
                    return
            except LeftError:  # the page went while it was asked; the next one may say yes
                pass
            time.sleep(0.05)
        raise AssertionError(f"{script}: {self.evaluate('location.href + document.documentElement.outerHTML')}")

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.evaluate(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)}")

    def click(self, text: str) -> None:
        found = f"[...document.querySelectorAll('button, a')].find((one) => one.textContent === {json.dumps(text)})"
        self.evaluate(f"{found}.click()")


@contextlib.contextmanager
def a_tab(directory: Path) -> Iterator[Tab]:
    """Run a browser that knows nothing yet."""
    command = ["chromium", *_OPTIONS, f"--user-data-dir={directory / 'profile'}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        try:
            found = next(filter(None, (re.search(r"ws://([^/]+)/", line) for line in process.stderr)))
            with urllib.request.urlopen(f"http://{found[1]}/json/list", timeout=10) as answer:
                (page,) = (one for one in json.load(answer) if one["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Tab(socket)
        finally:
            process.kill()
