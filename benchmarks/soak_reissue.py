"""Devices that ask their hub for certificates, while the server is killed.

python benchmarks/soak_reissue.py [--each 12] [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: each device is let in by what it has, and has one
certificate of each key. Exit 1 where anything is.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kills import kill_a_part, kill_server
from postgres import a_postgres
from reissue_kills import keep_on
from servers import a_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=12)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", choices=("sqlite", "workers"), action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    is_good = True
    for engine in given.engine or ("sqlite", "workers"):
        dice = random.Random(given.seed)
        with tempfile.TemporaryDirectory(prefix="birthmark-reissue-") as temporary:
            if engine == "sqlite":
                with a_server(Path(temporary), is_warm=False) as server:
                    found = keep_on(server, given.each, dice, Path(temporary), kill=kill_server, kills=given.kills)
            else:
                with (
                    a_postgres() as url,
                    a_server(Path(temporary), f'database = "{url}"\nworkers = 2\n', is_warm=False) as server,
                ):
                    found = keep_on(server, given.each, dice, Path(temporary), kill=kill_a_part, kills=given.kills)
        print(json.dumps({"engine": engine, "seed": given.seed, **found}), flush=True)
        is_good &= not found["faults"]
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
