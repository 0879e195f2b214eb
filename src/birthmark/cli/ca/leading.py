"""Where the files of a CA may be changed: of several machines that serve as one, at the one that leads."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from birthmark.cli.backup import settings_of
from birthmark.cli.machines import DatabaseWantedError
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError

if TYPE_CHECKING:
    from birthmark.store import Database

_NOT_ASKED = (
    "Warning: this is one of several machines, and nobody can be asked which of them leads: {reason} Where another "
    "does, the next start here puts beside what is changed now, as .NAME.left. A machine that serves says which it is: "
    "`birthmark server machine ls`."
)


def check_leads(directory: Path) -> None:
    """Raise `MachineElsewhereError` where another machine changes this CA; warn where the database cannot be asked."""
    from birthmark.server.machines.record import machine_of

    if machine_of(data := directory.resolve().parent) is not None:
        asyncio.run(_check_leads(data))


async def _check_leads(data: Path) -> None:
    from birthmark.server.machines.sharing import Sharing

    try:
        database = await _opened(data)
    except BirthmarkError as error:
        typer.echo(_NOT_ASKED.format(reason=error.explain_cause()), err=True)
        return
    try:
        await Sharing(database, data, SystemClock(), SystemEntropy()).check_leads()
    finally:
        await database.close()


async def _opened(data: Path) -> "Database":
    from birthmark.store import open_database

    url = settings_of(None, data, None).database_url
    if url.startswith("sqlite:"):  # nothing says where the records are
        raise DatabaseWantedError
    return await open_database(url, SystemClock(), worker="asks")
