"""Two machines of two workers each, behind HAProxy, on two PostgreSQL servers and one NATS; parts of it are hit."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer, a_server, free_address
from support.server.workers_of import below, hit, started_anew
from support.services.nats_server import PROGRAM as NATS
from support.services.postgres import free_port
from support.services.postgres_pair import Pair, a_pair

_HAPROXY = """
defaults
  mode tcp
  timeout connect 3s
  timeout client 10m
  timeout server 10m
  retries 3
  option redispatch
"""


@dataclass
class Cluster:
    """Its parts; `address` is the balancer's, and the only one that clients know."""

    address: str
    first: RunningServer
    second: RunningServer
    pair: Pair
    nats: "Restartable"

    @property
    def machines(self) -> tuple[RunningServer, RunningServer]:
        return self.first, self.second

    def until_ready(self) -> None:
        for one in self.machines:
            until_workers_are_ready(one)

    # ---- what is done to it

    def kill_worker(self, dice: random.Random) -> str:
        name, pid = self._a_worker(dice)
        hit(pid, signal.SIGKILL)
        return f"{name} killed"

    def stop_worker(self, dice: random.Random, seconds: float = 4.0) -> str:
        """Stop it; one that stands for longer than ten seconds is ended meanwhile by its parent."""
        name, pid = self._a_worker(dice)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        return f"{name} stopped for {seconds:g} s"

    def kill_nats(self, dice: random.Random) -> str:
        self.nats.end(signal.SIGKILL)
        time.sleep(dice.uniform(0, 3))
        self.nats.start()
        return "nats killed"

    def stop_nats(self, dice: random.Random, seconds: float = 0.0) -> str:
        """Nothing comes from it or to it, and no connection ends."""
        for_s = seconds or dice.uniform(1, 5)
        assert self.nats.process is not None
        hit(self.nats.process.pid, signal.SIGSTOP, for_s)
        return f"nats stopped for {for_s:.0f} s"

    def fail_over(self, dice: random.Random) -> str:
        del dice
        self.pair.fail_over()
        return "postgresql failed over"

    def lose_machine(self, dice: random.Random) -> str:
        """Kill a machine with all its workers, and start it again."""
        machine = dice.choice(self.machines)
        assert machine.process is not None
        machine.kill()  # its workers end with it
        time.sleep(dice.uniform(0, 3))
        machine.start()
        return f"machine {self.machines.index(machine) + 1} killed"

    def restart_machine(self, dice: random.Random) -> str:
        machine = dice.choice(self.machines)
        started_anew(machine)
        return f"machine {self.machines.index(machine) + 1} started anew"

    def fill_database(self, dice: random.Random) -> str:
        """Leave the database without room for a while. Only where it has a disk of its own."""
        for_s = dice.uniform(1, 6)
        self.pair.primary.fill(for_s)
        return f"postgresql's disk full for {for_s:.0f} s"

    def fill_machine(self, dice: random.Random) -> str:
        """Let the kernel refuse whatever a machine writes, and have one of its workers start anew meanwhile."""
        place, for_s = dice.randrange(2), dice.uniform(1, 6)
        machine = self.machines[place]
        _limit(machine, 0)
        hit(dice.choice(list(below(machine).values())), signal.SIGKILL)
        time.sleep(for_s)
        _limit(machine, resource.RLIM_INFINITY)
        return f"machine {place + 1}'s disk full for {for_s:.0f} s"

    def any_fault(self, dice: random.Random) -> str:
        return dice.choice(self.FAULTS)(self, dice)

    FAULTS = (kill_worker, stop_worker, kill_nats, stop_nats, fail_over, lose_machine, restart_machine)
    FULL = (fill_database, fill_machine)

    def _a_worker(self, dice: random.Random) -> tuple[str, int]:
        place = dice.randrange(2)
        name, pid = dice.choice(sorted(below(self.machines[place]).items()))
        return f"machine {place + 1} {name}", pid


def _limit(machine: RunningServer, max_file_bytes: int) -> None:
    """Bound the files that all processes of a machine write, and those that they start."""
    assert machine.process is not None
    for pid in (machine.process.pid, *below(machine).values()):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))


class Restartable:
    """A NATS server at a place of its own."""

    def __init__(self) -> None:
        self._address = free_address()
        self._port = free_port(self._address)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self._address}:{self._port}"

    def start(self) -> None:
        command = [str(NATS), "-a", self._address, "-p", str(self._port)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()


@contextlib.contextmanager
def a_balancer(directory: Path, address: str, ports: Sequence[int], behind: Sequence[str]) -> Iterator[None]:
    """HAProxy at `address`, for each port, before those addresses."""
    lines = [_HAPROXY]
    for port in ports:
        lines += [f"frontend f{port}", f"  bind {address}:{port}", f"  default_backend b{port}", f"backend b{port}"]
        lines += [
            f"  server m{number} {one}:{port} send-proxy-v2 check check-send-proxy inter 500ms fall 2 rise 1"
            for number, one in enumerate(behind)
        ]
    path = directory / "haproxy.cfg"
    path.write_text("\n".join(lines) + "\n")
    with (directory / "haproxy.log").open("w") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def a_cluster(directory: Path, more: str = "", *, is_small: bool = False) -> Iterator[Cluster]:
    """Start all of it. `more` is added to the configuration of both machines; `is_small`: disks that can be filled."""
    address, places = free_address(), (free_address(), free_address())
    nats = Restartable()
    nats.start()
    folders = [directory / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(nats.end, signal.SIGKILL)
        pair = stack.enter_context(a_pair(is_small=is_small))
        config = f'host = "{address}"\ndatabase = "{pair.url}"\nbus = "{nats.url}"\nworkers = 2\n'
        config += f'proxies = ["127.0.0.1"]\n{more}'
        first = stack.enter_context(a_server(folders[0], config, is_warm=False, address=places[0]))
        invitation = str(directory / "invitation.json")
        first.run("server", "node", "invite", "--out", invitation)
        joining = {"BIRTHMARK_DATA": str(folders[1] / "data"), "BIRTHMARK_DATABASE": pair.url}
        first.run("server", "node", "join", invitation, **joining)
        second = stack.enter_context(a_server(folders[1], config, is_warm=False, address=places[1]))
        ports = sorted({8883, 8443, 8085, first.endpoints["iothub"]["https_port"]})
        stack.enter_context(a_balancer(directory, address, ports, places))
        yield Cluster(address, first, second, pair, nats)
