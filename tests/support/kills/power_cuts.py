"""A disk whose power is cut: of what was not synced, only a random part is left, some of it torn."""

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_SIZE = 1 << 30
_PAGE = 4096
_WRITE_NOW = 1 | 2 | 4
"""Of sync_file_range(2): write the range and wait for it."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Disk:
    """A file system at `place`; its image is what a disk would hold at that moment, without the system's memory."""

    place: Path
    image: Path

    def cut(self, program: int | None, dice: random.Random, end: Callable[[], object]) -> None:
        """Stop a program, write a random part of what is not synced, and go on with the disk as it was then.

        `end` ends the program's first process; all others are killed.
        """
        pids = [] if program is None else _stopped(program)
        self._write_a_part(dice)
        left = self.image.with_name("left")
        subprocess.run(["cp", "--sparse=always", self.image, left], check=True)
        for pid in pids[1:]:
            os.kill(pid, signal.SIGKILL)
        end()
        _wait_until(lambda: not any(map(_is_there, pids)), "the processes do not end")
        self.unmount()
        left.replace(self.image)
        self.mount()

    def sync(self) -> None:
        """Write all of it."""
        subprocess.run(["sync", "--file-system", self.place], check=True)

    def mount(self) -> None:
        # Nothing is written that is not synced, and a renamed file is not synced by the file system on its own.
        options = "loop,commit=600,noauto_da_alloc"
        subprocess.run(["mount", "-o", options, self.image, self.place], check=True)

    def unmount(self) -> None:
        def is_done() -> bool:
            return not subprocess.run(["umount", self.place], check=False, capture_output=True).returncode

        _wait_until(is_done, f"{self.place} stays in use")

    def _write_a_part(self, dice: random.Random) -> None:
        """Write random pages of some files, in no order; sometimes one file with its name, as any program may do."""
        files = [path for path in sorted(self.place.rglob("*")) if path.is_file() and not path.is_symlink()]
        for path in dice.sample(files, len(files) // 3):
            with path.open("rb") as file:
                pages = os.fstat(file.fileno()).st_size // _PAGE + 1
                for page in dice.sample(range(pages), min(pages, dice.choice((1, 4, 64)))):
                    _libc.sync_file_range(
                        file.fileno(), ctypes.c_int64(page * _PAGE), ctypes.c_int64(_PAGE), _WRITE_NOW
                    )
        if files and dice.random() < 1 / 4:
            with dice.choice(files).open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def a_disk(place: Path) -> Iterator[Disk]:
    """Mount an empty disk at `place`; this needs root and loop devices."""
    if os.geteuid():
        sys.exit("A power cut needs root, for a loop device: run it as root, or name other engines with --engine.")
    place.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="birthmark-disk-", dir="/var/tmp") as directory:
        disk = Disk(place, Path(directory) / "image")
        with disk.image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk.image], check=True)
        disk.mount()
        try:
            (place / "lost+found").rmdir()
            place.chmod(0o755)
            disk.sync()
            yield disk
        finally:
            disk.unmount()


def _stopped(program: int) -> list[int]:
    """Stop a process, then those that it has started until then, and so on; return all."""
    found = [program]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
        _wait_until(partial(_is_stopped, pid), f"process {pid} does not stop")
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def _is_stopped(pid: int) -> bool:
    """Return whether no thread of a process is running, nor in a call of the system."""
    states = {_state(path) for path in Path(f"/proc/{pid}/task").glob("*/stat")}
    return states <= set("TtZX")


def _is_there(pid: int) -> bool:
    return _state(Path(f"/proc/{pid}/stat")) not in "ZX"


def _state(path: Path) -> str:
    try:
        return path.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
