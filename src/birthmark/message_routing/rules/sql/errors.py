"""What a statement's text can get wrong, and what evaluating can refuse."""

from typing import NoReturn

_MAX_TOLD_CHARS = 300


class SqlMistake(ValueError):  # noqa: N818 - a mistake of who wrote the text; the rooms above make their refusals of it
    """A text that is no statement. `where` counts characters from 0; `what` and `instead` are whole sentences."""

    def __init__(self, where: int, what: str, instead: str) -> None:
        what = what if len(what) <= _MAX_TOLD_CHARS else f"{what[:_MAX_TOLD_CHARS]}…"
        super().__init__(f"{what} (at character {where + 1}) {instead}")
        self.where, self.what, self.instead = where, what, instead


class TooMuchError(ValueError):
    """A message for which a statement would take more steps, or select more bytes, than a message may cost."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class ShadowWantedError(LookupError):
    """A statement needs a shadow that was not handed in: look it up, hand it in, evaluate again."""

    def __init__(self, thing: str, name: str | None) -> None:
        super().__init__(f"shadow {name or '(classic)'} of {thing}")
        self.thing, self.name = thing, name


def mistake(where: int, what: str, instead: str) -> NoReturn:
    """Raise `SqlMistake`."""
    raise SqlMistake(where, what, instead)
