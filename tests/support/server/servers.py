"""A real `birthmark serve` on a loopback address of its own, for tests with real clients."""

import atexit
import contextlib
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import warm
from birthmark.testing.cloud import Cloud
from birthmark.testing.server_process import TestServer
from support.server import scaled

BIRTHMARK = str(Path(sys.executable).with_name("birthmark"))
_PORTS = (8883, 8443, 8085, 8080)
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_GIVEN: set[str] = set()


def free_address() -> str:
    """Return a 127.x.y.z address on which the fixed ports are free, of a range that is this worker's alone.

    127.0 to 127.15 are left to the tests that name an address.
    """
    for _ in range(200):
        address = str(ipaddress.ip_address(0x7F100000 + (WORKER << 16) + random.randrange(1, 0xFFFF)))
        if address in _GIVEN:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for port in _PORTS:
                    stack.enter_context(socket.socket()).bind((address, port))
            except OSError:
                continue
            _GIVEN.add(address)
            return address
    raise RuntimeError("no loopback address has the fixed ports free")


def with_clock(clock: str) -> dict[str, str]:
    """Return the environment of a process that believes this time, as faketime is told it.

    Not by the program `faketime`: it keeps signals for itself, and does not start where an earlier process of the same
    number was killed.
    """
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": clock, "DONT_FAKE_MONOTONIC": "1"}


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment without anything that changes trust, endpoints or tokens."""
    kept = {name: os.environ[name] for name in ("LANG", "TERM", "BIRTHMARK_SAMPLES") if name in os.environ}
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/nonexistent", "PYTHONWARNINGS": "ignore", **kept, **more}


def warm_environment(**more: str) -> dict[str, str]:
    """Return the same, with the programs that start from a warm interpreter."""
    cold = clean_environment(**more)
    return cold | {"PATH": f"{warm.programs()}:{cold['PATH']}"}


class EstCredential(NamedTuple):
    """User and password for EST."""

    name: str
    password: str


@dataclass
class RunningServer:
    """A server process and how to reach it."""

    data: Path
    address: str
    config: Path | None = None
    process: subprocess.Popen[str] | None = None
    endpoints: dict[str, Any] = field(default_factory=dict)
    log_level: str = "INFO"
    descriptors: int | None = None
    """How many the process may hold."""
    environment_of_server: Mapping[str, str] = field(default_factory=dict)
    """More variables of its process."""
    clock: str = ""
    """What time it believes it is, as faketime is told it; the machine's where empty."""
    is_warm: bool = False
    """Whether it starts from a warm interpreter: `process` then stands in for the server's own."""

    @property
    def pid(self) -> int:
        """The server's own process, to look into."""
        assert self.process is not None
        assert not self.is_warm, "what stands in for the server tells nothing of it"
        return self.process.pid

    def start(self) -> "RunningServer":
        """Start it and return when it says that it is ready."""
        self.is_warm &= scaled.WORKERS == 1
        program = str(warm.programs() / "birthmark") if self.is_warm else BIRTHMARK
        command = [program, "serve", "--data", str(self.data), "--listen", self.address, "--json"]
        if self.config is not None:
            command += ["--config", str(self.config)]
        if self.descriptors is not None:
            command = ["prlimit", f"--nofile={self.descriptors}:{self.descriptors}", *command]
        log = (self.data.parent / f"{self.data.name}.log").open("a")
        environment = clean_environment(BIRTHMARK_LOG=self.log_level, **self.environment_of_server)
        if self.clock:
            environment |= with_clock(self.clock)
        if scaled.WORKERS > 1:
            environment |= self._database
            command += ["--workers", str(scaled.WORKERS)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start:\n{self.log()}")
        self.endpoints = json.loads(line)
        return self

    @property
    def _database(self) -> dict[str, str]:
        """What names the database of one that several workers serve, where nothing else does."""
        names_one = self.config is not None and "database =" in self.config.read_text()
        if scaled.WORKERS == 1 or names_one or "BIRTHMARK_DATABASE" in self.environment_of_server:
            return {}
        return {"BIRTHMARK_DATABASE": scaled.database_of(self.data)}

    def stop(self) -> int:
        """Stop it with SIGTERM and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it with SIGKILL."""
        assert not self.is_warm, "what stands in for the server would be gone before the server"
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    @property
    def cloud(self) -> Cloud:
        """It, as the test kit has it."""
        return Cloud.at(self.data)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `birthmark ARGUMENTS` against this server; it must succeed."""
        done = self.attempt(*arguments, **environment)
        if done.returncode != 0:
            raise AssertionError(f"birthmark {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def attempt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `birthmark ARGUMENTS` against this server, whatever comes of it."""
        return subprocess.run(
            [warm.programs() / "birthmark", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=clean_environment(BIRTHMARK_DATA=str(self.data), HOME=str(self.data.parent))
            | self._database
            | environment,
        )

    def rows(self, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        """Run a command with --json and return its rows."""
        return [json.loads(line) for line in self.run(*arguments, "--json", **environment).stdout.splitlines()]

    def why(self, subject: str, code: str = "") -> dict[str, Any]:
        """Return the latest refusal under `subject`, of a `code` where there are others.

        It may be written a moment after the client saw its error.
        """
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            done = self.attempt("why", subject, "--json", "--limit", "1")
            if done.returncode == 0:
                found = dict(json.loads(done.stdout.splitlines()[0]))
                if code in {"", found["code"]}:
                    return found
            time.sleep(0.1)
        raise AssertionError(f"nothing was refused for {subject}; the log:\n{self.log()}")

    def est_credential(self, device: str) -> "EstCredential":
        """Return an EST user of this server that is bound to `device`, as its configuration file has it."""
        place = ("--id-scope", "0ne00ELSEWHERE") if self.endpoints["dps"] is None else ()
        printed = tomllib.loads(self.run("env", "--format", "aziot", "--registration-id", device, *place).stdout)
        auth = printed["cert_issuance"]["est"]["auth"]
        return EstCredential(auth["username"], auth["password"])

    @property
    def environment(self) -> Mapping[str, str]:
        """What `birthmark env` exports, on a clean environment."""
        import shlex

        lines = self.run("env").stdout.splitlines()
        exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        return clean_environment(HOME=str(self.data.parent), **exported)


@contextlib.contextmanager
def a_server(
    directory: Path,
    config: str = "",
    *,
    is_warm: bool = True,
    address: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningServer]:
    """Run a server with its data under `directory`; `config` is the text of its TOML file.

    A test that kills it, or looks into its process, has it is installed: not `is_warm`.
    """
    server = RunningServer(
        directory / "data",
        address or free_address(),
        _kept(directory, config),
        is_warm=is_warm,
        environment_of_server=environment or {},
    ).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()


class TrialServer(RunningServer):
    """The test kit's server, as new again by one word in some milliseconds: for tests that need no fresh process."""

    def start(self) -> "TrialServer":
        """Start it, on an address and with data of its own."""
        program, environment = warm.programs() / "birthmark", clean_environment(BIRTHMARK_LOG=self.log_level)
        self._kit = TestServer(self.config, program=(str(program),), environment=environment)
        self._kit.start()
        self._cloud = Cloud(self._kit)
        return self._here()

    @property
    def cloud(self) -> Cloud:
        return self._cloud

    def reset(self) -> None:
        """Have it as new, and the home of what ran against it too."""
        for left in self.data.parent.iterdir():
            if left != self.data:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        self.cloud.begin()
        self._here()

    def stop(self) -> int:
        self._kit.stop()
        return 0

    def log(self) -> str:
        return self._kit.log()

    def _here(self) -> "TrialServer":
        self.endpoints, self.data, self.address = dict(self.cloud.endpoints), self.cloud.data, self.cloud.host
        return self


_FREE: list[TrialServer] = []


@contextlib.contextmanager
def a_new_server(directory: Path, config: str = "") -> Iterator[RunningServer]:
    """Give a server that is as new, which another test of this process may have had before, unless it has a `config`.

    It is not to be stopped or killed, and its data is not below `directory`: for that there is `a_server`.
    """
    if scaled.WORKERS > 1:
        with a_server(directory, config) as server:
            yield server
        return
    if _FREE and not config:
        (trial := _FREE.pop()).reset()
    else:
        trial = TrialServer(Path("/nonexistent"), "", _kept(directory, config)).start()
        atexit.register(trial.stop)
    yield trial
    if config:
        trial.stop()
    else:
        _FREE.append(trial)  # one whose test failed may be in any state, and is nobody's


def _kept(directory: Path, config: str) -> Path | None:
    """Return the file of a configuration."""
    if not config:
        return None
    path = directory / "server.toml"
    path.write_text(config)
    return path
