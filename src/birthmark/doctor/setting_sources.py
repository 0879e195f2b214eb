"""A value and its source: a variable, an option, or a line of a file. Each has a command that changes it."""

import shlex
from dataclasses import dataclass
from enum import StrEnum


class SettingSource(StrEnum):
    """Source of a value."""

    VARIABLE = "variable"
    OPTION = "option"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class SourcedSetting:
    """A value with its source, so that a command can change it.

    `name` is a variable, an option of this command, or a key in the file `file`. `command` is the complete command.
    `written` is the text around the value in the file, with `{}` in its place.
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

    def set_command(self, value: str) -> str:
        """Return the command that sets another value."""
        match self.kind:
            case SettingSource.VARIABLE:
                return f"export {self.name}={shlex.quote(value)}"
            case SettingSource.OPTION:
                return shlex.join(_replaced(self.command, self.name, value))
            case SettingSource.FILE:
                return replacing(self.file, self.written.format(self.value), self.written.format(value))

    def unset_command(self) -> str:
        """Return the command that removes the setting."""
        if self.kind is SettingSource.VARIABLE:
            return f"unset {self.name}"
        return shlex.join(_replaced(self.command, self.name, None))


def replacing(file: str, old: str, new: str) -> str:
    """Return the command that replaces `old` with `new` in a file."""
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
