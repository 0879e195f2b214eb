"""Command runner without a shell: limited in time; keeps the end of the output.

The command gets a minimal environment with the job's ID in BIRTHMARK_JOB_ID, no input, and its own session, so that all
of it ends together. Background processes survive a command that ends by itself. If the agent is killed, the command
keeps running. The next agent finds it and its children by a mark in their environment, which was persisted before the
start.
"""

import asyncio
import codecs
import contextlib
import errno
import os
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from birthmark.agent.jobs.model import MAX_CHARS, JobFailedError, tail
from birthmark.untrusted_json_and_text import printable, reason_of

_KEPT_BYTES = 4 * MAX_CHARS
_READ_BYTES = 64 * 1024
_PATIENCE_S = 5.0
_LAST_WORDS_S = 1.0
_MARK = "BIRTHMARK_JOB_RUN"
_MAX_LOOKS = 100
_LOOK_S = 0.05
_MAX_INTERPRETER = 256
"""Maximum length of a script's first line ("execve", Linux 5.1)."""
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Result of a command: its exit code, negative for a signal, and the end of its output."""

    code: int
    output: str


async def run(words: Sequence[str], job_id: str, mark: str, timeout_s: float) -> CommandResult:
    """Run a command to completion. Raise `JobFailedError` if it cannot be started or times out."""
    check_program(Path(words[0]))
    # Use our own pipe: asyncio waits on its pipes for every process that holds them, such as a started daemon.
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT | {"BIRTHMARK_JOB_ID": job_id, _MARK: mark},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        os.close(reading)
        raise JobFailedError(f"{words[0]} cannot be run: {_reason_of(error, Path(words[0]))}") from error
    finally:
        os.close(writing)
    kept = bytearray()
    listening = asyncio.create_task(_listen(reading, kept))
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError as error:
        await _end(process)
        raise JobFailedError(f"it did not finish within {timeout_s:g} s", output=tail(kept)) from error
    except BaseException:  # the agent is stopping
        await _end(process)
        raise
    finally:
        # A leftover child process may keep the pipe open indefinitely.
        await asyncio.wait({listening}, timeout=_LAST_WORDS_S)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
    return CommandResult(code, tail(kept))


def _reason_of(error: OSError | ValueError, script: Path) -> str:
    """Return why the system did not start the command; a script's interpreter may be missing."""
    if not (isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.ENOEXEC)):
        return reason_of(error)
    with contextlib.suppress(OSError), script.open("rb") as file:
        if (first := file.readline(_MAX_INTERPRETER)).startswith(_MARKS):
            return "it begins with a byte order mark, as on Windows; it must be UTF-8 without one"
        if first.startswith(b"#!"):
            if first.endswith(b"\r\n"):
                return "its lines end with CR LF, as on Windows; they must end with LF"
            if isinstance(error, FileNotFoundError):
                program = printable(first[2:].decode(errors="replace").strip())
                return f"its first line names the interpreter {program}, which does not exist"
    return reason_of(error)


async def _listen(reading: int, kept: bytearray) -> None:
    """Keep the end of a pipe's output, then close the pipe."""
    reader = asyncio.StreamReader()
    pipe, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0)
    )
    try:
        while data := await reader.read(_READ_BYTES):
            kept += data
            del kept[:-_KEPT_BYTES]
    finally:
        pipe.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Terminate the process and its session: first with SIGTERM, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await process.wait()
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # kill the remaining processes


def check_program(path: Path) -> None:
    """Raise `JobFailedError` if another user could have replaced the program."""
    try:
        found = path.stat()
    except OSError as error:
        raise JobFailedError(f"{path} cannot be run: {reason_of(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise JobFailedError(f"{path} is not a file")
    if found.st_mode & stat.S_IWOTH:
        raise JobFailedError(f"{path} is writable by every user")


def left_of(mark: str) -> Iterator[int]:
    """Yield the visible processes with this mark."""
    wanted = f"{_MARK}={mark}".encode()
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended, or another user's
            if wanted in place.read_bytes().split(b"\0"):
                yield int(place.parent.name)


def end_left(mark: str) -> None:
    """End the processes that a killed agent left running and wait for their exit."""
    for _ in range(_MAX_LOOKS):
        if not (left := list(left_of(mark))):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)
