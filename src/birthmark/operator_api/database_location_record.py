"""Location of a server's database, recorded in its data directory without user, password and options.

Commands that read or copy the database without a server must not use an outdated file instead.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from birthmark.untrusted_json_and_text import decode_json

NAME = "database.json"
_SQLITE = "sqlite:///"


class DatabaseLocation(msgspec.Struct, frozen=True):
    """Location recorded by the last start."""

    database: str
    config: str | None = None
    """Configuration file that names the database."""


def plain(url: str, data: Path) -> str:
    """Return the identity of a database; a file below the data directory stays valid if the directory moves."""
    if url.startswith(_SQLITE):
        # Unlike pathlib, a link to itself must not cause a failure here.
        path, own = Path(os.path.realpath(url.removeprefix(_SQLITE))), data.resolve()
        return _SQLITE + str(path.relative_to(own) if path.is_relative_to(own) else path)
    parts = urlsplit(url)
    places = ",".join(map(_place, parts.netloc.rpartition("@")[2].split(",")))
    return f"postgresql://{places}{parts.path}"


def _place(text: str) -> str:
    """Return host and port of one of several servers, only one of which is writable."""
    parts = urlsplit(f"//{text}")
    return f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""


def find_recorded_location(data: Path) -> DatabaseLocation | None:
    """Return the recorded location; None if there is none, as from an earlier version."""
    try:
        return decode_json((data / NAME).read_bytes(), DatabaseLocation)
    except (OSError, msgspec.MsgspecError):
        return None


def has_own_file(data: Path) -> bool:
    """Return whether the database is the file in the data directory, as far as is known."""
    known = find_recorded_location(data)
    is_here = known is None or known.database == f"{_SQLITE}birthmark.db"
    return is_here and os.path.exists(data / "birthmark.db")  # noqa: PTH110 - False if not accessible
