"""A value and where it was said: by a variable, an option, or a line of a file. Each can be said otherwise."""

import shlex
from dataclasses import dataclass
from enum import StrEnum


class SettingSource(StrEnum):
    """Where a value was said."""

    VARIABLE = "variable"
    OPTION = "option"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class SourcedSetting:
    """A value and where it was said, so that it can be said otherwise.

    `name` is a variable, an option of this command (`command` is all of it) or a key in the file `file`, where
    `written` is the text around the value, `{}` in its place.
    """

    kind: SettingSource
    name: str
    value: str
    command: tuple[str, ...] = ()
    file: str = ""
    written: str = "{}"

    def __str__(self) -> str:
        match self.kind:
            case SettingSource.VARIABLE:
                return f"{self.name}={self.value}"
            case SettingSource.OPTION:
                return f"{self.name} {self.value}"
            case SettingSource.FILE:
                return f"{self.written.format(self.value)} in {self.file}"

    def to(self, value: str) -> str:
        """Return the command that says another value."""
        match self.kind:
            case SettingSource.VARIABLE:
                return f"export {self.name}={shlex.quote(value)}"
            case SettingSource.OPTION:
                return shlex.join(_replaced(self.command, self.name, value))
            case SettingSource.FILE:
                return replacing(self.file, self.written.format(self.value), self.written.format(value))

    def away(self) -> str:
        """Return the command that says nothing of it any more."""
        if self.kind is SettingSource.VARIABLE:
            return f"unset {self.name}"
        return shlex.join(_replaced(self.command, self.name, None))


def replacing(file: str, old: str, new: str) -> str:
    """Return the command that writes `new` in the place of `old` in a file."""
    pattern = "".join(f"\\{char}" if char in r"\.*[]^$|" else char for char in old)
    text = "".join(f"\\{char}" if char in r"\&|" else char for char in new)
    return shlex.join(["sed", "-i", f"s|{pattern}|{text}|", file])


def _replaced(command: tuple[str, ...], option: str, value: str | None) -> list[str]:
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept if value is None else [*kept, option, value]
