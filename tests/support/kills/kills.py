"""Kill the server, or its database, under a mixed load again and again; then look for everything that was answered."""

import contextlib
import itertools
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.kills.power_cuts import Disk, a_disk
from support.server.cluster import a_cluster
from support.server.readiness import ALL_THERE, DATABASE_AWAY, until_ready, until_workers_are_ready
from support.server.servers import RunningServer, a_server
from support.server.workers_of import below, hit, started_anew
from support.services.postgres import PostgresServer, a_postgres, a_postgres_server

_LOAD = Path(__file__).with_name("mixed_load.py")
CONFIG = "[limits]\nmax_unauthenticated_per_peer = 2000\n[aws]\nmax_waiting = 20000\n"
"""However slow the machine, what waits for a session that is away is not too much."""
_MOST = 10_000
_PATIENCE_S = 240.0
KINDS = frozenset(
    [
        "published",
        "subscribed",
        "connected",
        "took_over",
        "sent",
        "patched",
        "updated",
        "mail",
        "called",
        "enrolled",
        "registered",
        "issued",
    ]
)
"""What the load does, as its record names it."""
SLOTS = 20
Facts = dict[str, Any]


@dataclass
class Proof:
    """What was acknowledged of each kind, what of it is missing, and what clients saw on the way."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    lost: dict[str, list[object]] = field(default_factory=dict)
    disorder: list[str] = field(default_factory=list)
    cuts: Counter[str] = field(default_factory=Counter)
    """How often a client's connection ended that nobody took over."""
    troubles: Counter[str] = field(default_factory=Counter)
    doubled: list[object] = field(default_factory=list)
    """What may be done once at most, and was done again."""
    unfinished: list[str] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    longest_kill_s: float = 0.0
    """From a kill to the server being ready again, at most."""
    seconds: float = 0.0

    def owed(self, kind: str, acknowledged: list[Any], there: set[Any]) -> None:
        """Note what was acknowledged and has to be there."""
        self.acknowledged[kind] = len(acknowledged)
        self.lost[kind] = [one for one in acknowledged if one not in there]

    def ordered(self, what: str, numbers: list[int]) -> None:
        """Note whether numbers came in their order, each counted when it came first."""
        first = list(dict.fromkeys(numbers))
        if first != sorted(first):
            wrong = next(n for n, (one, after) in enumerate(itertools.pairwise(first)) if one > after)
            self.disorder.append(f"{what}: {first[max(0, wrong - 2) : wrong + 4]}")

    @property
    def faults(self) -> list[object]:
        """What is missing, came twice or in disorder, or did not resume."""
        return [
            *({kind: lost} for kind, lost in self.lost.items() if lost),
            *(f"nothing was {kind}" for kind, count in self.acknowledged.items() if not count),
            *({"twice": one} for one in self.doubled),
            *self.disorder,
            *self.unfinished,
        ]

    def told(self) -> Facts:
        return {
            "kills": len(self.kills),
            "how": self.kills,
            "longest_kill_s": round(self.longest_kill_s, 1),
            "seconds": round(self.seconds),
            "acknowledged": dict(self.acknowledged),
            "lost": {kind: lost for kind, lost in self.lost.items() if lost},
            "doubled": self.doubled,
            "disorder": self.disorder,
            "cuts": dict(self.cuts),
            "troubles": dict(self.troubles),
            "unfinished": self.unfinished,
            "faults": self.faults,
        }


class Load:
    """The clients, in a process that nobody kills."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        made = json.loads(server.run("pki", "user", "create", "soak", "--any-name", "--json").stdout)
        self._record = directory / "record.jsonl"
        given = {"record": str(self._record), "directory": str(directory), "endpoints": server.endpoints}
        given |= {"est_user": "soak", "est_password": made["password"]}
        with (directory / "load.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_LOAD), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=dict(server.environment),
            )
        self._hears("ready")

    def went_through(self, kinds: AbstractSet[str]) -> None:
        """Wait until something of each kind was acknowledged, on however busy a machine."""
        missing, until = set(kinds), time.monotonic() + _PATIENCE_S
        while missing and time.monotonic() < until:
            time.sleep(1.5)
            missing -= {line["kind"] for line in self._lines()}
        assert not missing, missing

    def _lines(self) -> list[Facts]:
        whole, _, _ = self._record.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def end(self) -> list[Facts]:
        """Let the clients finish what they began; return the record."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        self._hears("done")
        return self._lines()

    def _hears(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip() == word, self._record.with_name("load.log").read_text()[-4000:]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


Kill = Callable[[RunningServer, random.Random], str]


def kill_server(server: RunningServer, dice: random.Random) -> str:
    """Kill it, and start it again at once."""
    del dice
    server.kill()
    server.start()
    until_ready(server)
    return "server"


def killing_postgres(postgres: PostgresServer) -> Kill:
    """Kill PostgreSQL in one way or the other, and start it again after a while."""

    def kill(server: RunningServer, dice: random.Random) -> str:
        assert server.process is not None
        pid = server.process.pid
        how = dice.choice(("immediate", "-9"))
        if how == "immediate":
            postgres.stop("immediate")
        else:
            postgres.kill()
        until_ready(server, (503, DATABASE_AWAY))
        time.sleep(dice.uniform(0, 3))
        postgres.start()
        until_ready(server, (200, ALL_THERE))
        assert server.process.poll() is None
        assert server.process.pid == pid
        return f"postgresql {how}"

    return kill


def cutting_power_of_postgres(postgres: PostgresServer, disk: Disk) -> Kill:
    """Cut the power of the disk below PostgreSQL, and start it again; the server stays."""

    def cut(server: RunningServer, dice: random.Random) -> str:
        disk.cut(postgres.pid, dice, postgres.kill)
        until_ready(server, (503, DATABASE_AWAY))
        postgres.start()
        until_ready(server, (200, ALL_THERE))
        return "PostgreSQL without power"

    return cut


def prove(server: RunningServer, directory: Path, kill: Kill, kills: int, dice: random.Random) -> Proof:
    """Run the load, kill so many times, end the load; then kill the server once more and look for everything."""
    proof, began = Proof(), time.monotonic()
    load = Load(server, directory)
    try:
        for _ in range(kills):
            time.sleep(dice.uniform(0.5, 4.0))
            killed = time.monotonic()
            proof.kills.append(kill(server, dice))
            proof.longest_kill_s = max(proof.longest_kill_s, time.monotonic() - killed)
            until_workers_are_ready(server)
        load.went_through(KINDS)
        record = load.end()
    finally:
        load.close()
    server.kill()
    server.start()
    look_for_all(server, record, proof)
    proof.seconds = time.monotonic() - began
    return proof


def look_for_all(server: RunningServer, record: list[Facts], proof: Proof) -> None:
    by_kind: defaultdict[str, list[Facts]] = defaultdict(list)
    for line in record:
        by_kind[line["kind"]].append(line)
    proof.cuts.update(line["client"] for line in by_kind["cut"])
    proof.troubles.update(f"{line['what']}: {line['why'].partition('(')[0]}" for line in by_kind["trouble"])
    proof.unfinished += [line["what"] for line in by_kind["unfinished"]]
    look_at_sessions(by_kind, proof)
    look_at_telemetry(server, by_kind, proof)
    look_at_documents(server, by_kind, proof)
    look_at_mail(server, by_kind, proof)
    handled = Counter(line["n"] for line in by_kind["handled"])
    proof.owed("called", [line["n"] for line in by_kind["called"]], set(handled))
    proof.doubled += [{"called": number} for number, times in handled.items() if times > 1]
    rows = server.rows("device", "ls", "--limit", str(_MOST))
    assert len(rows) < _MOST, "more than can be looked at"
    names = {row["name"] for row in rows}
    assigned = {row["name"] for row in rows if row["state"] == "assigned"}
    there = assigned & {row["device"] for row in server.rows("hub", "device", "ls")}
    proof.owed("enrolled", [line["name"] for line in by_kind["enrolled"]], names)
    proof.owed("registered", [line["name"] for line in by_kind["registered"]], there)
    proof.owed("issued", [line["thumbprint"] for line in by_kind["issued"]], thumbprints(server))
    (told,) = server.rows("server", "audit", "verify")
    for chain in told["chains"]:
        proof.owed(f"audit rows of {chain['chain']}", list(range(chain["rows"])), set(range(chain["head"]["seq"])))


def look_at_sessions(by_kind: dict[str, list[Facts]], proof: Proof) -> None:
    """A stored session is there at each connect; it got what was published to what it had subscribed to."""
    got = [(line["publisher"], line["n"]) for line in by_kind["got"]]
    published = [(line["publisher"], line["n"]) for line in by_kind["published"]]
    proof.owed("published", published, set(got))
    for publisher in sorted({name for name, _ in got}):
        proof.ordered(publisher, [n for name, n in got if name == publisher])
    extras = {n for name, n in published if name == "extra"}
    subscribed = [line["n"] for line in by_kind["subscribed"]]
    came = {n for name, n in got if name == "extra"}
    proof.owed("subscribed", subscribed, came | (set(subscribed) - extras))
    proof.acknowledged["connected"] = len(by_kind["connected"])
    present = [line for line in by_kind["connected"] if "present" in line][1:]  # the first made the session
    proof.lost["connected"] = [line for line in present if not line["present"]]
    proof.acknowledged["taken over"] = len(by_kind["took_over"])
    proof.lost["taken over"] = [line for line in by_kind["took_over"] if not line["ended"]]


def look_at_telemetry(server: RunningServer, by_kind: dict[str, list[Facts]], proof: Proof) -> None:
    sent = [(line["device"], line["n"]) for line in by_kind["sent"]]
    there: set[tuple[str, int]] = set()
    for device in sorted({name for name, _ in sent}):
        kept = [json.loads(row["body"])["n"] for row in server.rows("hub", "messages", device, "--limit", str(_MOST))]
        assert len(kept) < _MOST, "more than can be looked at"
        there |= {(device, n) for n in kept}
        proof.ordered(device, kept)
    proof.owed("telemetry", sent, there)


def look_at_mail(server: RunningServer, by_kind: dict[str, list[Facts]], proof: Proof) -> None:
    """Each message to a device came, in its order but for what was sent once more, and none waits for ever."""
    mail = [(line["device"], line["n"]) for line in by_kind["mail"]]
    came = [(line["device"], line["n"]) for line in by_kind["mailed"]]
    proof.owed("mail", mail, set(came))
    for device in sorted({name for name, _ in mail}):
        if device != "soak-a":  # Azure's SDK for Python hands them to four threads
            proof.ordered(f"mail of {device}", [n for name, n in came if name == device])
        waiting = [row["message"] for row in server.rows("hub", "c2d", device)]
        proof.lost[f"stuck at {device}"] = list(waiting)


def look_at_documents(server: RunningServer, by_kind: dict[str, list[Facts]], proof: Proof) -> None:
    """Each slot of a document has what was acknowledged last of it, or what came after it."""
    (twin,) = server.rows("hub", "twin", "soak-a")
    (shadow,) = server.rows("aws", "shadow", "soak")
    documents = {"patched": twin["properties"]["reported"], "updated": shadow["state"]["reported"]}
    for kind, document in documents.items():
        numbers = [line["n"] for line in by_kind[kind]]
        proof.owed(kind, numbers, {n for n in numbers if document.get(f"k{n % SLOTS}", 0) >= n})
    versions = [line["version"] for line in by_kind["updated"]]
    if versions != sorted(set(versions)) or versions[-1] > shadow["version"]:
        proof.disorder.append(f"versions of the shadow, now {shadow['version']}: {versions[-5:]}")


def thumbprints(server: RunningServer) -> set[str]:
    """Return those of all certificates in the register."""
    url = None if server.config is None else server.config.read_text().partition('database = "')[2].partition('"')[0]
    if url:
        sql = "SELECT encode(thumbprint, 'hex') FROM ca_certificates"
        command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, url]
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    with contextlib.closing(sqlite3.connect(f"file:{server.data}/birthmark.db?mode=ro", uri=True)) as database:
        return {bytes(row[0]).hex() for row in database.execute("SELECT thumbprint FROM ca_certificates")}


@contextlib.contextmanager
def a_killable_server(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """A server on SQLite, which is what is killed."""
    with a_server(directory, config, is_warm=False) as server:
        yield server, kill_server


@contextlib.contextmanager
def a_server_on_postgres(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """A server on PostgreSQL, which is what is killed."""
    with (
        a_postgres_server() as postgres,
        a_server(directory, f'database = "{postgres.url}"\n{config}', is_warm=False) as server,
    ):
        yield server, killing_postgres(postgres)


@contextlib.contextmanager
def a_server_without_power(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """A server on SQLite, with its data on a disk whose power is cut."""
    with a_disk(directory / "data") as disk, a_server(directory, config, is_warm=False) as server:

        def cut(server: RunningServer, dice: random.Random) -> str:
            disk.cut(server.pid, dice, server.kill)
            server.start()
            until_ready(server)
            return "server without power"

        yield server, cut


@contextlib.contextmanager
def a_postgres_without_power(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """A server on PostgreSQL, whose data is on a disk whose power is cut."""
    with tempfile.TemporaryDirectory(prefix="birthmark-power-") as place:
        Path(place).chmod(0o755)  # PostgreSQL runs as its own user
        with (
            a_disk(Path(place) / "disk") as disk,
            a_postgres_server(disk.place) as postgres,
            a_server(directory, f'database = "{postgres.url}"\n{config}', is_warm=False) as server,
        ):
            yield server, cutting_power_of_postgres(postgres, disk)


def kill_a_part(server: RunningServer, dice: random.Random) -> str:
    """Kill a worker or the bus, stop a worker for long, or start all of them anew; then wait for all."""
    parts = below(server)
    name = dice.choice([*sorted(parts), "all"])
    if name == "all":
        started_anew(server)
        return "all started anew"
    stops = name != "nats" and dice.random() < 1 / 3
    hit(parts[name], signal.SIGSTOP if stops else signal.SIGKILL, dice.uniform(0.5, 4.0) if stops else 0.0)
    time.sleep(0.5)
    until_workers_are_ready(server)
    return f"{name} {'stopped' if stops else 'killed'}"


@contextlib.contextmanager
def a_server_of_workers(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """A server of two workers on PostgreSQL, of which one part after the other is hit."""
    with (
        a_postgres() as url,
        a_server(directory, f'database = "{url}"\nworkers = 2\n{config}', is_warm=False) as server,
    ):
        yield server, kill_a_part


@contextlib.contextmanager
def a_server_of_machines(directory: Path, config: str) -> Iterator[tuple[RunningServer, Kill]]:
    """Two machines of two workers behind a balancer; one part after the other, and what they stand on, is hit."""
    with a_cluster(directory, config) as cluster:

        def hit_a_part(_server: RunningServer, dice: random.Random) -> str:
            told = cluster.any_fault(dice)
            time.sleep(0.5)
            cluster.until_ready()
            return told

        yield cluster.first, hit_a_part


ENGINES = {
    "sqlite": a_killable_server,
    "postgresql": a_server_on_postgres,
    "workers": a_server_of_workers,
    "machines": a_server_of_machines,
    "sqlite-power": a_server_without_power,
    "postgresql-power": a_postgres_without_power,
}
