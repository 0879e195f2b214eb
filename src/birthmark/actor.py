"""Actors as the audit log names them."""

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

Takes: TypeAlias = Callable[[str, Mapping[str, object]], Any]
"""Callback that returns the changes to commit together with an action, by its name and details; None for none.

It raises an error if the actor may not perform the action.
"""


class Actor(str):
    """Name of an actor in audit rows, with further details such as the access token and source address."""

    __slots__ = ("takes", "told")
    told: Mapping[str, str]
    takes: Takes | None

    def __new__(cls, name: str, values: Mapping[str, str] | None = None, takes: Takes | None = None) -> Self:
        """Create an actor; `values` holds no secrets and is added to the details of each row."""
        made = super().__new__(cls, name)
        made.told, made.takes = values or {}, takes
        return made

    @property
    def without_write_guard(self) -> Self:
        """The same actor without `takes`, for follow-up actions that are already counted."""
        return type(self)(str(self), self.told)
