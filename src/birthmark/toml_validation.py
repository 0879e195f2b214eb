"""All mistakes of a TOML file, each with its line; msgspec reports only the first, in its own wording.

Each mistake is removed and the rest is validated again, until none is left.
"""

import copy
import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import msgspec

from birthmark.text_file_encodings import unseen

MAX_PARTS = 64
"""Maximum number of parts of a key: the parser's memory grows with their square."""
_PARTS = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_TOO_DEEP = re.compile(rf"""(?<![A-Za-z0-9_-])(?:{_PARTS}[ \t]*+\.[ \t]*+){{{MAX_PARTS}}}""")
_TEXTS = re.compile(r"""#[^\n]*+|'[^'\n]*+'?|"(?P<basic>(?:[^"\\\n]|\\[^\n])*+)\"?""")
_WINDOWS_PATH = re.compile(r"(?:file:/*+)?[A-Za-z]:\\(?!\\)|\\\\[\w.-]+\\(?!\\)\w")
"""Windows path on a drive or on another machine."""
_NEVER_MEANT = re.compile(r"\\(?:[bf]|r(?!\\n))")
"""Escapes of characters that no setting contains, as in an unescaped Windows path."""
_NO_BACKSLASH = "a path with \\ needs single quotes, or / in place of each \\"
_AT_LINE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)")
_AT_END = " (at end of document)"
_HEADER = re.compile(r"\s*\[\[?([^\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


class TomlError(ValueError):
    """The text is not valid TOML, or exceeds a limit.

    The error has the reason and its line, or the last line if the text ends early.
    """

    def __init__(self, detail: str, line: int) -> None:
        super().__init__(f"line {line}: {detail}")
        self.detail, self.line = detail, line


def parse(text: str) -> dict[str, Any]:
    """Return the content of a TOML text, whose size the caller limits. Raise `TomlError`."""
    if (deep := _TOO_DEEP.search(text)) is not None:
        raise TomlError(f"a key has more than {MAX_PARTS} parts", text.count("\n", 0, deep.start()) + 1)
    for one in _TEXTS.finditer(text if "\\" in text and "'''" not in text else ""):
        basic = one["basic"] or ""
        if _WINDOWS_PATH.match(basic) or _NEVER_MEANT.search(basic.replace("\\\\", "")):
            raise TomlError(_NO_BACKSLASH, text.count("\n", 0, one.end()) + 1)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and Python's error for too long a number
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        line = int(found[1]) if (found := _AT_LINE.search(said)) else 1 + text.rstrip().count("\n")
        detail = _AT_LINE.sub("", said).removesuffix(_AT_END) + unseen(text.replace("\r\n", "\n"), line)
        raise TomlError(detail, line) from error


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the first line of every key and table that starts a line; inline tables count as their key."""
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


_MAX = 20
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<at>[^`]*)`)?")
_WRONG = re.compile(r"(?P<what>.*?) - at `\$\.(?P<at>[^`]*)`")
_UNNAMED = re.compile(r"\$\.(?P<table>[^`\[]+)\[\.\.\.\]")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_TYPES = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "a string",
}


@dataclass(frozen=True, slots=True)
class TomlProblem:
    """A problem and its line, and the TOML line of the default; None and "" if there is none."""

    line: int | None
    what: str
    default: str

    @property
    def words(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


def mistakes_in(values: Mapping[str, object], kind: type[msgspec.Struct], text: str) -> list[TomlProblem]:
    """Return the problems of `values`, which were read from `text`; empty if they convert to `kind`."""
    rest: dict[str, Any] = copy.deepcopy(dict(values))
    found: list[TomlProblem] = []
    lines = lines_of(text)
    while len(found) < _MAX:
        try:
            msgspec.convert(rest, kind)
        except msgspec.ValidationError as error:
            path, words = _split_message(_add_key_to_message(str(error), rest, kind), kind)
            line = lines.get(tuple(path.split(".")))
            found.append(TomlProblem(line, f"{path or 'the file'} {words}", _default_of(kind, path)))
            if not _take_out(rest, path):
                break
        else:
            break
    return found


def _add_key_to_message(message: str, values: Mapping[str, Any], kind: Any) -> str:
    """Return a message of msgspec, with the key added if it is in a table with arbitrary keys."""
    if (unnamed := _UNNAMED.search(message)) is None or get_origin(
        table := _type_at(kind, unnamed["table"])
    ) is not dict:
        return message
    entries: Any = values
    for name in unnamed["table"].split("."):
        entries = entries[name]
    for name, entry in entries.items():
        try:
            msgspec.convert(entry, get_args(table)[1])
        except msgspec.ValidationError:
            return message.replace(unnamed[0], f"$.{unnamed['table']}.{name}", 1)
    return message


def _split_message(message: str, kind: type[msgspec.Struct]) -> tuple[str, str]:
    """Return the dotted key and its problem."""
    if (unknown := _UNKNOWN.match(message)) is not None:
        key, at = unknown["key"], unknown["at"] or ""
        close = difflib.get_close_matches(key, _fields_at(kind, at), 1)
        return f"{at}.{key}".lstrip("."), "is not known" + (f"; {close[0]} is" if close else "")
    if (wrong := _WRONG.match(message)) is None:
        return "", f"cannot be used: {message}"
    path = re.sub(r"\[.*", "", wrong["at"])
    if (types := _TYPES.match(wrong["what"])) is not None:
        wanted = " or ".join(_WORDS.get(one, one) for one in types["wanted"].split(" | ") if one != "null")
        return path, f"must be {wanted}, not {_WORDS.get(types['got'], types['got'])}"
    if wrong["what"].startswith("Invalid enum value"):
        return (
            path,
            f"must be {_choices(_type_at(kind, path))}, not {wrong['what'].removeprefix('Invalid enum value ')}",
        )
    if (missing := _MISSING.match(wrong["what"])) is not None:
        inner = f"{path}.{missing['key']}"
        return path, f"must set {missing['key']} to one of {_choices(_type_at(kind, inner))}"
    pattern = re.search(r"matching regex '(.*)'", wrong["what"])
    return path, f"does not look like {pattern[1]}" if pattern else f"cannot be used: {wrong['what']}"


def _fields_at(kind: Any, at: str) -> Mapping[str, msgspec.structs.FieldInfo]:
    found = _type_at(kind, at) if at else kind
    if not isinstance(found, type) or not issubclass(found, msgspec.Struct):
        return {}
    return {field.encode_name: field for field in msgspec.structs.fields(found)}


def _type_at(kind: Any, path: str) -> Any:
    """Return the type of a dotted key; for a table with arbitrary keys, the type of its values."""
    for name in path.split("."):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            kind = next((field.type for field in _fields_at(kind, "").values() if field.encode_name == name), None)
    return kind


def _choices(kind: Any) -> str:
    """Return the accepted values of a key as text; for a list, those of its entries."""
    if get_origin(kind) is Literal:
        return " or ".join(", ".join(map(str, get_args(kind))).rsplit(", ", 1))
    inner = next((one for one in get_args(kind) if one not in (NoneType, Ellipsis)), None)
    return "another value" if inner is None else _choices(inner)


def _default_of(kind: Any, path: str) -> str:
    """Return the TOML line of a key's default; "" for a table, a key without a default, and an unknown key."""
    at, _, name = path.rpartition(".")
    field = _fields_at(kind, at).get(name)
    if field is None or not isinstance(field.default, bool | int | float | str | tuple):
        return ""
    return f"{name} = {json.dumps(field.default)}"


def _take_out(table: dict[str, Any], path: str) -> bool:
    *above, last = path.split(".")
    for name in above:
        table = table.get(name, {})
        if not isinstance(table, dict):
            return False
    return table.pop(last, None) is not None
