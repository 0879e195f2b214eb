"""Kills under a mixed load: of a server on SQLite, of PostgreSQL beneath a server that stays, of workers, of machines.

python benchmarks/soak_kills.py [--kills 20] [--engine sqlite|postgresql|workers|machines] [--seed 1] [--keep DIR]

Prints for each engine how many acknowledgements of each kind clients were given, and what of it is missing afterwards.
Exit 1 when anything is.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills.kills import ENGINES, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="on each engine")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", type=Path, help="leave records and logs here")
    given = parser.parse_args()
    is_good = True
    for engine in given.engine or ENGINES:
        with tempfile.TemporaryDirectory(prefix="birthmark-kills-") as temporary:
            directory = Path(temporary) if given.keep is None else given.keep / engine
            directory.mkdir(parents=True, exist_ok=True)
            proof = run(engine, directory, given.kills, given.seed)
        print(json.dumps({"engine": engine, "seed": given.seed, **proof.told()}), flush=True)
        is_good &= not proof.faults
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
