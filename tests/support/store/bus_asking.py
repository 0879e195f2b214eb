"""A program that asks the worker WORKER, which takes TAKES_S to answer; tells a refusal as the commands do."""

import asyncio
import os
import sys
import tempfile

from birthmark.bus import BusRequest, EmptyReply, LocalBus
from birthmark.cli.output.command_output import tell
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.store import open_database


class Question(BusRequest[EmptyReply], frozen=True, tag="test.question"):
    """What is asked."""


async def answer(_asked: Question) -> EmptyReply:
    await asyncio.sleep(float(os.environ["TAKES_S"]))
    return EmptyReply()


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = await open_database(f"sqlite:///{directory}/x.db", SystemClock())
        bus = LocalBus(database)
        bus.serve(Question, answer)
        try:
            await bus.ask(os.environ["WORKER"], Question(), timeout_s=0.5)
        finally:
            await database.close()


try:
    asyncio.run(main())
except BirthmarkError as error:
    sys.exit(tell(error))
