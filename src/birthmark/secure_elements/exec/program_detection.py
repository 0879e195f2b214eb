"""Program detection for TLS key use: by name, first line, and linked libraries.

In: a command as typed, and the environment for its lookup.

Out: a `Program`. Only `ldd` is run, and a Python interpreter to find its `_ssl`.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from birthmark.secure_elements.errors import ProgramMissingError

_HEAD_BYTES = 4096
_SLOW_S = 10
_ISOLATED = frozenset("IES")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_SHEBANG = re.compile(rb"#![ \t]*([^\r\n]{1,512})")
_OTHER_TLS = ("libgnutls", "libnss3", "libmbedtls", "libwolfssl", "librustls")


class ProgramKind(StrEnum):
    """Program types."""

    PYTHON = "a Python program"
    NODE = "a Node program"
    CURL = "curl"
    MOSQUITTO = "one of mosquitto's clients"
    OPENSSL = "the openssl command"
    LINKED = "a program that links OpenSSL"
    LAUNCHER = "a program without TLS of its own, which may start others"
    OTHER = "a program with TLS of its own"


_NAMES: Mapping[str, ProgramKind] = {
    "node": ProgramKind.NODE,
    "nodejs": ProgramKind.NODE,
    "curl": ProgramKind.CURL,
    "mosquitto_pub": ProgramKind.MOSQUITTO,
    "mosquitto_sub": ProgramKind.MOSQUITTO,
    "mosquitto_rr": ProgramKind.MOSQUITTO,
    "openssl": ProgramKind.OPENSSL,
}


@dataclass(frozen=True, slots=True)
class Program:
    """The executable, its type, and the evidence for it."""

    path: str
    kind: ProgramKind
    evidence: str
    isolating_flag: str | None = None
    """Python option that makes the interpreter ignore the environment."""
    links_openssl: bool = True
    """Whether it uses the system's OpenSSL 3, which supports engines and providers."""

    @property
    def name(self) -> str:
        return Path(self.path).name


def detect_program(command: Sequence[str], environment: Mapping[str, str]) -> Program:
    """Return the program of a command. Raise `ProgramMissingError`."""
    if not command:
        raise ProgramMissingError(program="", command="birthmark chip exec -- python3")
    found = shutil.which(command[0], path=environment.get("PATH"))
    if found is None:
        by_python = shlex.join(["birthmark", "chip", "exec", "--", "python3", *command])
        raise ProgramMissingError(program=command[0], command=by_python)
    interpreter, options = _interpreter(found)
    if interpreter is None:
        return _told(found, found, list(command[1:]), f"{found}")
    running = shutil.which(interpreter, path=environment.get("PATH")) or interpreter
    return _told(found, running, options, f"{found}, a script for {interpreter}")


def _told(path: str, runs: str, options: Sequence[str], evidence: str) -> Program:
    name = Path(runs).name
    if _PYTHON.fullmatch(name):
        library = _ssl_of(runs)
        has_system = library is None or "libssl.so.3" in _linked(library)
        seen = (
            f"{evidence}; its ssl module {'uses the system' if has_system else 'does not use the system'}'s OpenSSL 3"
        )
        return Program(path, ProgramKind.PYTHON, seen, _isolating_flag(options), has_system)
    if name in _NAMES:
        kind, linked = _NAMES[name], _linked(runs)
        if kind is ProgramKind.NODE:
            return Program(path, kind, evidence)
        is_fit = "libssl.so.3" in linked
        seen = f"{evidence}; it links {'libssl.so.3' if is_fit else 'no OpenSSL 3'}"
        return Program(path, kind if is_fit else ProgramKind.OTHER, seen, links_openssl=is_fit)
    return _by_libraries(path, _linked(runs), evidence)


def _by_libraries(path: str, linked: str, evidence: str) -> Program:
    if "libssl.so.3" in linked:
        return Program(path, ProgramKind.LINKED, f"{evidence}; it links libssl.so.3")
    for library in ("libssl.so", *_OTHER_TLS):
        if library in linked:
            return Program(path, ProgramKind.OTHER, f"{evidence}; it links {library}", links_openssl=False)
    if not linked:
        return Program(path, ProgramKind.OTHER, f"{evidence}; it links nothing dynamically", links_openssl=False)
    return Program(path, ProgramKind.LAUNCHER, f"{evidence}; it links no TLS library", links_openssl=False)


def _interpreter(path: str) -> tuple[str | None, list[str]]:
    """Return the interpreter of a script's first line, through `env`, and its options."""
    try:
        with Path(path).open("rb") as file:
            line = _SHEBANG.match(file.read(_HEAD_BYTES))
    except OSError:
        return None, []
    if line is None:
        return None, []
    words = line[1].decode("utf-8", "replace").split()
    if Path(words[0]).name == "env":
        words = [word for word in words[1:] if word not in ("-S", "--split-string") and "=" not in word]
    return (words[0], words[1:]) if words else (None, [])


def _linked(path: str) -> str:
    """Return the output of `ldd` for a file; empty for a static or missing program."""
    return _said("ldd", path)


def _ssl_of(python: str) -> str | None:
    """Return the file of this interpreter's `_ssl`; "" if built in, None if it cannot be determined."""
    said = _said(python, "-I", "-c", "import _ssl; print('at', getattr(_ssl, '__file__', ''))").strip()
    return said.removeprefix("at").strip() if said.startswith("at") else None


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SLOW_S, check=False)  # noqa: S603 (of the program that is run anyway)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _isolating_flag(arguments: Sequence[str]) -> str | None:
    for argument in arguments:
        if not argument.startswith("-") or argument in ("-", "--") or argument[:2] in ("-c", "-m"):
            return None
        if not argument.startswith("--") and _ISOLATED & set(argument[1:]):
            return argument
    return None
