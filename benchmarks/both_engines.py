"""What is kept on while servers are killed: the one harness of `scripts/soak kills` and its kind."""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills.kills import ENGINES, Kill
from support.server.servers import RunningServer

KeepOn = Callable[[RunningServer, argparse.Namespace, random.Random, Path, Kill], dict[str, Any]]
"""Keep on as the command line says in a directory, killing in this way; `faults` of what is returned is wrong."""


def soak(
    about: str | None,
    keep_on: KeepOn,
    *,
    each: int = 0,
    engines: Sequence[str] = ("sqlite", "workers"),
    config: str = "",
) -> None:
    """Do it as the command line says, print the figures of each engine, and exit with 1 where anything is wrong.

    `config`: further tables of the server's configuration.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=each, help="so many devices")
    parser.add_argument("--kills", type=int, default=20, help="on each engine")
    parser.add_argument("--engine", choices=engines, action="append")
    parser.add_argument("--files", action="store_true", help="keys in files, and no processes for devices")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", type=Path, help="leave records and logs here")
    parser.add_argument("--log", type=Path, help="append a line for each engine here, and print the totals of all runs")
    given = parser.parse_args()
    is_good = True
    for engine in given.engine or engines:
        with tempfile.TemporaryDirectory(prefix="birthmark-soak-") as temporary:
            directory = Path(temporary) if given.keep is None else given.keep / engine
            directory.mkdir(parents=True, exist_ok=True)
            with ENGINES[engine](directory, config) as (server, kill):
                found = keep_on(server, given, random.Random(given.seed), directory, kill)
        print(json.dumps({"engine": engine, "seed": given.seed, **found}), flush=True)
        is_good &= not found["faults"]
        if given.log is not None:
            note_run(given.log, engine, given, found["faults"])
    sys.exit(not is_good)


def note_run(log: Path, engine: str, given: argparse.Namespace, faults: Sequence[str]) -> None:
    """Append a run to the log, and print the totals of the log for its engine."""
    run = {
        "program": Path(sys.argv[0]).stem,
        "engine": engine,
        "day": datetime.now(UTC).date().isoformat(),
        "seed": given.seed,
    }
    with log.open("a") as file:
        file.write(json.dumps(run | {"kills": given.kills, "faults": list(faults)}) + "\n")
    runs = [json.loads(line) for line in log.read_text().splitlines()]
    same = [one for one in runs if (one["program"], one["engine"]) == (run["program"], engine)]
    kills, wrong = sum(one["kills"] for one in same), sum(len(one["faults"]) for one in same)
    print(
        json.dumps({"engine": engine, "runs": len(same), "kills_in_total": kills, "faults_in_total": wrong}), flush=True
    )
