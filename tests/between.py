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


def lose_the_next_answer(database: Database) -> None:
    """Let PostgreSQL keep the next commit, and its connection end before it says so."""
    patched: Any = database
    real = patched._apply

    async def apply_and_lose_the_answer(connection: Any, changes: Changes) -> None:
        patched._apply = real
        await real(connection, changes)
        await connection.execute("COMMIT")
        await connection.close()

    patched._apply = apply_and_lose_the_answer
