"""Files that are written into a directory whose other names somebody else may have chosen."""

import contextlib
import os
from pathlib import Path


def put(path: Path, text: str) -> None:
    """Write a text file in one step. Whatever stood there by that name is replaced, and a link is not followed."""
    building = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        building.unlink()
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    building.replace(path)
