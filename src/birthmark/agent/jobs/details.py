"""Status details within AWS's bounds: ten at most, values of 1 to 1024 characters, none of them a control character."""

from collections.abc import Mapping

from birthmark.text import printable

MAX_CHARS = 1024
_LINE_END = " | "
_CUT = "… "


def bounded(details: Mapping[str, str]) -> dict[str, str]:
    """Return details as they are taken, in one line each; the end of what is too long is cut, and empty ones go."""
    made = {name: printable(_in_one_line(value)) for name, value in details.items()}
    return {name: value[:MAX_CHARS] for name, value in made.items() if value}


def tail(output: bytes | bytearray) -> str:
    """Return the end of what a program said, as one detail: why it failed stands there."""
    text = printable(_in_one_line(output.decode(errors="replace")))
    return text if len(text) <= MAX_CHARS else _CUT + text[len(_CUT) - MAX_CHARS :]


def _in_one_line(text: str) -> str:
    return _LINE_END.join(line for one in text.splitlines() if (line := one.strip()))
