"""Walks through the real rooms of several simulated workers for long, seed after seed.

python benchmarks/soak_rooms.py [--walks 1000] [--steps 400] [--from-seed 1] [--engine sqlite|postgresql]

Prints a line for each walk that breaks a promise, then what it came to; ends with an error when one did. A seed decides
what happens; the order of Python's sets, which it does not decide, has a part in it.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import empty_database
from simulation.rooms import a_house
from simulation.walk import a_walk
from support.services.postgres import a_postgres

WORKERS = 3
_MEMORY = Path("/dev/shm")


async def walk(directory: Path, url: str, seed: int, steps: int) -> list[str]:
    """Return what a walk found."""
    async with a_house(directory, WORKERS, url) as house:
        walked = await a_walk(house, seed)
        await walked.go(steps)
        return [str(one) for one in await walked.end()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--from-seed", type=int, default=1)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    given = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # workers die here all the time
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        tempfile.tempdir = str(_MEMORY)
    began, broken = time.perf_counter(), 0
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(a_postgres()) if given.engine == "postgresql" else ""
        for seed in range(given.from_seed, given.from_seed + given.walks):
            url = empty_database(server) if server else ""
            with tempfile.TemporaryDirectory(prefix="birthmark-rooms-") as directory:
                try:
                    found = asyncio.run(walk(Path(directory), url, seed, given.steps))
                except AssertionError as error:
                    found = [str(error)]
            if found:
                broken += 1
                print(json.dumps({"seed": seed, "found": found}), flush=True)
    seconds = round(time.perf_counter() - began)
    print(json.dumps({"walks": given.walks, "steps": given.steps, "seconds": seconds, "broken": broken}), flush=True)
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()
