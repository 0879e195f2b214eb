"""Policy wildcards: `*` matches any run of characters, including slashes; `?` exactly one. Linear time.

`+` and `#` are ordinary characters here: in a policy, MQTT wildcards are literal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ANY_ONE = "\0"
"""Represents `?` inside a chunk.

U+0000 is in no MQTT string (MQTT 3.1.1 section 1.5.3), so it is unambiguous.
"""


@dataclass(frozen=True, slots=True)
class Glob:
    """Pattern as the chunks between stars, in order; a single chunk must match the complete text."""

    chunks: Sequence[str]

    def matches(self, text: str) -> bool:
        """Return whether the pattern matches all of `text`."""
        if ANY_ONE in text:
            return False
        first, last = self.chunks[0], self.chunks[-1]
        if len(self.chunks) == 1:
            return len(text) == len(first) and _fits_at(text, first, 0)
        end = len(text) - len(last)
        at = len(first)
        if end < at or not _fits_at(text, first, 0) or not _fits_at(text, last, end):
            return False
        for chunk in self.chunks[1:-1]:
            at = _find(text, chunk, at, end)
            if at < 0:
                return False
            at += len(chunk)
        return True


def glob_of(pattern: str) -> Glob:
    """Return the glob of a pattern in which every `*` and `?` is a wildcard."""
    return Glob(tuple(pattern.replace("?", ANY_ONE).split("*")))


def _fits_at(text: str, chunk: str, offset: int) -> bool:
    if ANY_ONE not in chunk:
        return text.startswith(chunk, offset)
    return all(
        wanted in (ANY_ONE, given) for wanted, given in zip(chunk, text[offset : offset + len(chunk)], strict=True)
    )


def _find(text: str, chunk: str, start: int, end: int) -> int:
    """Return the first match of `chunk` between `start` and `end`, or -1."""
    if ANY_ONE not in chunk:
        return text.find(chunk, start, end)
    return next((at for at in range(start, end - len(chunk) + 1) if _fits_at(text, chunk, at)), -1)
