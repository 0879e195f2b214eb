"""Where a server keeps its records, as its data directory notes it: without user, password and options.

A command that reads or copies them while no server is asked must not take an old file for them.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from birthmark.untrusted_text import decode_json

NAME = "database.json"
_SQLITE = "sqlite:///"


class DatabaseLocation(msgspec.Struct, frozen=True):
    """What the last start noted."""

    database: str
    config: str | None = None
    """The configuration file that names it."""


def plain(url: str, data: Path) -> str:
    """Return what tells a database from others; a file below the data directory moves with it."""
    if url.startswith(_SQLITE):
        # A link that leads to itself is no reason to fail here, as it is to pathlib.
        path, own = Path(os.path.realpath(url.removeprefix(_SQLITE))), data.resolve()
        return _SQLITE + str(path.relative_to(own) if path.is_relative_to(own) else path)
    parts = urlsplit(url)
    places = ",".join(map(_place, parts.netloc.rpartition("@")[2].split(",")))
    return f"postgresql://{places}{parts.path}"


def _place(text: str) -> str:
    """Return host and port of one of several servers, of which one may be written."""
    parts = urlsplit(f"//{text}")
    return f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""


def noted(data: Path) -> DatabaseLocation | None:
    """Return what is noted; None where nothing is, as an earlier version left it."""
    try:
        return decode_json((data / NAME).read_bytes(), DatabaseLocation)
    except (OSError, msgspec.MsgspecError):
        return None


def has_own_file(data: Path) -> bool:
    """Say whether the records are in the file of the data directory, as far as is known."""
    known = noted(data)
    is_here = known is None or known.database == f"{_SQLITE}birthmark.db"
    return is_here and os.path.exists(data / "birthmark.db")  # noqa: PTH110 - False for what is closed to this user
