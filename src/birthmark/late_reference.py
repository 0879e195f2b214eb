"""Late-bound reference for two mutually dependent objects: the first one receives a `Ref` to the second."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Ref(Generic[T]):
    """Reference to an object that is created after its user."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: T | None = None

    def fill(self, made: T) -> T:
        """Set the object, once, and return it."""
        if self._made is not None:
            raise RuntimeError("It is filled already")
        self._made = made
        return made

    def get(self) -> T | None:
        """Return the object, or None until it is set."""
        return self._made

    def __call__(self) -> T:
        """Return the object. Raise `RuntimeError` until it is set."""
        if self._made is None:
            raise RuntimeError("The reference is used before it is set")
        return self._made
