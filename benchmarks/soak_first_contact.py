"""Devices that come to AWS for the first time, 100 by each of three ways, while the server is killed.

python benchmarks/soak_first_contact.py [--each 100] [--kills 20] [--engine sqlite|workers] [--files] [--seed 1]

By JITP, by claim with the key in a token (`--files`: in a file), and by a bulk registration. Prints the figures, and
what is not as it should be: each device is one thing with one active certificate, and nothing is half. Exit 1 where
anything is.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills.first_contacts import come
from support.kills.kills import kill_a_part, kill_server
from support.server.servers import a_server
from support.services.postgres import a_postgres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", choices=("sqlite", "workers"), action="append")
    parser.add_argument("--files", action="store_true", help="keys in files, and no processes for devices")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    is_good = True
    for engine in given.engine or ("sqlite", "workers"):
        dice = random.Random(given.seed)
        told = {"each": given.each, "kills": given.kills, "tokens": not given.files}
        with tempfile.TemporaryDirectory(prefix="birthmark-first-") as temporary:
            directory = Path(temporary)
            devices = directory / "devices"
            devices.mkdir()
            if engine == "sqlite":
                with a_server(directory, is_warm=False) as server:
                    found = come(server, devices, dice=dice, kill=kill_server, **told)
            else:
                with (
                    a_postgres() as url,
                    a_server(directory, f'database = "{url}"\nworkers = 2\n', is_warm=False) as server,
                ):
                    found = come(server, devices, dice=dice, kill=kill_a_part, **told)
        print(json.dumps({"engine": engine, "seed": given.seed, **found}), flush=True)
        is_good &= not found["faults"]
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
