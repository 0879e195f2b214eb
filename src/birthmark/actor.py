"""Who did something, as audit rows name them."""

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

Takes: TypeAlias = Callable[[str, Mapping[str, object]], Any]
"""What an action has to be kept with in the same commit, by its name and details; None for nothing.

It raises why the actor may not do it.
"""


class Actor(str):
    """A name in the form of audit rows; with what else these say of it, such as by which token and from where."""

    __slots__ = ("takes", "told")
    told: Mapping[str, str]
    takes: Takes | None

    def __new__(cls, name: str, told: Mapping[str, str] | None = None, takes: Takes | None = None) -> Self:
        """`told` holds no secret, and goes into the details of each row."""
        made = super().__new__(cls, name)
        made.told, made.takes = told or {}, takes
        return made

    @property
    def counted(self) -> Self:
        """The same one, for the rest of what was counted already."""
        return type(self)(str(self), self.told)
