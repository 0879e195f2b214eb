"""Somebody else's write between the look and the write of whoever commits next."""

from collections.abc import Awaitable, Callable
from typing import Any

from birthmark.store import Changes, Database
from birthmark.store.postgresql.database import PostgresUnavailableError
from birthmark.store.postgresql.writer_connection import AnswerLostError


def before_the_next_commit(database: Database, act: Callable[[], Awaitable[object]]) -> None:
    """Let `act` happen, whole, right before the next commit is handed in."""
    real = database.commit

    async def commit(changes: Changes) -> None:
        patched.commit = real
        await act()
        await real(changes)

    patched: Any = database
    patched.commit = commit


def leave_the_next_commit_open(database: Database) -> Callable[[], Awaitable[None]]:
    """Let the next commit fail as one that may be kept, and return what keeps it then."""
    real = database.commit
    left: list[Changes] = []

    async def commit(changes: Changes) -> None:
        patched.commit = real
        left.append(changes)
        raise PostgresUnavailableError(reason="the answer was lost", may_be_kept=True)

    async def keep() -> None:
        await real(left[0])

    patched: Any = database
    patched.commit = commit
    return keep


def lose_the_next_answer(database: Database) -> None:
    """Let PostgreSQL keep the next commit, and its connection end before it says so."""
    writer: Any = database._writer  # type: ignore[attr-defined]  # one engine's own
    real = writer.commit

    async def commit_and_lose_the_answer() -> None:
        writer.commit = real
        await real()
        writer.drop()
        raise AnswerLostError from ConnectionResetError("the answer was lost")

    writer.commit = commit_and_lose_the_answer
