"""Programs that start from a warm interpreter: `birthmark`, `aws` and Python scripts, without a second of imports each.

`birthmark` as it is installed is proven by `system/test_serve.py`, `test_agent.py`, `test_demos.py` and others; where
hundreds of short commands are typed, a parent that has everything loaded forks into each. To the program it is a
process of its own: with its directory, environment, umask, limits, streams, signals and exit status.
"""

import atexit
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, cast

PROGRAMS = ("birthmark", "aws")


@functools.cache
def programs() -> Path:
    """Return a directory of programs that start warm; the parent lives as long as this process."""
    home = Path(tempfile.mkdtemp(prefix="birthmark-warm-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    text = Path(__file__).with_name("client.py").read_text()
    for name in (*(f"bin/{one}" for one in PROGRAMS), "python/python"):
        program = home / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable} -ISE\n{text}")
        program.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket"))
        listener.listen(64)
        parent = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("parent.py")), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            stdin=subprocess.PIPE,
        )
    atexit.register(parent.wait)
    atexit.register(cast("IO[bytes]", parent.stdin).close)  # at which it ends
    return home / "bin"


def python() -> Path:
    """Return an interpreter for scripts that starts warm; it is on nobody's PATH."""
    return programs().parent / "python" / "python"
