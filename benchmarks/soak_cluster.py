"""Two machines behind a balancer: each kind of fault so many times under a mixed load, long ones, and races for a name.

python benchmarks/soak_cluster.py [--each 20] [--claims 1000] [--only FAULT] [--seed 1] [--keep DIR]

Faults: workers killed and stopped, one of them for a minute; NATS killed and stopped, once for 30 s; the primary
PostgreSQL killed and its standby promoted, where a commit is answered when both have it; a machine killed, one started
anew; PostgreSQL's disk full, and a machine's (by root alone, who can give each a small disk). Then one machine's clock
is wrong by 90 s, and clients of one name come to both machines at the same moment.
Prints what was acknowledged, and what of it is missing, doubled or out of order. Exit 1 when anything is.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, PingReq
from support.aws.clients import Account
from support.kills.kills import CONFIG, Proof, prove
from support.server.cluster import Cluster, a_cluster
from support.server.servers import RunningServer

_IS_ROOT = os.geteuid() == 0
FAULTS = (*Cluster.FAULTS, *(Cluster.FULL if _IS_ROOT else ()))
_A_ROUND = 20
_AT_ONCE = 25
_SETTLED_S = 1.5


def plan(each: int, only: Collection[str], dice: random.Random) -> list[list[tuple[str, float]]]:
    """Return every fault, by its name, as often as it is wanted, in any order, and the long ones once; in rounds."""
    found = [(one.__name__, 0.0) for one in FAULTS for _ in range(each)]
    found += [("stop_worker", 60.0), ("stop_nats", 30.0)]
    found = [one for one in found if not only or one[0] in only]
    dice.shuffle(found)
    return [found[first : first + _A_ROUND] for first in range(0, len(found), _A_ROUND)]


def under_load(cluster: Cluster, directory: Path, faults: list[tuple[str, float]], seed: int) -> Proof:
    """Do all of it to the cluster while clients work: a new one, as no more than a round can be looked at."""
    waiting = iter(faults)

    def hit(_server: RunningServer, dice: random.Random) -> str:
        name, seconds = next(waiting)
        act: Callable[..., str] = getattr(cluster, name)
        told = act(dice, seconds) if seconds else act(dice)
        time.sleep(0.5)
        cluster.until_ready()
        return told

    directory.mkdir()
    cluster.until_ready()
    return prove(cluster.first, directory, hit, len(faults), random.Random(seed))


def told(what: str, proof: Proof, faults: Counter[str]) -> bool:
    print(json.dumps({"what": what, **proof.told(), "faults": dict(faults)}), flush=True)
    return not proof.faults


class Claimant:
    """A TLS connection that is about to say who it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def at(cls, address: str, context: ssl.SSLContext) -> "Claimant":
        here = ("127.0.0.9", 0)  # the balancer's address would have to say whom it speaks for
        reader, writer = await asyncio.open_connection(
            address, 8883, ssl=context, server_hostname=address, local_addr=here
        )
        return cls(reader, writer)

    def say(self, name: str) -> None:
        packet = Connect(name, level=4, username=None, clean_start=False, keep_alive_s=600)
        self._writer.write(codec.encode(packet, 4))

    async def is_there(self) -> bool:
        """Say whether it is connected, and answered."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(5):
                head = await self._reader.readexactly(4)
                if head[0] != 0x20 or head[3]:
                    return False
                self._writer.write(codec.encode(PingReq(), 4))
                return await self._reader.readexactly(2) == b"\xd0\x00"
        return False

    def close(self) -> None:
        self._writer.transport.abort()


async def claimed(cluster: Cluster, context: ssl.SSLContext, name: str) -> int:
    """Return how many of two are connected that came at the same moment."""
    both = await asyncio.gather(*(Claimant.at(one.address, context) for one in cluster.machines))
    for one in both:
        one.say(name)
    await asyncio.sleep(_SETTLED_S)
    there = await asyncio.gather(*(one.is_there() for one in both))
    for one in both:
        one.close()
    return sum(there)


async def claims(cluster: Cluster, account: Account, count: int) -> bool:
    context = ssl.create_default_context(cafile=cluster.first.endpoints["trust_bundle"])
    context.check_hostname = False
    context.load_cert_chain(*account.files)
    found: Counter[int] = Counter()
    for first in range(0, count, _AT_ONCE):
        names = [f"claimed-{number % 100}" for number in range(first, min(count, first + _AT_ONCE))]
        found.update(await asyncio.gather(*(claimed(cluster, context, name) for name in names)))
    print(json.dumps({"what": "claims", "of": count, "connected": dict(sorted(found.items()))}), flush=True)
    return set(found) == {1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--claims", type=int, default=1000)
    names = sorted(one.__name__ for one in FAULTS)
    parser.add_argument("--only", choices=names, action="append", help="only this fault; may be given again")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", type=Path, help="leave records and logs here")
    given = parser.parse_args()
    is_good, dice = True, random.Random(given.seed)
    print(json.dumps({"seed": given.seed}), flush=True)
    with tempfile.TemporaryDirectory(prefix="birthmark-cluster-") as temporary:
        directory = Path(temporary) if given.keep is None else given.keep
        with a_cluster(_made(directory / "claims"), CONFIG) as cluster:
            account = Account(cluster.first)
            is_good &= asyncio.run(claims(cluster, account, given.claims))
        for number, faults in enumerate(plan(given.each, given.only or (), dice)):
            with a_cluster(place := _made(directory / f"round-{number}"), CONFIG, is_small=_IS_ROOT) as cluster:
                proof = under_load(cluster, place / "load", faults, given.seed + number)
            is_good &= told(f"round {number + 1}", proof, Counter(name for name, _ in faults))
        with a_cluster(place := _made(directory / "clock"), CONFIG) as cluster:
            cluster.second.stop()
            cluster.second.clock = "+90s"
            cluster.second.start()
            kills = [("kill_worker", 0.0)] * min(5, given.each + 1)
            proof = under_load(cluster, place / "load", kills, given.seed)
        is_good &= told("a clock that is 90 s ahead", proof, Counter(kill_worker=len(kills)))
    sys.exit(not is_good)


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


if __name__ == "__main__":
    main()
