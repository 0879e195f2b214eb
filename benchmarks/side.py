"""One revision's side of a comparison: measures on request, by the code of the checkout whose path is the argument.

Reads names of measures, one a line; prints for each round a line of JSON: what it cost the revision and its peer.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    checkout = Path(sys.argv[1])
    sys.path.insert(0, str(checkout / "benchmarks"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a measure prints is no answer
    from measures import ALL
    from rig import a_rig

    kinds = {kind.name: kind for kind in ALL}
    with a_rig() as rig:
        ready = {}
        for line in sys.stdin:
            name = line.strip()
            if name not in kinds:
                sample = None
            else:
                if name not in ready:
                    ready[name] = kinds[name](rig)
                sample = ready[name].round()
            answers.write(json.dumps(sample) + "\n")
            answers.flush()


main()
