"""A Python process with the packages loaded, which forks itself into each program it is asked for.

Run as `python parent.py DESCRIPTOR`, that of a listening socket. A request is what `client.py` says. The answer is
how the program ended, as `os.waitpid` has it. A client that is gone takes its program with it.
"""

import array
import atexit
import gc
import importlib
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, cast

LOADED = (
    "provisioningserviceclient",
    "azure.iot.device.aio",
    "azure.iot.hub",
    "boto3",
    "awscli.clidriver",
    "uvloop",
    "rich.traceback",
)
UNLOADED = ("birthmark.demo.apps", "birthmark.secure_elements.hook", "birthmark.store.migrations", "birthmark.__main__")
"""Programs, not modules."""
_STREAMS = 3
AT_START = frozenset(os.environb)


def load() -> None:
    """Import what programs would, and nothing that starts a thread: threads do not live on in a fork."""
    import birthmark

    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark."):
        if not module.name.startswith(UNLOADED):
            importlib.import_module(module.name)
    for name in LOADED:
        importlib.import_module(name)
    from typer.testing import CliRunner

    from birthmark.cli.app import app

    CliRunner().invoke(app, ["why", "--help"])  # loads what the command line imports when it is needed
    assert threading.active_count() == len(list(Path("/proc/self/task").iterdir())) == 1
    gc.collect()
    gc.freeze()  # a child's collector would touch, and thereby copy, every page


def serve(listener: socket.socket) -> NoReturn:
    """Fork a keeper for each request."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave nothing behind
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(0, select.POLLHUP)
    while all(of != 0 for of, _ in poll.poll()):  # who started this holds the other end until its own
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(client)
        client.close()
    sys.exit()


def keep(client: socket.socket) -> NoReturn:
    """Run the program that the client asks for, and tell it how the program ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams = receive(client)
    program = os.fork()
    if program == 0:
        client.close()
        become(request, streams)
    for stream in streams:
        os.close(stream)
    client.sendall(program.to_bytes(4))
    ended = os.pidfd_open(program)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(client, select.POLLHUP)
    if all(of != ended for of, _ in poll.poll()):
        os.kill(program, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    try:
        client.sendall(status.to_bytes(4))
    finally:
        os._exit(0)


def receive(client: socket.socket) -> tuple[list[bytes], list[int]]:
    """Return the request's parts and the program's standard streams."""
    given = array.array("i")
    data, ancillary, _, _ = client.recvmsg(4, socket.CMSG_SPACE(_STREAMS * given.itemsize))
    for _level, _type, sent in ancillary:
        given.frombytes(sent)
    size, data = int.from_bytes(data), b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data.split(b"\0"), list(given)


def become(request: list[bytes], streams: list[int]) -> NoReturn:
    """Take over what a new process has of its parent, run the program and end as the interpreter does."""
    directory, umask, limits, count, *rest = request
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(_STREAMS, 256)
    os.chdir(directory)
    os.umask(int(umask))
    for kind, limit in enumerate(limits.split()):
        soft, _, hard = limit.partition(b":")
        resource.setrlimit(kind, (int(soft), int(hard)))
    by_imports = {name: value for name, value in os.environb.items() if name not in AT_START}
    os.environb.clear()
    os.environb.update(by_imports)
    for pair in rest[int(count) :]:
        name, _, value = pair.partition(b"=")
        os.environb[name] = value
    sys.argv = [os.fsdecode(one) for one in rest[: int(count)]]
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    status = status_of(program_of(sys.argv))
    threading._shutdown()  # type: ignore[attr-defined] # the interpreter's own way to wait for threads
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        try:
            output.flush()
        except (OSError, ValueError):
            status = status or 120
    os._exit(status)


def program_of(arguments: list[str]) -> Callable[[], object]:
    """Return what the command runs; `python` is followed by a script's file, or -c and its text."""
    if (name := Path(arguments[0]).name) == "birthmark":
        from birthmark.cli.app import main

        return main
    if name == "aws":
        return cast("Callable[[], object]", importlib.import_module("awscli.clidriver").main)
    if arguments[1] == "-c":
        program = compile(arguments[2], "<string>", "exec")
        sys.argv = ["-c", *arguments[3:]]
        return lambda: exec(program, {"__name__": "__main__"})
    sys.argv = arguments[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    return lambda: runpy.run_path(sys.argv[0], run_name="__main__")


def status_of(program: Callable[[], object]) -> int:
    """Run the program and return its exit status; the interpreter's rules, in short."""
    try:
        found = program()
    except SystemExit as leaving:
        found = leaving.code
        if isinstance(found, str):
            sys.stderr.write(f"{found}\n")
            return 1
    except BaseException:  # noqa: BLE001 - whatever a program lets through, its end is told
        traceback.print_exc()
        return 1
    return found & 0xFF if isinstance(found, int) else 0


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
