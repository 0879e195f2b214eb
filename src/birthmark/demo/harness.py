"""Environment of a demo scenario: a temporary directory, a server on a free loopback address, and a narrator."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, UnavailableError

_PORTS = (8883, 8443, 8085, 8080)
_TRIES = 200
_TIMEOUT_S = 180
_TRIES = 3
_WIDE = 120
_NARROWEST = 40
IN_CHIP = "inside the token, not extractable"
_AT_ONCE = 4
_SHOWN = 16
Job: TypeAlias = tuple[tuple[str, ...], Mapping[str, str]]
"""A command with its additional environment variables."""
_KEPT = ("LANG", "TERM", "TZ", "COLUMNS")


class StepFailedError(BirthmarkError):
    """A command of a scenario failed."""

    code = "demo.step_failed"
    message = "`{command}` failed"
    cause = "`{command}` ended with exit code {exit_code}: {output}"
    fix = "Run the scenario again with --keep, and check the files in {directory}, such as server.log."
    for_a_person = "read the log"
    command: str
    directory: Path
    exit_code: object
    output: str


class NotProvenError(BirthmarkError):
    """A scenario ran, but a check failed."""

    code = "demo.not_proven"
    message = "Not proven: {expected}"
    cause = "Expected {expected}; found {found}."
    fix = "Report this defect of Birthmark with the output of the scenario."
    for_a_person = "report the defect"
    expected: str
    found: object


class NoAddressError(UnavailableError):
    """No free loopback address."""

    code = "demo.no_address"
    cause = "On every loopback address that was tried, at least one of the ports 8883, 8443, 8085 and 8080 is in use."
    fix = (
        "For the demo, stop the program that listens on 0.0.0.0:8883 or another of these ports. To find the port in "
        "use: `ss -ltn`"
    )
    for_a_person = "stop the other program"


@dataclass(frozen=True, slots=True)
class DemoProof:
    """A row of the final table."""

    device: str
    key: str
    thumbprint: str
    place: str
    messages: str

    def as_row(self, scenario: str) -> dict[str, str]:
        """Return the stable JSON form."""
        return {"scenario": scenario, **asdict(self)}


class Stage:
    """Environment of one scenario. Use the value that `stage` yields."""

    def __init__(self, scenario: str, directory: Path, console: Console, entropy: Entropy) -> None:
        self.scenario = scenario
        self.directory = directory
        self.console = console
        self.proofs: list[DemoProof] = []
        self.endpoints: dict[str, Any] = {}
        self._entropy = entropy
        self.environment = _base_environment(directory)
        """Environment variables of the commands."""
        self._processes: list[subprocess.Popen[str]] = []
        self._step = 0

    # Telling.

    def title(self, text: str, subtitle: str) -> None:
        """Print the title of the scenario."""
        self.console.rule(f"[bold]{escape(text)}")
        self.console.print(f"[dim]{escape(self._wrap(subtitle))}")

    def say(self, text: str) -> None:
        """Print a sentence that starts a step."""
        self._step += 1
        lines = self._wrap(text, 3).lstrip()
        self.console.print(f"\n[bold cyan]{self._step}.[/] {escape(lines)}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark about the step."""
        lines = self._wrap(text, 5).lstrip()
        self.console.print(f"   [green]→[/] {escape(lines)}", soft_wrap=True)

    def prove(self, proof: DemoProof) -> None:
        """Add a row to the final table."""
        self.proofs.append(proof)

    def prove_at_hub(self, name: str, thumbprint: str, hub: str, *, where: str = IN_CHIP) -> int:
        """Add a device at its hub to the final table, and return the number of its messages at the hub."""
        messages = len(self.rows("hub", "messages", name))
        self.prove(DemoProof(name, where, thumbprint, f"hub {hub}", f"{messages} received"))
        return messages

    def prove_module(self, name: str, where: str, thumbprint: str, hub: str, messages: int) -> None:
        """Add a module at its hub to the final table."""
        self.prove(DemoProof(name, where, thumbprint, f"hub {hub}", f"{messages} received"))

    def expect(self, actual: object, expected: object, description: str) -> None:
        """Compare a result with the expected value. Raise `NotProvenError`."""
        if actual != expected:
            raise NotProvenError(expected=f"{description} {expected}", found=actual)
        self.note(f"{description}: {('no', 'yes')[actual] if isinstance(actual, bool) else actual}")

    def table(self) -> Table:
        """Return the results: one line per device on a wide console, otherwise one line per fact."""
        title = f"Proven by the scenario “{self.scenario}”"
        names = ("device", "key location", "certificate thumbprint", "hub or thing", "messages")
        rows = [(p.device, p.key, _shorten_thumbprint(p.thumbprint), p.place, p.messages) for p in self.proofs]
        if self.console.width >= _WIDE:
            table = Table(title=title, title_justify="left")
            for name in names:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            return table
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            for name, cell in zip(names, row, strict=True):
                table.add_row(name, escape(cell), end_section=name == names[-1])
        return table

    def _wrap(self, text: str, indent: int = 0) -> str:
        """Return text wrapped and indented by `indent`; words are never split, so that they can be copied."""
        width = max(self.console.width, _NARROWEST)
        lead = " " * indent
        return textwrap.fill(
            text, width, initial_indent=lead, subsequent_indent=lead, break_long_words=False, break_on_hyphens=False
        )

    # Doing.

    def path(self, name: str) -> Path:
        """Return a path in the scenario's directory."""
        return self.directory / name

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        may_fail: bool = False,
        stdin: str = "",
        shown: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Show and run a command in the scenario's directory. Raise `StepFailedError` unless it `may_fail`."""
        self.console.print(f"   [dim]$ {escape(shown or shlex.join(command))}", soft_wrap=True)
        with self.console.status(f"   {escape(command[0])} {escape(' '.join(command[1:3]))}"):
            return self.call(*command, environment=environment, without=without, may_fail=may_fail, stdin=stdin)

    def call(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        may_fail: bool = False,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command like `run`, but without printing it; calls may run in parallel."""
        env = {name: value for name, value in self.environment.items() if name not in without}
        done = subprocess.run(  # noqa: S603 - fixed commands
            [_resolve(command[0]), *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=env | dict(environment or {}),
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0 and not may_fail:
            output = " ".join((done.stderr or done.stdout).split())[-1500:]  # refusals are one line
            raise StepFailedError(
                command=shlex.join(command), exit_code=done.returncode, output=output, directory=self.directory
            )
        return done

    def birthmark(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a `birthmark` command."""
        return self.run("birthmark", *arguments, **options)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a `birthmark` command with `--json`, and return its rows."""
        return [json.loads(line) for line in self.birthmark(*arguments, "--json").stdout.splitlines()]

    def row(self, *arguments: str, **options: Any) -> dict[str, Any]:
        """Run a `birthmark` command with `--json` and return its last row."""
        row: dict[str, Any] = json.loads(self.birthmark(*arguments, "--json", **options).stdout.splitlines()[-1])
        return row

    def state_of(self, name: str) -> str:
        """Return the registration state of an individual enrollment."""
        return next(str(row["state"]) for row in self.rows("device", "ls") if row["name"] == name.lower())

    def run_azure_device(self, name: str, *, in_chip: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the device program as `name`, with the key in the chip, or without the chip, which must fail."""
        identity = {"DPS_X509_REGISTRATION_ID": name, "X509_CERT_FILE": "device.pem", "X509_KEY_FILE": "device.key"}
        program = ("python", str(app_path("azure_device.py")))
        if not in_chip:
            return self.run(*program, environment=identity, may_fail=True)
        done = self.birthmark("chip", "exec", "--", *program, environment=identity)
        for line in done.stdout.splitlines():
            self.note(line)
        return done

    def expect_refused(self, fails: Callable[[], subprocess.CompletedProcess[str]], about: str, code: str) -> None:
        """Run a program that must fail, and compare the code of the server's refusal about `about`.

        On a busy machine a program can give up before the server rejects it; it is then run again.
        """
        for _ in range(_TRIES):
            failed = fails()
            self.expect(failed.returncode, 1, "exit code of the program")
            why = self.birthmark("why", about, "--limit", "1", "--json", may_fail=True)
            if why.returncode == 0:
                self.expect(json.loads(why.stdout)["code"], code, "reason")
                return
        raise NotProvenError(expected=f"a refusal of {about}", found=" ".join(failed.stderr.split())[-500:])

    def start(
        self, *command: str, log: str, environment: Mapping[str, str] | None = None, is_told: bool = False
    ) -> subprocess.Popen[str]:
        """Start a background program, which ends with the scenario. With `is_told`, its standard input is a pipe."""
        self.console.print(f"   [dim]$ {escape(shlex.join(command))} &", soft_wrap=True)
        with self.path(log).open("a") as file:
            process = subprocess.Popen(  # noqa: S603 - fixed commands
                [_resolve(command[0]), *command[1:]],
                stdin=subprocess.PIPE if is_told else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                cwd=self.directory,
                env=self.environment | dict(environment or {}),
            )
        self._processes.append(process)
        return process

    def serve(self, config: str = "") -> None:
        """Start a server on a free loopback address and import the variables that `birthmark env` prints."""
        address = self._free_address()
        more: tuple[str, ...] = ()
        if config:
            self.path("server.toml").write_text(config)
            more = ("--config", "server.toml")
        data = self.path("data")
        process = self.start(
            "birthmark", "serve", "--data", str(data), "--listen", address, "--json", *more, log="server.log"
        )
        line = next(iter(process.stdout or ()), "")
        if not line:
            reason = " ".join(self.path("server.log").read_text().split())
            raise StepFailedError(command="birthmark serve", exit_code="-", output=reason, directory=data)
        self.endpoints = json.loads(line)
        self.environment["BIRTHMARK_DATA"] = str(data)
        self.source("birthmark", "env")
        self.note(f"ready at {address}, ID scope {self.endpoints['dps']['id_scope']}")
        self.note(f"web console during the run: birthmark console open --data {data}")

    def source(self, *command: str) -> None:
        """Run a command and import the variables that it exports."""
        done = self.run(*command, shown=f'eval "$({shlex.join(command)})"')
        self.environment |= dict(shlex.split(line)[1].split("=", 1) for line in done.stdout.splitlines())

    def console_link(self) -> str | None:
        """Return a single-use address of the server's console; None without a console."""
        if not self.endpoints:
            return None
        opened = self.call("birthmark", "console", "open", "--json", may_fail=True)
        return None if opened.returncode else str(json.loads(opened.stdout)["url"])

    def close(self) -> None:
        """Stop every program, in reverse order."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _free_address(self) -> str:
        for _ in range(_TRIES):
            host = 0x7F000000 | (int.from_bytes(self._entropy.token(3)) | 0x010002) & 0xFEFFFE
            address = str(IPv4Address(host))
            with ExitStack() as stack:
                try:
                    for port in _PORTS:
                        stack.enter_context(socket.socket()).bind((address, port))
                except OSError:
                    continue
                return address
        raise NoAddressError


def together(
    stage: Stage, jobs: Sequence[Job], *, at_once: int = _AT_ONCE, may_fail: bool = False
) -> list[subprocess.CompletedProcess[str]]:
    """Run similar commands, several at a time; only the first is printed."""
    first, more = jobs[0][0], f"   (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
    stage.console.print(f"   [dim]$ {escape(shlex.join(first))}{more}", soft_wrap=True)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda job: stage.call(*job[0], environment=job[1], may_fail=may_fail), jobs))


@contextmanager
def stage(scenario: str, console: Console, entropy: Entropy, *, keep: bool) -> Iterator[Stage]:
    """Set up the environment of a scenario, and remove it in every case."""
    directory = Path(tempfile.mkdtemp(prefix=f"birthmark-{scenario}-"))
    made = Stage(scenario, directory, console, entropy)
    try:
        yield made
    finally:
        made.close()
        if keep:
            console.print(f"The files remain in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def app_path(name: str) -> Path:
    """Return the path of an example program."""
    return Path(__file__).with_name("apps") / name


def _shorten_thumbprint(thumbprint: str) -> str:
    """Return the beginning of a thumbprint, long enough to recognize it."""
    return thumbprint if len(thumbprint) <= _SHOWN else thumbprint[:_SHOWN] + "…"


def _base_environment(directory: Path) -> dict[str, str]:
    """Return an environment without the caller's variables that point to another cloud or trust store."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    here = str(Path(sys.executable).parent)
    path = f"{here}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": str(directory), "PYTHONWARNINGS": "ignore", "NO_COLOR": "1", **kept}


def _resolve(program: str) -> str:
    """Return the program next to this interpreter, otherwise its name unchanged."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else program


def read_event(agent: "subprocess.Popen[str]", event: str) -> dict[str, Any]:
    """Return the next event of this name from the agent's output."""
    for line in agent.stdout or ():
        row: dict[str, Any] = json.loads(line)
        if row.get("event") == event:
            return row
    raise NotProvenError(expected=f"the event {event}", found="the end of the agent's output")
