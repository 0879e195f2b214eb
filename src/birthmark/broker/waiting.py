"""Waiting for what says that it is done by a call."""

import asyncio

from birthmark.broker.model import Done


def until_done() -> tuple[asyncio.Future[None], Done]:
    """Return a future, and the call that ends it: as it should be, or with why it is not."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(problem: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)

    return future, done
