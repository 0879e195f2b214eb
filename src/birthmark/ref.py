"""Two that need each other: the one that is made first is given a `Ref` to the other."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Ref(Generic[T]):
    """What is made later than whoever uses it."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: T | None = None

    def fill(self, made: T) -> T:
        """Say what it is, once, and return it."""
        if self._made is not None:
            raise RuntimeError("It is filled already")
        self._made = made
        return made

    def get(self) -> T | None:
        """Return what it is, or None while that is not made."""
        return self._made

    def __call__(self) -> T:
        """Return what it is. Raise `RuntimeError` while that is not made."""
        if self._made is None:
            raise RuntimeError("It is asked before it is filled")
        return self._made
