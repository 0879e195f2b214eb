"""The last configuration that worked, kept so that a device comes up when somebody made a mistake in the next one.

A copy of every file of it, in one file of mode 0600, for they may hold secrets. Whoever is asked to apply a
configuration never falls back on it; an agent that starts does, and says so.
"""

import contextlib
from datetime import datetime
from pathlib import Path

import msgspec

from birthmark.agent.config import AgentConfig, parse_config
from birthmark.agent.config.reading import MAX_CONFIG_BYTES
from birthmark.agent.files import Places, StateNotWritableError, write_file
from birthmark.errors import BirthmarkError
from birthmark.text import decode_json


class LastGood(msgspec.Struct, frozen=True):
    """Files as they were read, in order, and since when they were good."""

    at: datetime
    texts: tuple[tuple[str, str], ...]


def keep(places: Places, config: AgentConfig, now: datetime) -> None:
    """Remember a configuration that worked. Where nothing can be written there is nothing to lose either."""
    texts = tuple((str(path), text) for path, text in config.texts)
    before = _read(places)
    if before is None or before.texts != texts:
        with contextlib.suppress(StateNotWritableError):
            write_file(places.last_good, msgspec.json.encode(LastGood(now, texts)))


def recall(places: Places, file: Path) -> tuple[AgentConfig, datetime] | None:
    """Return the last good configuration of this file and its date; None where there is none."""
    found = _read(places)
    if found is None or not found.texts or found.texts[0][0] != str(file):
        return None
    (_, text), *further = found.texts
    with contextlib.suppress(BirthmarkError):
        return parse_config(file, text, [(Path(path), one) for path, one in further]), found.at
    return None


def _read(places: Places) -> LastGood | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), places.last_good.open("rb") as opened:
        return decode_json(opened.read(2 * MAX_CONFIG_BYTES), LastGood)
    return None
