"""Kills under a mixed load: of a server on SQLite, of PostgreSQL beneath a server that stays, of workers, of machines.

python benchmarks/soak_kills.py [--kills 20] [--engine ENGINE] [--seed 1] [--keep DIR] [--log FILE]

Engines: sqlite, postgresql, workers, machines; sqlite-power and postgresql-power cut the power of the disk instead.

Prints for each engine how many acknowledgements of each kind clients were given, and what of it is missing afterwards.
Exit 1 when anything is.
"""

import argparse
import random
from pathlib import Path
from typing import Any

from both_engines import soak

from support.kills.kills import CONFIG, ENGINES, Kill, prove
from support.server.servers import RunningServer


def keep_on(
    server: RunningServer, given: argparse.Namespace, dice: random.Random, directory: Path, kill: Kill
) -> dict[str, Any]:
    told = prove(server, directory, kill, given.kills, dice).told()
    if "postgresql" in told["how"][0]:
        told["faults"] += [f"the connection of {client} ended" for client in told["cuts"]]
    return told


if __name__ == "__main__":
    soak(__doc__, keep_on, engines=tuple(ENGINES), config=CONFIG)
