"""The state machine over simulated workers for long: seed after seed, on one engine or on both.

python benchmarks/soak_machine.py [--steps 100000] [--engine sqlite|postgresql] [--from-seed 1]

Prints a line for each seed, then what it came to. Ends with an error, and with what breaks a promise, when one breaks.
The databases are kept in memory where the machine has a file system for that: no step here is about the disk.
"""

import argparse
import contextlib
import gc
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulation.test_machine import Machine, run
from support.services.postgres import a_postgres

ENGINES = ("sqlite", "postgresql")
A_SEED = 4000
_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def a_database(engine: str) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        tempfile.tempdir = str(_MEMORY)
    if engine == "postgresql":
        with a_postgres() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory(prefix="birthmark-machine-") as directory:
            yield f"sqlite:///{directory}/machine.db"


def soak(engine: str, wanted: int, first_seed: int) -> None:
    began, seed = time.perf_counter(), first_seed
    total = {"seeds": 0, "steps": 0, "runs": 0, "acknowledged": 0}
    with a_database(engine) as url:
        while total["steps"] < wanted:
            gc.collect()  # what it ends in the midst of reading a source file breaks Python 3.11 before 3.11.5
            run(url, min(A_SEED, 2 * (wanted - total["steps"])), seed)
            came = {"steps": Machine.steps, "runs": Machine.runs, "acknowledged": Machine.acknowledged}
            for name, more in (came | {"seeds": 1}).items():
                total[name] += more
            print(json.dumps({"engine": engine, "seed": seed} | came), flush=True)
            seed += 1
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    times = {"seconds": round(seconds), "cpu_s": round(used.ru_utime + used.ru_stime)}
    print(json.dumps({"engine": engine} | total | times | {"broken_promises": 0}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="on each engine")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--from-seed", type=int, default=1)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # workers die here all the time
    for engine in given.engine or ENGINES:
        soak(engine, given.steps, given.from_seed)


if __name__ == "__main__":
    main()
