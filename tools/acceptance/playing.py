"""Plays journeys: asks before what writes, keeps what was seen as it goes, and takes back what was written."""

import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.acceptance.journeys import POLICY
from tools.acceptance.steps import Journey, Step

_MAX_KEPT = 2000
_PATIENCE_S = 300
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|PIN\b|CONNECTION_STRING", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(SharedAccessKey=|sig=|Signature=|pin-value=)[^;&\s\"']+")
_ACCOUNT = re.compile(r"(arn:aws[\w-]*:[\w-]+:[\w-]*:)[0-9]{12}")
_MIN_SECRET = 8
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
"""What an answer has to be that becomes a word of a command."""
_NO_SECRET = {"BIRTHMARK_TOKEN"}  # the label of one


@dataclass
class Play:
    """One journey as it is played, below a directory of its own."""

    scenario: Journey
    directory: Path
    environment: dict[str, str]
    agrees: Callable[[Step], bool]
    say: Callable[[str], None]
    keep: Callable[[], None]
    seen: list[dict[str, Any]] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    """The lines that take back what was written, in the order in which it was."""
    stays: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Name this run, and write what steps read."""
        name = f"acceptance-{secrets.token_hex(4)}"
        top = str(Path(__file__).resolve().parents[2])
        self.environment |= {"NAME": name, "ID": name, "PYTHONPATH": top}
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "policy.json").write_text(POLICY % {"name": name})

    def play(self) -> bool:
        """Play every step; say whether all went as they have to. What was begun is to be taken back by `undo`."""
        for step in self.scenario.steps:
            if step.writes and not self.agrees(step):
                self.seen.append({"step": step.title, "result": "left out"})
                self.say("  left out, and the journey ends here")
                return False
            if step.undo:  # before it is done: it may be cut off on its way
                self.owed.append(step.undo)
            if step.stays:
                self.stays.append(step.stays)
            if step.undo or step.stays:
                self.keep()
            if not self._done(step):
                return False
        return True

    def undo(self) -> bool:
        """Take back what was written, the latest first; say whether all of it was. What was not is owed still."""
        known = {step.undo for step in self.scenario.steps}
        for line in reversed(list(self.owed)):
            if line not in known:  # the record may be another's, and this runs nothing but our own lines
                self.say(f"  NOT taken back, as it is no line of this journey: {line}")
                continue
            done = self._ran(line)
            self.say(f"  taken back: {line}" if done["exit"] == 0 else f"  NOT taken back ({done['exit']}): {line}")
            if done["exit"] == 0:
                self.owed.remove(line)
                self.keep()
            else:
                self.say(done["err"])
        self.keep()
        return not self.owed

    def _done(self, step: Step) -> bool:
        done = self._ran(step.command)
        is_good: bool = (done["exit"] != 0) is step.is_refused
        if step.keeps and not _PLAIN.fullmatch(done["out"].strip()):
            is_good = False
        self.seen.append(
            {"step": step.title, "command": step.command, "result": "as it has to be" if is_good else "OTHERWISE"}
            | ({"has_to_be": "refused"} if step.is_refused else {})
            | done
        )
        self.keep()
        self.say(f"  {'ok ' if is_good else 'NO '} {step.title} ({done['seconds']} s)")
        if not is_good:
            self.say(f"     $ {step.command}\n     {done['err'] or done['out']}")
        elif step.keeps:
            self.environment[step.keeps] = done["out"].strip()
        return is_good

    def _ran(self, line: str) -> dict[str, Any]:
        began = time.monotonic()
        command = ["bash", "-euo", "pipefail", "-c", line]
        try:
            done = subprocess.run(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            code, out, err = 124, "", f"it took longer than {_PATIENCE_S} s"
        seconds = round(time.monotonic() - began, 1)
        return {"exit": code, "seconds": seconds, "out": self._without_secrets(out), "err": self._without_secrets(err)}

    def _without_secrets(self, text: str) -> str:
        for value in secrets_of(self.environment):
            text = text.replace(value, "(secret)")
        return _ACCOUNT.sub(r"\1(account)", _SECRET_TEXT.sub(r"\1(secret)", text))[:_MAX_KEPT]


def secrets_of(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the values that are not to be kept, the longest first."""
    found = {
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name)
        and not name.endswith("_FILE")
        and name not in _NO_SECRET
        and len(value) >= _MIN_SECRET
    }
    return sorted(found, key=len, reverse=True)


def variables_of(lines: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment after lines of shell, as `birthmark env` and `birthmark chip simulate` print them."""
    done = subprocess.run(
        ["bash", "-euc", f"{lines}\nenv -0"], env=dict(environment), capture_output=True, text=True, check=True
    )
    return dict(one.split("=", 1) for one in done.stdout.split("\0") if "=" in one)


def written(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole, or leave the one that is there."""
    beside = path.with_suffix(".new")
    beside.touch(0o600)
    beside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
