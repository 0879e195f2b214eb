"""Tables of a TOML file with their place. All mistakes are told, each with file, line, key and the accepted form."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from birthmark.agent.config.model import ConfigWarning
from birthmark.errors import InvalidRequestError, NotFoundError, PolicyError
from birthmark.text_files import to_lines
from birthmark.toml_errors import TomlError, lines_of, parse
from birthmark.untrusted_text import printable

T = TypeVar("T")
Read: TypeAlias = Callable[[Any], T]

MAX_SHOWN = 60
_MAX_INT = 36_500  # a century of days


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
    message = "The configuration has another file name"
    cause = "The file {file} does not exist, but {file}.txt does. An editor added .txt to its name."
    fix = "Rename it: `mv -n {file}.txt {file}`"


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
    """The other mistakes in the file, one a line."""


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
    """What is wrong with a value, and what would be accepted: `{name}` in it stands for the key."""

    def __init__(self, detail: str, accepted: str) -> None:
        super().__init__(detail)
        self.detail, self.accepted = detail, accepted


def kind_of(shape: Any, detail: str, accepted: str) -> Read[Any]:
    """Return the reader of values of a kind."""

    def read(value: object) -> Any:
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise MistakeError(detail, accepted) from error

    return read


def number_from(at_least: int) -> Read[int]:
    """Return the reader of whole numbers from `at_least` on."""
    shape = Annotated[int, msgspec.Meta(ge=at_least, le=_MAX_INT)]
    return kind_of(shape, f"must be a whole number from {at_least} to {_MAX_INT}", f"`{{name}} = {at_least}`")


FILLED = Annotated[str, msgspec.Meta(min_length=1)]
_NOT_EMPTY = "must be a text that is not empty"
TEXT: Read[str] = kind_of(FILLED, _NOT_EMPTY, '`{name} = "text"`')


def text_like(accepted: str) -> Read[str]:
    """Return the reader of texts that have a grammar; `accepted` is an example that fits it."""
    return kind_of(FILLED, _NOT_EMPTY, accepted)


SECRET: Read[str] = kind_of(FILLED, _NOT_EMPTY, '`{name} = "…"`')
FLAG: Read[bool] = kind_of(bool, "must be true or false", "`{name} = true` or `{name} = false`")
ANY: Read[Any] = kind_of(Any, "", "")


_MISSING, _NOT_KNOWN = "is missing", "is not known"


class ConfigSource:
    """The file, and those of its directory that were read over it: where each key stands, and what was found."""

    def __init__(self, texts: Sequence[tuple[Path, str]]) -> None:
        self.file = texts[0][0]
        self._lines = [(file, lines_of(text)) for file, text in reversed(texts)]
        self.warnings: list[ConfigWarning] = []
        self.mistakes: dict[tuple[str, ...], MistakeKind] = {}
        self.token_keys: list[tuple[Table, str]] = []

    def place_of(self, path: tuple[str, ...]) -> tuple[Path, int]:
        """Return file and line of a key, or of the nearest table that is written out; the last file that has it."""
        while path:
            for file, lines in self._lines:
                if path in lines:
                    return file, lines[path]
            path = path[:-1]
        return self.file, 1

    def warn_of(self, name: str, detail: str) -> None:
        """Warn of a table of the file."""
        file, line = self.place_of((name,))
        self.warnings.append(ConfigWarning(line, name, detail, file))

    def has_mistakes(self, name: str) -> bool:
        """Say whether a mistake was noted in the table `name` of the file."""
        return any(path[:1] == (name,) for path in self.mistakes)

    def _misplaced(self, name: str) -> tuple[str, int] | None:
        """Return where a key of this name stands in a table that is not known, and in which line."""
        unknown = {warning.key for warning in self.warnings if warning.detail.startswith(_NOT_KNOWN)}
        for _, lines in self._lines:
            for path, line in lines.items():
                if path[-1] == name and any(dotted(path[:depth]) in unknown for depth in range(1, len(path))):
                    return dotted(path), line
        return None

    def check(self) -> None:
        """Raise the first mistake of the file, which tells of the others too."""
        for path, mistake in self.mistakes.items():
            if mistake.detail == _MISSING and (found := self._misplaced(path[-1])) is not None:
                mistake.detail = f"{_MISSING}; it stands in line {found[1]} as {found[0]}"
                mistake.accepted = f"Write {dotted(path)} in line {found[1]}"
        told = sorted(self.mistakes.values(), key=lambda mistake: int(mistake.line))
        if told:
            told[0].others = "\n".join(printable(f"{one.explain_cause()} {one.accepted}") for one in told[1:])
            raise told[0]


class Table:
    """One table. What is taken counts as known; `finish` warns of what nobody asked for.

    A mistake is noted, and something harmless goes on in its place: what is read of a file with mistakes is never used.
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
        """Return what `read` makes of a value; None where there is none, or a mistake was noted."""
        self._known.add(name)
        self._left.discard(name)
        try:
            return read(self._data[name]) if name in self._data else None
        except MistakeError as mistake:
            self.wrong(name, mistake.detail, mistake.accepted.replace("{name}", name))
            return None

    def need(self, name: str, example: str) -> str:
        """Return a text that must be there."""
        if name not in self._data and (close := difflib.get_close_matches(name, self._left, 1)):  # meant for it
            found, (_, line) = printable(close[0]), self.source.place_of((*self.path, close[0]))
            detail = f"is missing; '{found}' is written there, which is not known"
            self.wrong(name, detail, f"Write {name} for {found} in line {line}")
        elif (value := self.take(name, TEXT)) is not None:
            return value
        self.wrong(name, _MISSING, f"Add it: `{name} = {example}`")
        return ""

    def table(self, name: str) -> "Table":
        """Return the table under a key, an empty one where there is none."""
        path = (*self.path, name)
        data = self.take(name, kind_of(dict[str, Any], "must be a table", f"`[{dotted(path)}]` with its keys below"))
        return Table(self.source, data or {}, path)

    def need_table(self, name: str) -> "Table":
        """Return a table that must be there."""
        if name not in self._data:
            self.wrong(name, _MISSING, f"Add the table `[{dotted((*self.path, name))}]`")
        return self.table(name)

    def wrong(self, name: str, detail: str, accepted: str, kind: type[MistakeKind] = ConfigInvalidError) -> None:
        """Note a mistake in one key, the first of each, and none below another."""
        source, path = self.source, (*self.path, name)
        if not any(path[:depth] in source.mistakes for depth in range(1, len(path) + 1)):
            (file, line), key = source.place_of(path), dotted(path)
            source.mistakes[path] = kind(file=file, line=str(line), key=key, detail=detail, accepted=accepted)

    def unsupported(self, name: str, detail: str, accepted: str) -> None:
        """Note that this agent does not do what one key asks for."""
        self.wrong(name, detail, accepted, ConfigUnsupportedError)

    def warn(self, name: str, detail: str) -> None:
        self._left.discard(name)
        path = (*self.path, name)
        file, line = self.source.place_of(path)
        self.source.warnings.append(ConfigWarning(line, dotted(path), detail, file))

    def finish(self) -> None:
        """Warn of keys that nobody knows: aziot ignores them too, and a typing mistake hides that way."""
        for name, meant in self._unknown():
            self.warn(name, f"{_NOT_KNOWN} and is ignored{meant}")

    def refuse_rest(self) -> None:
        """Note a mistake for each key that nobody knows, in a file that is read by nobody else."""
        for name, meant in self._unknown():
            self.wrong(name, f"{_NOT_KNOWN}{meant}", f"Known here: {', '.join(sorted(self._known))}")

    def _unknown(self) -> Iterable[tuple[str, str]]:
        for name in sorted(self._left):
            close = difflib.get_close_matches(name, self._known, 1)
            yield name, f"; did you mean {close[0]}?" if close else ""


def parse_files(texts: Sequence[tuple[Path, str]]) -> Table:
    """Return the top table of several files, each over those before it. Raise `ConfigInvalidError`."""
    return Table(ConfigSource(texts), merged(texts))


def merged(texts: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """Return the data of several files, each over those before it. Raise `ConfigInvalidError`."""
    found: dict[str, Any] = {}
    for file, text in texts:
        found = _over(found, _parse_toml(file, text))
    return found


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put one table over another: tables are merged, anything else is replaced."""
    out = dict(below)
    for name, value in above.items():
        old = out.get(name)
        out[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


_SYNTAX = "See https://toml.io for the syntax; texts stand in double quotes."


def _parse_toml(file: Path, text: str) -> dict[str, Any]:
    """Return what a file says. Raise `ConfigInvalidError` with the line of a syntax error."""
    try:
        return parse(text)
    except TomlError as error:
        command = to_lines(file, text)
        raise ConfigInvalidError(
            file=file,
            line=str(error.line),
            key="(syntax)",
            detail=printable(error.detail),
            accepted=f"End its lines with LF, and use that: `{command}`" if command else _SYNTAX,
        ) from error


def dotted(path: tuple[str, ...]) -> str:
    return printable(".".join(path))[: 4 * MAX_SHOWN]
