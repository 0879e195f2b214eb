"""What is kept on while servers are killed: on SQLite, and with two workers on PostgreSQL."""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills.kills import Kill, kill_a_part, kill_server
from support.server.servers import RunningServer, a_server
from support.services.postgres import a_postgres

KeepOn = Callable[[RunningServer, int, random.Random, Path, Kill, int], dict[str, Any]]
"""Keep on with so many devices in a directory, killing in this way so often; `faults` of what is returned is wrong."""


def soak(about: str | None, each: int, keep_on: KeepOn, config: str = "") -> None:
    """Do it as the command line says, print the figures of each engine, and exit with 1 where anything is wrong.

    `config`: further tables of the server's configuration.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=each)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", choices=("sqlite", "workers"), action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    is_good = True
    for engine in given.engine or ("sqlite", "workers"):
        dice = random.Random(given.seed)
        with tempfile.TemporaryDirectory(prefix="birthmark-soak-") as temporary:
            directory = Path(temporary)
            if engine == "sqlite":
                with a_server(directory, config, is_warm=False) as server:
                    found = keep_on(server, given.each, dice, directory, kill_server, given.kills)
            else:
                with (
                    a_postgres() as url,
                    a_server(directory, f'database = "{url}"\nworkers = 2\n{config}', is_warm=False) as server,
                ):
                    found = keep_on(server, given.each, dice, directory, kill_a_part, given.kills)
        print(json.dumps({"engine": engine, "seed": given.seed, **found}), flush=True)
        is_good &= not found["faults"]
    sys.exit(not is_good)
