"""Effective settings with the file and line of each; secrets are hidden."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from birthmark.agent.config.toml_tables import (
    ConfigSource,
    dotted,
    merged,
)

_SECRET = frozenset({"password", "value", "connection_string"})


_PIN = re.compile(r"pin-value=[^&]*")


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One effective value."""

    key: str
    value: str
    file: Path
    line: int


def effective(texts: Sequence[tuple[Path, str]]) -> Iterator[EffectiveSetting]:
    """Return the effective settings, in the order of the files. Raise `ConfigInvalidError`."""
    source = ConfigSource(texts)
    for path, value in _each(merged(texts), ()):
        file, line = source.place_of(path)
        yield EffectiveSetting(dotted(path), _shown(path[-1], value), file, line)


def _each(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _each(value, (*path, name))
        else:
            yield (*path, name), value


def _shown(name: str, value: object) -> str:
    if name in _SECRET:
        return "(hidden)"
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return _PIN.sub("pin-value=(hidden)", text)
