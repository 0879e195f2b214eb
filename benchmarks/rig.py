"""What every measure stands on: our server and its peers as processes, pinned, their CPU time, and devices.

The server under test has the first core for itself, the clients have the last. CPU time is what the kernel's scheduler
counted for all threads of the process; wall time is not looked at, the machine may be noisy.
"""

import contextlib
import json
import os
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.pki import certificate_profiles
from support.azure.sas_tokens import make_sas
from support.pki.pki_builders import Holder, a_ca, a_device
from support.server.servers import RunningServer, free_address

SERVER_CORE, CLIENT_CORE = 0, (os.cpu_count() or 1) - 1
THREADS = 8
_SETTLE_S = 0.1  # what a server does right after its last answer is its cost too
_LIMITS = "[limits]\nmax_connections_per_key = 10000\nmax_sessions_per_key = 125000\n"
"""A crowd of a benchmark shows one certificate."""
_TRUST = "trust.pem"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Device:
    """A name and a TLS context with a certificate of its own."""

    name: str
    context: ssl.SSLContext
    thumbprint: str


@dataclass
class Rig:
    """Starts things when they are first asked for, and ends them all."""

    directory: Path
    address: str
    ca: Holder
    now: datetime
    ends: contextlib.ExitStack
    _server: RunningServer | None = field(default=None)
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> RunningServer:
        """Our server, ready."""
        if self._server is None:
            self._server = self.a_server("data")
        return self._server

    def a_server(self, name: str, *, changed_by: str = "", more: str = "", database: str = "") -> RunningServer:
        """Start a server with a directory of its own; it ends with the rig.

        `changed_by` is code that it runs first, `more` what else its configuration says; `database`: none for SQLite.
        """
        address = self.address if name == "data" else free_address()
        config = self.directory / f"{name}.toml"
        config.write_text((f'database = "{database}"\n' if database else "") + _LIMITS + more)
        server = RunningServer(self.directory / name, address, config)
        if changed_by:
            first = self.directory / f"{name}-first"
            first.mkdir()
            (first / "sitecustomize.py").write_text(changed_by)
            server.environment_of_server = {"PYTHONPATH": str(first)}
        server.start()
        self.ends.callback(lambda: server.process and server.stop())
        with (self.directory / _TRUST).open("a") as trust:
            trust.write(Path(server.endpoints["trust_bundle"]).read_text())
        return server

    def once(self, name: str, make: Callable[["Rig"], _T]) -> _T:
        """Return what `make` returned the first time: a peer that several measures share."""
        if name not in self._kept:
            self._kept[name] = make(self)
        kept: _T = self._kept[name]
        return kept

    @property
    def ca_file(self) -> Path:
        """The devices' CA."""
        return self.directory / "ca.pem"

    @property
    def trust_file(self) -> Path:
        """What devices trust: the CA that signed the peers' server certificate, and the servers' own, once started."""
        assert self.server.endpoints
        return self.directory / _TRUST

    def server_pem(self) -> tuple[Path, Path]:
        """Return certificate chain and key for a peer: the type of key that our own server has."""
        chain, key = self.directory / "server.pem", self.directory / "server.key"
        if not chain.exists():
            leaf = a_device(self.ca, "peer", profile=certificate_profiles.SERVER, now=self.now)
            chain.write_text(leaf.certificate.pem() + self.ca.certificate.pem())
            key.write_text(leaf.key_pem)
        return chain, key

    def devices(self, count: int, tag: str) -> list[Device]:
        """Make devices, each with a certificate of the rig's CA."""
        made, pem = [], self.directory / "device.pem"
        for number in range(count):
            name = f"bench-{tag}-{number}"
            holder = a_device(self.ca, name, now=self.now, lifetime=timedelta(days=30))
            pem.write_text(holder.certificate.pem() + holder.key_pem)
            made.append(Device(name, self.client_context(pem), holder.certificate.thumbprint.hex()))
        return made

    def client_context(self, pem: Path) -> ssl.SSLContext:
        """Return a device's context: the certificate and key in `pem`."""
        context = ssl.create_default_context(cafile=str(self.trust_file))
        context.check_hostname = False
        context.load_cert_chain(pem)
        return context

    def enroll_at_hub(self, devices: Iterable[Device], server: RunningServer | None = None) -> None:
        """Put devices on record in the hub's registry, by thumbprint."""
        server = server or self.server
        hub = server.endpoints["iothub"]
        parts = parse_connection_string(hub["service_connection_string"])
        token = make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        context.check_hostname = False
        connection = HTTPSConnection(server.address, hub["https_port"], context=context)
        for device in devices:
            prints = {"primaryThumbprint": device.thumbprint, "secondaryThumbprint": device.thumbprint}
            body = {"deviceId": device.name, "authentication": {"type": "selfSigned", "x509Thumbprint": prints}}
            headers = {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}
            connection.request("PUT", f"/devices/{device.name}?api-version=2021-04-12", json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
        connection.close()


@contextlib.contextmanager
def a_rig() -> Iterator[Rig]:
    """Make a rig and clean up after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    directory = Path(tempfile.mkdtemp(prefix="birthmark-bench-"))
    directory.chmod(0o755)
    now = datetime.now(UTC)
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, directory, ignore_errors=True)
        rig = Rig(directory, free_address(), a_ca("bench CA", now=now), now, ends)
        for file in (rig.ca_file, directory / _TRUST):
            file.write_text(rig.ca.certificate.pem())
        os.sched_setaffinity(0, {CLIENT_CORE})
        yield rig


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds, with that of threads that are over."""
    return time.clock_gettime(~pid << 3 | 2)  # the process's clock as the scheduler counts it (clock_getcpuclockid)


def pin(pid: int, core: int = SERVER_CORE) -> None:
    """Keep a process and its threads on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def cpu_us_each(pid: int, work: Callable[[], int]) -> float:
    """Do `work`, which returns how many operations it did, and return the process's CPU time for each in us."""
    pin(pid)
    before = cpu_s(pid)
    count = work()
    time.sleep(_SETTLE_S)
    return (cpu_s(pid) - before) / count * 1e6


def each(work: Callable[[_T], None], items: Sequence[_T]) -> int:
    """Do `work` with every item, a few at a time, and return how many there were."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, items))
    return len(items)


def connected(address: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a finished TLS connection without Nagle's delay."""
    raw = socket.create_connection((address, port), 20)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw)


def wait_for(address: str, port: int, what: str) -> None:
    """Return when something listens there."""
    for _ in range(200):
        with socket.socket() as sock:
            if sock.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{what} did not start")
