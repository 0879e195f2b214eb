"""Patterns of policies: `*` is any run of characters, also slashes, and `?` one. Matching takes linear time.

`+` and `#` are ordinary characters here: in a policy, MQTT's wildcards are literal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ANY_ONE = "\0"
"""Stands for `?` inside a chunk. U+0000 is in no MQTT string (MQTT 3.1.1 section 1.5.3), so nothing collides."""


@dataclass(frozen=True, slots=True)
class Glob:
    """The chunks between the stars, in order; at least one. One chunk alone must be the whole text."""

    chunks: Sequence[str]

    def matches(self, text: str) -> bool:
        """Say whether the whole of `text` fits."""
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
    """Return the pattern in which every `*` and `?` is a wildcard."""
    return Glob(tuple(pattern.replace("?", ANY_ONE).split("*")))


def _fits_at(text: str, chunk: str, at: int) -> bool:
    if ANY_ONE not in chunk:
        return text.startswith(chunk, at)
    return all(wanted in (ANY_ONE, given) for wanted, given in zip(chunk, text[at : at + len(chunk)], strict=True))


def _find(text: str, chunk: str, start: int, end: int) -> int:
    """Return where `chunk` first fits between `start` and `end`, or -1."""
    if ANY_ONE not in chunk:
        return text.find(chunk, start, end)
    return next((at for at in range(start, end - len(chunk) + 1) if _fits_at(text, chunk, at)), -1)
