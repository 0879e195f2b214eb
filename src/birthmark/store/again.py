"""Decide again on what is there now, when another was faster."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from birthmark.errors import ChangedMeanwhileError

T = TypeVar("T")


async def decided_again(decide: Callable[[], Awaitable[T]]) -> T:
    """Return what `decide` returns: it reads, decides and commits on the condition that nothing changed meanwhile.

    Raise its own errors, and `ChangedMeanwhileError` when another was faster twice.
    """
    try:
        return await decide()
    except ChangedMeanwhileError:
        return await decide()
