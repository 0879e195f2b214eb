"""Stand in for a program: have the warm parent run it, with everything that this process was given.

A copy of this file, under the program's name, with the interpreter in its first line and the parent's socket two
directories up. It imports next to nothing, so that it costs a fraction of what the program's imports would.
"""

import posix
import sys
from _signal import (  # type: ignore[import-not-found] # what `signal` itself imports; it has no types
    SIG_DFL,
    SIGHUP,
    SIGINT,
    SIGTERM,
    signal,
)
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
from resource import getrlimit

_KINDS = 16


def request() -> bytes:
    """Return the program's directory, umask, limits and arguments, and its environment."""
    umask = posix.umask(0o77)
    posix.umask(umask)
    limits = " ".join("{}:{}".format(*getrlimit(kind)) for kind in range(_KINDS))
    arguments = [one.encode(errors="surrogateescape") for one in sys.argv]
    head = [posix.getcwdb(), str(umask).encode(), limits.encode(), str(len(arguments)).encode()]
    return b"\0".join([*head, *arguments, *[name + b"=" + value for name, value in posix.environ.items()]])


def main() -> None:
    place = sys.argv[0].rpartition("/")[0]
    parent = socket(AF_UNIX, SOCK_STREAM)
    parent.connect(place + "/../socket")
    data = request()
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
    parent.sendmsg([len(data).to_bytes(4)], [(SOL_SOCKET, SCM_RIGHTS, streams)])
    parent.sendall(data)
    program = int.from_bytes(parent.recv(4))
    for number in (SIGHUP, SIGINT, SIGTERM):
        signal(number, lambda number, _frame: posix.kill(program, number))
    status = int.from_bytes(parent.recv(4))
    if killed := status & 0x7F:
        signal(killed, SIG_DFL)
        posix.kill(posix.getpid(), killed)
    posix._exit(status >> 8)


main()
