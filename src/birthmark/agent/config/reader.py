"""Tables of a TOML file with their place: every complaint names file, line, key and what would be accepted."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from birthmark.agent.config.model import ConfigWarning
from birthmark.errors import InvalidRequestError, NotFoundError, PolicyError
from birthmark.text import printable

MAX_SHOWN = 60
_MAX_INT = 36_500  # a century of days
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_AT_LINE = re.compile(r" \(at line ([0-9]+)")


class ConfigMissingError(NotFoundError):
    """The configuration cannot be read."""

    code = "agent.config_missing"
    cause = "The configuration {file} cannot be read: {reason}."
    fix = (
        'For a Birthmark server, where no file is yet: `mkdir -p "$(dirname {file})" && (umask 077; set -C; '
        'birthmark env --format aziot --registration-id "$(hostname)" > {file})`'
    )
    file: Path
    reason: str


class ConfigInvalidError(InvalidRequestError):
    """The configuration is not valid."""

    code = "agent.config_invalid"
    cause = "{file}:{line}: {key}: {detail}."
    fix = "{accepted}"
    accepted: str
    detail: str
    file: Path
    key: str
    line: str


class ConfigUnsupportedError(PolicyError):
    """The configuration asks for what this agent does not do."""

    code = "agent.config_unsupported"
    cause = "{file}:{line}: {key}: {detail} is not supported by this agent."
    fix = "{accepted}"
    accepted: str
    detail: str
    file: str
    key: str
    line: str


class Source:
    """The file: its text for line numbers, and the warnings found on the way."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self._lines = _lines_of(text)
        self.warnings: list[ConfigWarning] = []
        self.token_uris: list[tuple[str, ...]] = []

    def line_of(self, path: tuple[str, ...]) -> int:
        """Return the line of a key, or of the nearest table that is written out."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1

    def error(self, path: tuple[str, ...], detail: str, accepted: str) -> ConfigInvalidError:
        return ConfigInvalidError(**self._facts(path, detail, accepted))

    def unsupported(self, path: tuple[str, ...], detail: str, accepted: str) -> ConfigUnsupportedError:
        return ConfigUnsupportedError(**self._facts(path, detail, accepted))

    def warn(self, path: tuple[str, ...], detail: str) -> None:
        self.warnings.append(ConfigWarning(self.line_of(path), dotted(path), detail))

    def _facts(self, path: tuple[str, ...], detail: str, accepted: str) -> dict[str, Any]:
        return {
            "file": self.file,
            "line": self.line_of(path),
            "key": dotted(path) or "(top level)",
            "detail": detail,
            "accepted": accepted,
        }


class Table:
    """One table. Each `take_…` marks its key as known; `finish` warns of those nobody asked for."""

    def __init__(self, source: Source, data: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
        self.source = source
        self.path = path
        self._data = data
        self._left = set(data)

    def __contains__(self, name: str) -> bool:
        return name in self._data

    @property
    def names(self) -> Iterable[str]:
        return self._data.keys()

    def take(self, name: str) -> Any:
        """Return the raw value, or None."""
        self._left.discard(name)
        return self._data.get(name)

    def take_text(self, name: str, *, is_secret: bool = False) -> str | None:
        value = self.take(name)
        if value is None or (isinstance(value, str) and value):
            return value
        raise self.error(name, "must be a text that is not empty", f'`{name} = "{"…" if is_secret else "text"}"`')

    def need_text(self, name: str, example: str) -> str:
        value = self.take_text(name)
        if value is None:
            close = difflib.get_close_matches(name, self._left, 1)  # a key that may have been meant for it
            if not close:
                raise self.error(name, "is missing", f"Add it: `{name} = {example}`")
            found, line = printable(close[0]), self.source.line_of((*self.path, close[0]))
            detail = f"is missing; '{found}' is written there, which is not known"
            raise self.error(name, detail, f"Write {name} for {found} in line {line}")
        return value

    def take_bool(self, name: str) -> bool | None:
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.error(name, "must be true or false", f"`{name} = true` or `{name} = false`")

    def take_int(self, name: str, at_least: int) -> int | None:
        value = self.take(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= _MAX_INT):
            return value
        detail = f"must be a whole number from {at_least} to {_MAX_INT}"
        raise self.error(name, detail, f"`{name} = {at_least}`")

    def take_table(self, name: str) -> "Table | None":
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, "must be a table", f"`[{dotted((*self.path, name))}]` with its keys below")
        return Table(self.source, value, (*self.path, name))

    def need_table(self, name: str) -> "Table":
        table = self.take_table(name)
        if table is None:
            raise self.error(name, "is missing", f"Add the table `[{dotted((*self.path, name))}]`")
        return table

    def error(self, name: str, detail: str, accepted: str) -> ConfigInvalidError:
        """Return the complaint about one key, to be raised."""
        return self.source.error((*self.path, name), detail, accepted)

    def unsupported(self, name: str, detail: str, accepted: str) -> ConfigUnsupportedError:
        """Return the refusal of one key, to be raised."""
        return self.source.unsupported((*self.path, name), detail, accepted)

    def warn(self, name: str, detail: str) -> None:
        self._left.discard(name)
        self.source.warn((*self.path, name), detail)

    def finish(self) -> None:
        """Warn of keys that nobody knows: aziot ignores them too, and a typing mistake hides that way."""
        for name in sorted(self._left):
            self.warn(name, "is not known and is ignored")


def parse_toml(file: Path, text: str) -> tuple[Source, Table]:
    """Return the top table. Raise `ConfigInvalidError` with the line of a syntax error."""
    source = Source(file, text)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and what Python says of a number too long
        message = str(error) or "nested too deeply"
        found = _AT_LINE.search(message)
        raise ConfigInvalidError(
            file=file,
            line=found[1] if found else "1",
            key="(syntax)",
            detail=printable(_AT_LINE.split(message)[0]),
            accepted="See https://toml.io for the syntax; texts stand in double quotes.",
        ) from error
    return source, Table(source, data)


def dotted(path: tuple[str, ...]) -> str:
    return printable(".".join(path))[: 4 * MAX_SHOWN]


def _lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the first line of every key and table that has one of its own; inline tables count as their key."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.fullmatch(line)) is not None:
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif (key := _KEY.match(line)) is not None:
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(text))
