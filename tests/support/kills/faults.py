"""Faults at counted steps of a process: killed, disk full, disk read-only, token pulled out; and a child to meet them.

Steps are changes of files below a root (heard from the interpreter), changes in a token, and what a caller adds.
"""

import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import birthmark.agent.key_store

_MUTATIONS = {"os.rename", "os.remove", "os.mkdir", "os.truncate"}


@dataclass
class Fault:
    """Meets number `at` and what follows; a fault without a number is there from the beginning."""

    kind: str = "none"
    at: int = 0
    count: int = 0
    where: str = ""
    root: Path = Path()
    tokens: Path = Path()
    is_on: bool = False

    def step(self, what: str, *, is_write: bool = False, is_creating: bool = False) -> None:
        """Count one boundary. A disk's trouble stays from here on."""
        if not self.is_on:
            return
        self.count += 1
        if self.count == self.at:
            self.where = what
            sys.stderr.write(what + "\n")
            if self.kind in ("kill", "power"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "pulled":
                self.is_on = False
                self.tokens.rename(self.tokens.with_name("away"))
                self.is_on = True
        if self.count >= self.at:
            if self.kind == "full" and is_creating:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what)
            if self.kind == "read-only" and is_write:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), what)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Hear of what the interpreter is about to do to a file."""
        if not self.is_on or (event != "open" and event not in _MUTATIONS):
            return
        path = args[0]
        if not isinstance(path, str | os.PathLike) or self.root not in Path(path).parents:
            return
        flags = args[2] if event == "open" else os.O_WRONLY
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            is_creating = event == "os.mkdir" or (event == "open" and bool(flags & os.O_CREAT))
            self.step(f"{event} {Path(path).name}", is_write=True, is_creating=is_creating)

    def around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}")
            result = function(*args, **kwargs)
            self.step(f"after {name}")
            return result

        return call

    def install(self) -> None:
        """Count from now on, in this process, which never gets rid of it."""
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            self.step("fsync", is_creating=True)
            fsync(descriptor)

        vars(os)["fsync"] = synced
        for name in ("generate", "destroy"):
            setattr(
                birthmark.agent.key_store,
                name,
                self.around(getattr(birthmark.agent.key_store, name), f"{name} in token"),
            )
        tempfile.tempdir = str(self.root)  # one disk has it all
        sys.addaudithook(self.audit)
        self.is_on = True


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Do it in a child; return its status (-9 when it was killed) and what it returned, or said last."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.close(reading)
        os.dup2(writing, 2)
        code = 1
        try:
            os.write(writing, ("\n" + json.dumps(work())).encode())
            code = 0
        except BaseException:  # noqa: BLE001 (told to the parent, which says so)
            os.write(writing, ("\n" + json.dumps(traceback.format_exc())).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    last = text.splitlines()[-1] if text.strip() else "null"
    return status, last if status < 0 else json.loads(last)
