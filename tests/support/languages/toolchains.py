"""Builds of the client programs of other languages, each by its language's own build tool, once for a state of them."""

import fcntl
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
SOURCES = TOP / "tests" / "conformance" / "languages"
BUILDS = TOP / "build" / "languages"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A language's build tool; `{out}` in its command is the directory of what it builds."""

    language: str
    version_command: Sequence[str]
    minimum: tuple[int, int]
    build_command: Sequence[str]
    program: Sequence[str]
    """Command of a program, with `{out}` and `{name}`."""

    def command(self, name: str) -> Sequence[str]:
        """Return the command of a program that is built; skip the test if the toolchain is missing or too old."""
        out = self._build()
        return [word.format(out=out, name=name) for word in self.program]

    def _build(self) -> Path:
        require_tool(self.version_command, self.minimum)
        source, out = SOURCES / self.language, BUILDS / self.language
        out.mkdir(parents=True, exist_ok=True)
        stamp, state = out / "stamp", _digest(source)
        with (out / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process of a test run builds, the others wait
            if not stamp.exists() or stamp.read_text() != state:
                command = [word.format(out=out) for word in self.build_command]
                done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
                stamp.write_text(state)
        return out


def require_tool(version_command: Sequence[str], minimum: tuple[int, int]) -> None:
    """Skip the test if a build tool is missing or too old."""
    wanted = f"{version_command[0]} {'.'.join(map(str, minimum))} or newer"
    if shutil.which(version_command[0]) is None:
        pytest.skip(f"{wanted} is not installed")
    told = subprocess.run(version_command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", told)
    if found is None or (int(found[1]), int(found[2])) < minimum:
        pytest.skip(f"{wanted} is not installed, only: {told.splitlines()[0]}")


def _digest(source: Path) -> str:
    """Return the digest of a language's sources."""
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


_OF_LANGUAGES = (
    Toolchain(
        "go",
        ("go", "version"),
        (1, 25),
        ("go", "build", "-o", "{out}/", "./cmd/...", "tool"),
        program=("{out}/{name}",),
    ),
    Toolchain(
        "rust",
        ("cargo", "--version"),
        (1, 94),
        ("cargo", "build", "--locked", "--target-dir", "{out}"),
        program=("{out}/debug/{name}",),
    ),
    Toolchain(
        "java",
        ("mvn", "--version"),
        (3, 6),
        ("mvn", "--quiet", "--batch-mode", "package", "-Dout={out}"),
        program=("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "{out}/*", "birthmark.{name}"),
    ),
)
TOOLCHAINS = {one.language: one for one in _OF_LANGUAGES}
