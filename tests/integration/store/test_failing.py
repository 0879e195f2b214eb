"""A database whose disk takes nothing more is not there, until something was written."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.server.servers import clean_environment

pytestmark = pytest.mark.integration
IN_A_PROCESS_OF_ITS_OWN = """
import asyncio, resource, sys
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import UnavailableError
from birthmark.store import Changes, device_name_prefix_index, open_database

async def main():
    database = await open_database(sys.argv[1], SystemClock())
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # the kernel refuses whatever it writes to a file
    try:
        await database.commit(device_name_prefix_index.found("here", "pump-1"))
    except UnavailableError:
        print("refused", await database.is_reachable())
    await database.commit(Changes().run(device_name_prefix_index.FORGET_PLACE, place="nowhere"))
    print("nothing to write", await database.is_reachable())
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print("room", await database.is_reachable())
    await database.commit(device_name_prefix_index.found("here", "pump-1"))
    await database.close()

asyncio.run(main())
"""


def test_a_commit_that_writes_nothing_does_not_say_that_the_disk_is_there_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, f"sqlite:///{tmp_path}/one.db"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        env=clean_environment(),
    )
    assert done.stdout.splitlines() == ["refused False", "nothing to write False", "room True"]
