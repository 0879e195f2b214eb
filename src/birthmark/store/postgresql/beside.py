"""A connection for single rows, each a commit of its own, which no batch keeps waiting."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Beside:
    """It connects when it is first asked, and again by itself."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def run(self, sql: str, *arguments: Any) -> bool:
        """Run a statement and say whether it touched a row. Raise asyncpg's errors."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            told: str = await self._connection.execute(sql, *arguments)
        return not told.endswith(" 0")  # as "UPDATE 1"

    def close(self) -> None:
        """End it; nobody waits for what it is asked."""
        if self._connection is not None:
            self._connection.terminate()
