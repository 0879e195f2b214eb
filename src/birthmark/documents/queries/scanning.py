"""The text of a query, taken piece by piece from left to right; what is wrong with it is told with its place."""

import re

_SHOWN = 30
_SPACE = re.compile(r"\s*")
WORD = re.compile(r"[^\W\d][\w$-]*|\$[\w$-]+")


class QueryProblem(Exception):  # noqa: N818 - each service makes its own error of it
    """A query that cannot be read; `position` counts characters from 1, `detail` says what is wrong there."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__()
        self.position = position
        self.detail = detail

    def __str__(self) -> str:
        return f"at position {self.position} {self.detail}"


class Scanner:
    """What of a text is still to be read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = self._at if space is None else space.end()

    def _peek(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._skip()
        return pattern.match(self._text, self._at)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if (found := self._peek(pattern)) is not None:
            self._at = found.end()
        return found

    def _need(self, char: str) -> None:
        self._skip()
        if not self._text.startswith(char, self._at):
            raise self._problem(char)
        self._at += 1

    def _has_word(self, wanted: str) -> bool:
        word = self._peek(WORD)
        if word is None or word[0].lower() != wanted:
            return False
        self._at = word.end()
        return True

    def _need_word(self, wanted: str, written: str) -> None:
        if not self._has_word(wanted):
            raise self._problem(written)

    def _problem(self, expected: str, *, at: int | None = None) -> QueryProblem:
        self._skip()
        place = self._at if at is None else at
        rest = self._text[place : place + _SHOWN]
        found = f"not {rest!r}" if rest else "but the text ends"
        return QueryProblem(place + 1, f"{expected} is expected, {found}")

    def _wrong(self, detail: str, *, at: int | None = None) -> QueryProblem:
        return QueryProblem((self._at if at is None else at) + 1, detail)
