"""Servers of several workers, and alone, on PostgreSQL and NATS, each with devices that publish and renew."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from measures.registration import put_group
from measures.renewal import Renewing, devices_of_est
from rig import Rig
from swarm import Broker, Publishers

from support.server.servers import RunningServer, free_address
from support.server.workers_of import below
from support.services.postgres import PostgresServer, a_postgres_server

CONNECTIONS = 100
_LIMITS = "[limits]\nmax_connections_per_key = 10000\nmax_sessions_per_key = 125000\n[ports]\nhealth = {port}\n"


@dataclass
class Installation:
    """A server of so many workers (0: alone), and who publishes there."""

    name: str
    workers: int
    rig: Rig
    postgres: PostgresServer
    nats: int
    publishers: Publishers
    renewing: list[Renewing]
    runs: int = 0
    spent: dict[str, list["Spent"]] = field(default_factory=dict)

    @property
    def server(self) -> RunningServer:
        return self.rig.server

    @property
    def count(self) -> int:
        return CONNECTIONS * max(1, self.workers)

    def processes(self) -> Mapping[str, int]:
        assert self.server.process is not None
        return below(self.server) if self.workers else {"alone": self.server.process.pid}

    def fresh(self, tag: str) -> str:
        self.runs += 1
        return f"{self.name}-{tag}-{self.runs}"


@dataclass(frozen=True)
class Spent:
    """Microseconds of one operation, and the bytes of PostgreSQL's log."""

    workers: float
    busiest: float
    postgres: float
    nats: float
    log: float


@contextlib.contextmanager
def installed(name: str, workers: int, rig: Rig, bus: str, nats: int) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(a_postgres_server())
        config = rig.directory / f"{name}.toml"
        shared = f'workers = {workers}\nbus = "{bus}"\n' if workers else ""
        config.write_text(f'database = "{postgres.url}"\n{shared}{_LIMITS.format(port=8080)}')
        server = RunningServer(rig.directory / name, free_address(), config).start()
        stack.callback(server.stop)
        with (rig.directory / "trust.pem").open("a") as trust:
            trust.write(Path(server.endpoints["trust_bundle"]).read_text())
        own = Rig(rig.directory, server.address, rig.ca, rig.now, rig.ends, server)
        put_group(own, server)
        devices = own.devices(CONNECTIONS * max(1, workers), f"{name}-publisher")
        own.enroll_at_hub(devices)
        publishers = Publishers(Broker(server.address, 8883, server.endpoints["iothub"]["host"]), devices)
        yield Installation(name, workers, own, postgres, nats, publishers, devices_of_est(own))
