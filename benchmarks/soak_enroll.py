"""Ten thousand rows enrolled by runs that are killed at random moments, at Azure's interface and AWS's.

python benchmarks/soak_enroll.py [--rows 10000] [--kills 20] [--cloud azure|aws] [--power] [--seed 1]

Prints for each what an undisturbed run has and this one has not, the other way round, and what taking it back left.
Exit 1 when anything is.
"""

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills.enroll_kills import disturbed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cloud", choices=("azure", "aws"), action="append")
    parser.add_argument("--power", action="store_true", help="cut the power of the journals' disk with each kill")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    is_good = True
    for cloud in given.cloud or ("azure", "aws"):
        with tempfile.TemporaryDirectory(prefix="birthmark-enroll-") as temporary:
            told = disturbed(Path(temporary), cloud, given.rows, given.kills, given.seed, cuts_power=given.power)
        print(json.dumps({"seed": given.seed, **asdict(told)}), flush=True)
        is_good &= told.is_good
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
