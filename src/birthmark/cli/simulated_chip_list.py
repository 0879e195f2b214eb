"""List of this user's simulated secure elements, which a new terminal has no variables for."""

import contextlib
import shlex
from pathlib import Path

from birthmark.cli.output.command_refusal_journal import journal_path

_MOST = 20


def _list() -> Path:
    return journal_path().with_name("chips")


def add_simulated_chip(directory: Path, profile: str) -> None:
    """Add a simulated secure element to the list; a list that cannot be written is ignored."""
    line = f"{profile} {directory.resolve()}"
    with contextlib.suppress(OSError, UnicodeError):
        place = _list()
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.write_text("\n".join([*(one for one in _lines() if one != line), line][-_MOST:]) + "\n", encoding="utf-8")


def find_setup_command() -> str | None:
    """Return the command that sets up this shell for the latest simulated secure element that still exists."""
    for line in reversed(_lines()):
        profile, _, directory = line.partition(" ")
        if Path(directory).is_dir():
            return f'eval "$(birthmark chip simulate {shlex.quote(directory)} --chip {shlex.quote(profile)})"'
    return None


def _lines() -> list[str]:
    try:
        return _list().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return []
