"""What the agent remembers between starts, as one JSON file, and what others may ask of it."""

import contextlib
from datetime import datetime
from pathlib import Path

import msgspec

from birthmark.agent.config import AgentConfig, parse_config
from birthmark.agent.config.loader import MAX_CONFIG_BYTES
from birthmark.agent.paths import AgentPaths, StateNotWritableError, write_file
from birthmark.errors import BirthmarkError
from birthmark.untrusted_text import decode_json


class LastGood(msgspec.Struct, frozen=True):
    """Files as they were read, in order, and since when they were good."""

    at: datetime
    texts: tuple[tuple[str, str], ...]


def keep(places: AgentPaths, config: AgentConfig, now: datetime) -> None:
    """Remember a configuration that worked. Where nothing can be written there is nothing to lose either."""
    texts = tuple((str(path), text) for path, text in config.texts)
    before = _read(places)
    if before is None or before.texts != texts:
        with contextlib.suppress(StateNotWritableError):
            write_file(places.last_good, msgspec.json.encode(LastGood(now, texts)))


def recall(places: AgentPaths, file: Path) -> tuple[AgentConfig, datetime] | None:
    """Return the last good configuration of this file and its date; None where there is none."""
    found = _read(places)
    if found is None or not found.texts or found.texts[0][0] != str(file):
        return None
    (_, text), *further = found.texts
    with contextlib.suppress(BirthmarkError):
        return parse_config(file, text, [(Path(path), one) for path, one in further]), found.at
    return None


def _read(places: AgentPaths) -> LastGood | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), places.last_good.open("rb") as opened:
        return decode_json(opened.read(2 * MAX_CONFIG_BYTES), LastGood)
    return None


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_STATE_BYTES = 256 * 1024


class LastError(msgspec.Struct, frozen=True):
    """The latest trouble, in the words it had."""

    at: datetime
    code: str
    message: str
    cause: str
    fix: str


class PlannedRenewal(msgspec.Struct, frozen=True):
    """When a certificate is renewed; chosen once, so that a restart does not choose again."""

    thumbprint: str
    at: datetime


class AgentState(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """Everything here can be found out again: losing the file costs one registration."""

    hub: str | None = None
    device_id: str | None = None
    registration_id: str | None = None
    endpoint: str | None = None  # which DPS and scope assigned it
    thumbprint: str | None = None  # the certificate that was registered
    registered_at: datetime | None = None
    is_individual: bool | None = None  # registered by an individual enrollment; None when DPS did not say
    config_digest: str | None = None
    is_connected: bool = False
    renewals: int = 0
    renewed_at: datetime | None = None
    failures: int = 0
    clock_offset_s: float = 0.0
    clock_why: str = ""
    clock_boot: str = ""  # the offset counts until the machine starts anew
    seen_at: datetime | None = None  # the latest time that an authenticated server told
    planned: dict[str, PlannedRenewal] = {}  # renewals by certificate id, where the issuer gave a window
    error: LastError | None = None
    failing: dict[str, LastError] = {}  # what keeps a certificate from being renewed, by its id


def read_state(path: Path) -> AgentState:
    """Return the state; a file that is missing or damaged counts as none."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), path.open("rb") as file:
        return decode_json(file.read(MAX_STATE_BYTES), AgentState)
    return AgentState()


def write_state(path: Path, state: AgentState) -> None:
    write_file(path, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def boot_id() -> str:
    """Return what is another after each start of the machine; empty where it does not tell."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
