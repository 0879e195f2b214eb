"""SQL parse errors and evaluation refusals."""

from typing import NoReturn

_MAX_TOLD_CHARS = 300


class SqlMistake(ValueError):  # noqa: N818 - an error in the SQL text; callers turn it into their own refusals
    """Invalid statement text. `where` counts characters from 0; `what` and `instead` are complete sentences."""

    def __init__(self, position: int, what: str, instead: str) -> None:
        what = what if len(what) <= _MAX_TOLD_CHARS else f"{what[:_MAX_TOLD_CHARS]}…"
        super().__init__(f"{what} (at character {position + 1}) {instead}")
        self.where, self.what, self.instead = position, what, instead


class TooMuchError(ValueError):
    """Evaluating the statement for this message exceeds the limit of steps or bytes."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class ShadowWantedError(LookupError):
    """The statement needs a shadow: the caller loads it and evaluates again."""

    def __init__(self, thing: str, name: str | None) -> None:
        super().__init__(f"shadow {name or '(classic)'} of {thing}")
        self.thing, self.name = thing, name


def mistake(position: int, problem: str, instead: str) -> NoReturn:
    """Raise `SqlMistake`."""
    raise SqlMistake(position, problem, instead)
