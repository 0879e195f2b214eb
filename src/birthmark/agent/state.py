"""Agent state between starts, in one JSON file, with queries for other commands."""

import contextlib
from datetime import datetime
from pathlib import Path

import msgspec

from birthmark.agent.config import AgentConfig, parse_config
from birthmark.agent.config.config_with_drop_ins import MAX_CONFIG_BYTES
from birthmark.agent.state_directory import AgentPaths, StateNotWritableError, write_file
from birthmark.errors import BirthmarkError
from birthmark.untrusted_json_and_text import decode_json


class LastGood(msgspec.Struct, frozen=True):
    """Last good configuration files as read, in order, with the time since when they are good."""

    at: datetime
    texts: tuple[tuple[str, str], ...]


def keep(paths: AgentPaths, config: AgentConfig, now: datetime) -> None:
    """Save a working configuration; write failures are ignored."""
    texts = tuple((str(path), text) for path, text in config.texts)
    before = _read(paths)
    if before is None or before.texts != texts:
        with contextlib.suppress(StateNotWritableError):
            write_file(paths.last_good, msgspec.json.encode(LastGood(now, texts)))


def recall(paths: AgentPaths, file: Path) -> tuple[AgentConfig, datetime] | None:
    """Return the last good configuration of this file and its date; None if there is none."""
    found = _read(paths)
    if found is None or not found.texts or found.texts[0][0] != str(file):
        return None
    (_, text), *further = found.texts
    with contextlib.suppress(BirthmarkError):
        return parse_config(file, text, [(Path(path), one) for path, one in further]), found.at
    return None


def _read(paths: AgentPaths) -> LastGood | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), paths.last_good.open("rb") as opened:
        return decode_json(opened.read(2 * MAX_CONFIG_BYTES), LastGood)
    return None


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_STATE_BYTES = 256 * 1024


class LastError(msgspec.Struct, frozen=True):
    """Latest error, with its original text."""

    at: datetime
    code: str
    message: str
    cause: str
    fix: str


class PlannedRenewal(msgspec.Struct, frozen=True):
    """Planned renewal time of a certificate; chosen once, so that a restart keeps it."""

    thumbprint: str
    at: datetime


class AgentState(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Agent state. All of it can be rebuilt: losing the file costs one registration."""

    hub: str | None = None
    device_id: str | None = None
    registration_id: str | None = None
    endpoint: str | None = None  # by this DPS endpoint and scope
    thumbprint: str | None = None  # the registered certificate
    registered_at: datetime | None = None
    is_individual: bool | None = None  # from an individual enrollment; None if DPS did not report it
    config_digest: str | None = None
    is_connected: bool = False
    renewals: int = 0
    renewed_at: datetime | None = None
    failures: int = 0
    clock_offset_s: float = 0.0
    clock_why: str = ""
    clock_boot: str = ""  # the offset is valid until the next boot
    seen_at: datetime | None = None  # latest time from an authenticated server
    planned: dict[str, PlannedRenewal] = {}  # renewals by certificate ID, if the issuer gave a window
    error: LastError | None = None
    failing: dict[str, LastError] = {}  # renewal errors by certificate ID


def read_state(path: Path) -> AgentState:
    """Return the state; defaults if the file is missing or damaged."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), path.open("rb") as file:
        return decode_json(file.read(MAX_STATE_BYTES), AgentState)
    return AgentState()


def write_state(path: Path, state: AgentState) -> None:
    write_file(path, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def boot_id() -> str:
    """Return an ID that changes with each boot; empty if the machine provides none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
