"""How long a witness waits beside one device that sends as fast as it can, by each kind of flood and each way in.

python benchmarks/soak_floods.py [--kind TEXT] [--times 100]

Runs a server of its own on a loopback address and ends by itself. Exit 1 when the witness waited for more than 250 ms,
for its PUBACK or from its first packet to its CONNACK; a machine that does something else waits longer.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.floods.flood_world import a_world
from support.floods.floods import KINDS, Waits, a_flood, witness
from support.floods.people_floods import a_people_flood, requests_of

MOST_S = 0.25
WAYS = ("small records", "large records", "WebSocket")


def flood_rate(waits: Waits) -> float:
    """Return how many requests were answered while the witness waited, on average."""
    return sum(waits.flooded) / len(waits.flooded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="", help="only the kinds with this in their name")
    parser.add_argument("--times", type=int, default=100, help="how often the witness publishes")
    given = parser.parse_args()
    too_long = 0
    with tempfile.TemporaryDirectory() as directory, a_world(Path(directory)) as world:
        for kind, (cloud, _) in KINDS.items():
            for way in WAYS:
                if given.kind not in kind or (cloud == "http" and way == "WebSocket"):
                    continue
                visit = world.flooder(kind, over_websocket=way == "WebSocket")
                with a_flood(visit, kind, many_in_one=way == "large records") as flood:
                    waits = witness(world.witness, flood, times=given.times)
                too_long += waits.worst > MOST_S
                print(
                    f"{kind:34} {way:14} PUBACK {1000 * max(waits.acknowledged):6.0f} ms at most, "
                    f"connecting {1000 * max(waits.connected):6.0f} ms"
                    f"{'   TOO LONG' if waits.worst > MOST_S else ''}",
                    flush=True,
                )
        for kind, requests in requests_of(world.server).items():
            if given.kind in kind:
                with a_people_flood(requests) as flood:
                    waits = witness(world.witness, flood, times=given.times)
                too_long += waits.worst > MOST_S
                print(
                    f"{kind:34} {'HTTPS':14} PUBACK {1000 * max(waits.acknowledged):6.0f} ms at most, "
                    f"connecting {1000 * max(waits.connected):6.0f} ms, {flood_rate(waits):6.1f} requests each"
                    f"{'   TOO LONG' if waits.worst > MOST_S else ''}",
                    flush=True,
                )
    print(f"{too_long} of the floods kept the witness waiting for more than {MOST_S:g} s")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
