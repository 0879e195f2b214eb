"""What is printed at a terminal, marked with the mouse and typed as it stands."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest

import warm
from support.server.servers import RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system


def at_a_terminal(server: RunningServer, columns: int, *arguments: str) -> list[str]:
    """Return the lines that a command shows at a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent), TERM="xterm")
    command = [str(warm.programs() / "birthmark"), *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
        process.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody is at the other side any more
        return b""


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_fix_is_typed_as_it_stands(tmp_path: Path, columns: int) -> None:
    with a_new_server(tmp_path) as server:
        shown = at_a_terminal(server, columns, "device", "ls", "--to", "azure", "--profile", "none")
        (line,) = [line.strip() for line in shown if line.strip().startswith("birthmark ")]
        server.run(*line.split()[1:])
        shown = at_a_terminal(server, columns, "why", "fleet.profile_invalid")
        assert line in [one.strip() for one in shown]
        for one in shown:
            assert len(one) <= columns or one.strip().startswith("birthmark ") or " " not in one.strip()
