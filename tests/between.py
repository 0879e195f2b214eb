"""Somebody else's write between the look and the write of whoever commits next."""

from collections.abc import Awaitable, Callable
from typing import Any

from birthmark.store import Changes, Database


def before_the_next_commit(database: Database, act: Callable[[], Awaitable[object]]) -> None:
    """Let `act` happen, whole, right before the next commit is handed in."""
    real = database.commit

    async def commit(changes: Changes) -> None:
        patched.commit = real
        await act()
        await real(changes)

    patched: Any = database
    patched.commit = commit
