"""Decide again on what is there now, when another was faster."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from birthmark.errors import ChangedMeanwhileError, ConflictError

T = TypeVar("T")


async def decided_again(
    decide: Callable[[], Awaitable[T]], *, after: type[ConflictError] = ChangedMeanwhileError, attempts: int = 2
) -> T:
    """Return what `decide` returns: it reads, decides and commits on the condition that nothing changed meanwhile.

    Raise its own errors, and `after`, by which it says that another was faster, at the last of `attempts`.
    """
    for _ in range(attempts - 1):
        with suppress(after):
            return await decide()
    return await decide()
