"""TOML tables with source positions; all errors are reported with file, line, key, and accepted form."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from birthmark.agent.config.model import ConfigWarning
from birthmark.errors import InvalidRequestError, NotFoundError, PolicyError
from birthmark.text_file_encodings import to_lines
from birthmark.toml_validation import TomlError, lines_of, parse
from birthmark.untrusted_json_and_text import printable

T = TypeVar("T")
Read: TypeAlias = Callable[[Any], T]

MAX_SHOWN = 60
_MAX_INT = 36_500  # 100 years of days


class ConfigMissingError(NotFoundError):
    """The configuration cannot be read."""

    code = "agent.config_missing"
    cause = "The configuration {file} cannot be read: {reason}."
    fix = (
        'For a Birthmark server, create the file: `mkdir -p "$(dirname {file})" && [ ! -e {file} ] && '
        '(umask 077; set -C; made=$(birthmark env --format aziot --registration-id "$(hostname)") && '
        'printf "%s\\n" "$made" > {file})`'
    )
    file: Path
    reason: str


class ConfigMisnamedError(ConfigMissingError):
    """An editor added `.txt` to the configuration's name."""

    code = "agent.config_misnamed"
    message = "The configuration file has the wrong name"
    cause = "The file {file} does not exist, but {file}.txt does: an editor added .txt to the name."
    fix = "Rename the file: `mv -n {file}.txt {file}`"


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
    others: str = ""
    """The other errors in the file, one per line."""


class ConfigUnsupportedError(PolicyError):
    """The configuration uses an unsupported feature."""

    code = "agent.config_unsupported"
    cause = "{file}:{line}: {key}: {detail} is not supported by this agent."
    fix = "{accepted}"
    accepted: str
    detail: str
    file: Path
    key: str
    line: str
    others: str = ""


MistakeKind: TypeAlias = ConfigInvalidError | ConfigUnsupportedError


class MistakeError(ValueError):
    """Invalid value and its accepted form; `{name}` in it is a placeholder for the key."""

    def __init__(self, detail: str, accepted: str) -> None:
        super().__init__(detail)
        self.detail, self.accepted = detail, accepted


def kind_of(shape: Any, detail: str, accepted: str) -> Read[Any]:
    """Return a reader for values of one type."""

    def read(value: object) -> Any:
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise MistakeError(detail, accepted) from error

    return read


def number_from(at_least: int) -> Read[int]:
    """Return a reader for integers of at least `at_least`."""
    shape = Annotated[int, msgspec.Meta(ge=at_least, le=_MAX_INT)]
    return kind_of(shape, f"must be an integer from {at_least} to {_MAX_INT}", f"`{{name}} = {at_least}`")


FILLED = Annotated[str, msgspec.Meta(min_length=1)]
_NOT_EMPTY = "must be a text that is not empty"
TEXT: Read[str] = kind_of(FILLED, _NOT_EMPTY, '`{name} = "text"`')


def text_like(accepted: str) -> Read[str]:
    """Return a parser for texts with a grammar; `accepted` is a valid example."""
    return kind_of(FILLED, _NOT_EMPTY, accepted)


SECRET: Read[str] = kind_of(FILLED, _NOT_EMPTY, '`{name} = "…"`')
FLAG: Read[bool] = kind_of(bool, "must be true or false", "`{name} = true` or `{name} = false`")
ANY: Read[Any] = kind_of(Any, "", "")


_MISSING, _NOT_KNOWN = "is missing", "is not known"


class ConfigSource:
    """The file and its drop-in files: the position of each key, and the errors and warnings found."""

    def __init__(self, texts: Sequence[tuple[Path, str]]) -> None:
        self.file = texts[0][0]
        self._lines = [(file, lines_of(text)) for file, text in reversed(texts)]
        self.warnings: list[ConfigWarning] = []
        self.mistakes: dict[tuple[str, ...], MistakeKind] = {}
        self.token_keys: list[tuple[Table, str]] = []

    def place_of(self, path: tuple[str, ...]) -> tuple[Path, int]:
        """Return file and line of a key, or of the nearest table in the text; the last file that has it wins."""
        while path:
            for file, lines in self._lines:
                if path in lines:
                    return file, lines[path]
            path = path[:-1]
        return self.file, 1

    def warn_of(self, name: str, detail: str) -> None:
        """Add a warning about a table of the file."""
        file, line = self.place_of((name,))
        self.warnings.append(ConfigWarning(line, name, detail, file))

    def has_mistakes(self, name: str) -> bool:
        """Return whether an error was found in the table `name` of the file."""
        return any(path[:1] == (name,) for path in self.mistakes)

    def _find_misplaced_key(self, name: str) -> tuple[str, int] | None:
        """Return the path and line of a key of this name in an unknown table; None if there is none."""
        unknown = {warning.key for warning in self.warnings if warning.detail.startswith(_NOT_KNOWN)}
        for _, lines in self._lines:
            for path, line in lines.items():
                if path[-1] == name and any(dotted(path[:depth]) in unknown for depth in range(1, len(path))):
                    return dotted(path), line
        return None

    def check(self) -> None:
        """Raise the first error of the file, which lists the others."""
        for path, mistake in self.mistakes.items():
            if mistake.detail == _MISSING and (found := self._find_misplaced_key(path[-1])) is not None:
                mistake.detail = f"{_MISSING}; line {found[1]} contains it as {found[0]}"
                mistake.accepted = f"Write {dotted(path)} in line {found[1]}"
        told = sorted(self.mistakes.values(), key=lambda mistake: int(mistake.line))
        if told:
            told[0].others = "\n".join(printable(f"{one.explain_cause()} {one.accepted}") for one in told[1:])
            raise told[0]


class Table:
    """One table. Keys that are read count as known; `finish` warns about the others.

    Parsing continues after an error with a harmless placeholder value. The result of a file with errors is never used.
    """

    def __init__(self, source: ConfigSource, data: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
        self.source = source
        self.path = path
        self._data = data
        self._left = set(data)
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data

    @property
    def names(self) -> Iterable[str]:
        return self._data.keys()

    def take(self, name: str, read: Read[T]) -> T | None:
        """Return a value converted by `read`; None if it is missing or invalid."""
        self._known.add(name)
        self._left.discard(name)
        try:
            return read(self._data[name]) if name in self._data else None
        except MistakeError as mistake:
            self.wrong(name, mistake.detail, mistake.accepted.replace("{name}", name))
            return None

    def need(self, name: str, example: str) -> str:
        """Return a required string."""
        if name not in self._data and (close := difflib.get_close_matches(name, self._left, 1)):  # likely typo
            found, (_, line) = printable(close[0]), self.source.place_of((*self.path, close[0]))
            detail = f"is missing; '{found}' is written there, which is not known"
            self.wrong(name, detail, f"Write {name} for {found} in line {line}")
        elif (value := self.take(name, TEXT)) is not None:
            return value
        self.wrong(name, _MISSING, f"Add it: `{name} = {example}`")
        return ""

    def table(self, name: str) -> "Table":
        """Return the table under a key; an empty one if it is missing."""
        path = (*self.path, name)
        data = self.take(name, kind_of(dict[str, Any], "must be a table", f"`[{dotted(path)}]` with its keys below"))
        return Table(self.source, data or {}, path)

    def need_table(self, name: str) -> "Table":
        """Return a required table."""
        if name not in self._data:
            self.wrong(name, _MISSING, f"Add the table `[{dotted((*self.path, name))}]`")
        return self.table(name)

    def wrong(self, name: str, detail: str, accepted: str, kind: type[MistakeKind] = ConfigInvalidError) -> None:
        """Record an error for a key: only the first per key, and none below another."""
        source, path = self.source, (*self.path, name)
        if not any(path[:depth] in source.mistakes for depth in range(1, len(path) + 1)):
            (file, line), key = source.place_of(path), dotted(path)
            source.mistakes[path] = kind(file=file, line=str(line), key=key, detail=detail, accepted=accepted)

    def unsupported(self, name: str, detail: str, accepted: str) -> None:
        """Record that this agent does not support the value of a key."""
        self.wrong(name, detail, accepted, ConfigUnsupportedError)

    def warn(self, name: str, detail: str) -> None:
        self._left.discard(name)
        path = (*self.path, name)
        file, line = self.source.place_of(path)
        self.source.warnings.append(ConfigWarning(line, dotted(path), detail, file))

    def finish(self) -> None:
        """Warn about unknown keys; aziot ignores them too, which hides typing errors."""
        for name, meant in self._unknown():
            self.warn(name, f"{_NOT_KNOWN} and is ignored{meant}")

    def refuse_rest(self) -> None:
        """Record an error for each unknown key, in a file that only this agent reads."""
        for name, meant in self._unknown():
            self.wrong(name, f"{_NOT_KNOWN}{meant}", f"Known here: {', '.join(sorted(self._known))}")

    def _unknown(self) -> Iterable[tuple[str, str]]:
        for name in sorted(self._left):
            close = difflib.get_close_matches(name, self._known, 1)
            yield name, f"; did you mean {close[0]}?" if close else ""


def parse_files(texts: Sequence[tuple[Path, str]]) -> Table:
    """Return the top table of several files, each overriding those before it. Raise `ConfigInvalidError`."""
    return Table(ConfigSource(texts), merged(texts))


def merged(texts: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """Return the merged data of several files, each overriding those before it.

    Raise `ConfigInvalidError`.
    """
    found: dict[str, Any] = {}
    for file, text in texts:
        found = _merge_tables(found, _parse_toml(file, text))
    return found


def _merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay one table on another: tables are merged, other values replaced."""
    out = dict(below)
    for name, value in above.items():
        old = out.get(name)
        out[name] = _merge_tables(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


_SYNTAX = "See https://toml.io for the syntax; put strings in double quotes."


def _parse_toml(file: Path, text: str) -> dict[str, Any]:
    """Return the content of a file. Raise `ConfigInvalidError` with the line of a syntax error."""
    try:
        return parse(text)
    except TomlError as error:
        command = to_lines(file, text)
        raise ConfigInvalidError(
            file=file,
            line=str(error.line),
            key="(syntax)",
            detail=printable(error.detail),
            accepted=f"Convert its line ends to LF, and use the result: `{command}`" if command else _SYNTAX,
        ) from error


def dotted(path: tuple[str, ...]) -> str:
    return printable(".".join(path))[: 4 * MAX_SHOWN]
