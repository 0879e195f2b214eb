"""A shell session: a refusal is provoked, its fix typed as it was printed, the refused action tried again."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from support.server.servers import RunningServer, warm_environment

UNTIL_READY = f"python3 {shlex.quote(str(Path(__file__).parents[2] / 'support/server/until_ready.py'))}"
"""Before a command that serves: it ends as soon as it is ready."""
_COMMAND = re.compile(r"`([^`]+)`")
_PROGRAMS = (
    "stty ",
    "(set -C; ",
    "birthmark ",
    "chmod ",
    "chown ",
    "df ",
    "echo ",
    "gunzip ",
    "hostname ",
    "ls ",
    "export ",
    "eval ",
    "mv ",
    "aws ",
    "kill ",
    "mkdir ",
    "rm ",
    "openssl ",
    "prlimit ",
    "read ",
    "rm ",
    "sed ",
    "sha256sum ",
    "tr ",
    "(umask ",
    "curl ",
    "date ",
    "ss ",
    "unset ",
)
_SHOWN = re.compile(r"^  Fix: (?P<fix>.*)\n  Code: (?P<code>\S+)$", re.MULTILINE | re.DOTALL)
_LISTED = re.compile(r"^Refused (?P<code>\S+): .*\n  Fix: (?P<fix>.*)$", re.MULTILINE)


@dataclass
class Scene:
    """A directory, an environment that lasts from command to command, and a server that others may share."""

    directory: Path
    server: RunningServer | None
    environment: dict[str, str] = field(default_factory=dict)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What ends with the scene, such as somebody else's server."""

    def type(self, line: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type a line in a shell; what it exports is there for the next."""
        kept = self.directory / ".environment"
        script = f"{line}\nstatus=$?\nenv -0 > {kept}\nexit $status"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            input=stdin or "",
        )
        if kept.exists():
            pairs = (pair.split("=", 1) for pair in kept.read_text().split("\0") if pair)
            self.environment = {name: value for name, value in pairs if name not in {"_", "SHLVL", "PWD"}}
        return done

    def must(self, line: str) -> str:
        """Type a line that belongs to the preparations."""
        done = self.type(line)
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fix_of(self, code: str, refused: subprocess.CompletedProcess[str]) -> str:
        """Return the fix that was printed for `code`, by the command itself, else by `birthmark why`."""
        for found in (*_SHOWN.finditer(refused.stderr), *_LISTED.finditer(refused.stderr)):
            if found["code"] == code:
                return found["fix"]
        for line in refused.stderr.splitlines():
            if line.startswith('{"error": ') and (told_as_json := json.loads(line))["error"] == code:
                return str(told_as_json["fix"])
        deadline = time.monotonic() + 10
        rows: list[dict[str, str]] = []
        while time.monotonic() < deadline:
            told = self.type("birthmark why --json --limit 3").stdout.splitlines()
            rows = [json.loads(line) for line in told if line.startswith("{")]
            if (row := next((row for row in rows if row["code"] == code), None)) is not None:
                return row["fix"]
            time.sleep(0.2)
        raise AssertionError(f"{code} was not told:\n{refused.stdout}{refused.stderr}\n{rows}")


def fix_shown(told: str, code: str) -> str:
    """Return the fix of `code` among what `birthmark why` told."""
    found = re.search(rf"  {re.escape(code)}  .*\n  Why: .*\n  Fix: (?P<fix>.*)\n", told)
    assert found is not None, told
    return found["fix"]


def literals_in(fix: str) -> list[str]:
    """Return what a fix has in backticks: commands, and what is to be written somewhere as it stands."""
    return _COMMAND.findall(fix)


def commands_in(fix: str) -> list[str]:
    """Return what a fix says to type."""
    return [command for command in _COMMAND.findall(fix) if command.startswith(_PROGRAMS)]


def a_scene(directory: Path, server: RunningServer | None) -> Scene:
    """A session as after `export BIRTHMARK_DATA=…`, with a home of its own."""
    environment = warm_environment(HOME=str(directory))
    if server is not None:
        environment["BIRTHMARK_DATA"] = str(server.data)
    return Scene(
        directory, server, environment | {"TESTS": str(Path(__file__).parents[2]), "USER": os.environ.get("USER", "me")}
    )
