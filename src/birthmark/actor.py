"""Who did something, as audit rows name them."""

from collections.abc import Mapping
from typing import Self


class Actor(str):
    """A name in the form of audit rows; with what else these say of it, such as by which token and from where."""

    __slots__ = ("told",)
    told: Mapping[str, str]

    def __new__(cls, name: str, told: Mapping[str, str] | None = None) -> Self:
        """`told` holds no secret, and goes into the details of each row."""
        made = super().__new__(cls, name)
        made.told = told or {}
        return made
