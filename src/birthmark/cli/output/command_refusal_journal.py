"""Log of the refusals of commands on this machine, for `birthmark why`.

The file is ~/.local/state/birthmark/refusals.jsonl (0600): one JSON object per line, newest last, at most `MAX_BYTES`.
"""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birthmark.clock_and_entropy import SystemClock, SystemEntropy, new_uuid
from birthmark.errors import BirthmarkError

MAX_BYTES = 512 * 1024
_OURS = frozenset({"again", "options", "without"})  # a typed command may contain anything
_ABOUT = (("host", "host"), ("scope", "id_scope"), ("data", "data"), ("target", "target"))


def journal_path() -> Path:
    """Return the path of the refusal log."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "birthmark" / "refusals.jsonl"


def log_refusal(error: BirthmarkError) -> None:
    """Add a refusal to the log; a log that cannot be written is ignored, so the error message still appears."""
    row = {
        "id": new_uuid(SystemEntropy()),
        "at": SystemClock().now().isoformat(),
        "code": error.code,
        "message": str(error),
        "cause": error.explain_cause(),
        "fix": error.explain_fix(),
        "address": "",
        "facts": {name: value for name, value in error.facts.items() if name not in _OURS},
        "server": _server_of(error.facts),
    }
    with contextlib.suppress(OSError), os.fdopen(_open_log(journal_path()), "r+b") as file:
        if file.seek(0, os.SEEK_END) > MAX_BYTES:
            file.seek(-MAX_BYTES // 2, os.SEEK_END)
            kept = file.read().partition(b"\n")[2]
            file.truncate(0)
            file.write(kept)
        file.write(json.dumps(row).encode() + b"\n")


def _open_log(path: Path) -> int:
    """Open the log. Raise `OSError`.

    Root gets the error for another user's directory, too, because that user may have placed links there.
    """
    there = next(one for one in path.parents if one.exists())
    if os.geteuid() == 0 and there.stat().st_uid != 0:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(there))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def _server_of(facts: Mapping[str, str]) -> dict[str, str] | None:
    """Return the server that a refusal is about, as far as its facts identify it; None when no server took part."""
    found = {name: facts[fact] for name, fact in _ABOUT if facts.get(fact)}
    if not found.keys() & {"host", "data", "target"}:
        return None
    if "host" in found and (scope := os.environ.get("PROVISIONING_IDSCOPE")):
        found.setdefault("scope", scope)
    return found


def noted(subject: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the latest refusals, newest first, with `subject` as ID, code or fact."""
    try:
        lines = journal_path().read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    wanted = subject.strip().lower() if subject else None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            row.setdefault("server", {})  # version 0.1.0 did not record it: no known server
            names = {str(row["id"]).lower(), row["code"], *(str(value).lower() for value in row["facts"].values())}
            if wanted is None or wanted in names:
                found.append(row)
        if len(found) >= limit:
            break
    return found
