"""`birthmark test-server` as a child process of the tests: input lines are commands, output lines their results."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from birthmark.errors import BirthmarkError

_PROGRAM = (sys.executable, "-c", "from birthmark.cli.app import main; main()")
_PATIENCE_S = 60.0
_NOT_ITS = ("BIRTHMARK_DATA", "BIRTHMARK_LISTEN", "BIRTHMARK_DATABASE", "BIRTHMARK_CONFIG", "BIRTHMARK_LOGIN")


class ServerEndedError(RuntimeError):
    """The test server did not start, ended, or does not answer; the message has the end of its log."""


class TestServer:
    """A test server process. Threads use it in turn. `config` is its TOML file."""

    is_kept = False
    """Each test starts with a clean state."""
    __test__ = False  # pytest would collect this name

    def __init__(
        self,
        config: Path | str | None = None,
        *,
        program: Sequence[str] = _PROGRAM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [*program, "test-server", "--json", *([] if config is None else ["--config", str(config)])]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._logged = 0
        self._begun = b""
        self._turn = threading.Lock()
        self._is_lost = False
        self.endpoints: dict[str, Any] = {}
        leave = weakref.WeakMethod(self._leave)
        os.register_at_fork(after_in_child=lambda: None if (known := leave()) is None else known())

    @property
    def is_running(self) -> bool:
        """Whether the server can receive commands."""
        return not self._is_lost and self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, and wait until it is ready. Raise `ServerEndedError`."""
        known = os.environ if self._environment is None else self._environment
        self._log, self._begun = tempfile.TemporaryFile(), b""  # noqa: SIM115 - closed by `stop`
        self._is_lost, self._logged = False, 0
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={name: value for name, value in known.items() if name not in _NOT_ITS},
            start_new_session=True,  # Ctrl-C is for the tests, which end it
        )
        self.endpoints = self._answer()

    def ask(self, word: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command. Raise the `BirthmarkError` of its result, or `ServerEndedError`."""
        with self._turn:
            answer = self._asked(word)
        if "error" in answer:
            refused = BirthmarkError()
            refused.quote(code=answer["error"], **{name: answer[name] for name in ("message", "cause", "fix")})
            raise refused
        if word.get("do") == "reset":
            self.endpoints, self._logged = answer, os.fstat(self._log.fileno()).st_size
        return answer

    def log(self) -> str:
        """Return its log since the last reset."""
        if self._log is None or self._log.closed:
            return ""
        descriptor = self._log.fileno()  # shared with the server: its file offset must not move
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size - self._logged, self._logged).decode(errors="replace")

    def _leave(self) -> None:
        """Detach the server in a forked child of a test: it belongs to the parent and ends with it."""
        self._turn = threading.Lock()
        if self._process is None:
            return
        process, self._process = self._process, None
        process.returncode = 0  # it counts as ended here
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.raw.close()  # type: ignore[attr-defined] # drops buffered data

    def _asked(self, word: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.stdin is None:
            raise self._ended("was not started")
        if self._is_lost:
            raise self._ended("has a pending response to an interrupted request")
        self._is_lost = True  # an interrupt leaves a stale answer, which does not fit the next request
        try:
            self._process.stdin.write(json.dumps(word).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended("has ended") from error
        answer = self._answer()
        self._is_lost = False
        return answer

    def stop(self) -> None:
        """Close its input to stop it; kill it if it does not end."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unread input when it ended
                    pipe.close()
        try:
            process.wait(_PATIENCE_S / 4)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._begun:
            if not select.select([descriptor], [], [], _PATIENCE_S)[0]:
                raise self._ended(f"did not respond within {_PATIENCE_S:g} s")
            if not (data := os.read(descriptor, 65536)):
                raise self._ended("did not start" if not self.endpoints else "has ended")
            self._begun += data
        line, _, self._begun = self._begun.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self, what: str) -> ServerEndedError:
        return ServerEndedError(f"the test server {what}; its log: {self.log()[-2000:].strip() or '-'}")
