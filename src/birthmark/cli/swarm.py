"""`birthmark swarm`: thousands of simulated devices against any target."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import read_text
from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.server import DataOption
from birthmark.cli.output.command_output import FAILED, FileExistsAlreadyError, UsageError, emit, say, without
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.operator_api.client.server_discovery_and_api_client import DEFAULT_DATA
from birthmark.swarm.model import DeviceGroup, Origin, RegistrationProtocol, SwarmTransport, TargetKind
from birthmark.swarm.progress_display import Dashboard, line_of, progress_of
from birthmark.swarm.report import SUFFIXES, check_writable, read_report, results_of, write_report
from birthmark.swarm.run_setup import RunSetup, SetupBuilder, target_of
from birthmark.swarm.runner import RunOutcome, SwarmRun, make_room
from birthmark.swarm.scenario import value_parsers
from birthmark.swarm.scenario.example import example
from birthmark.swarm.scenario.model import Scenario
from birthmark.swarm.scenario.parser import MAX_DEVICES, parse_scenario
from birthmark.untrusted_json_and_text import printable

_TELL_EVERY_S = 5


class NoDevicesError(UsageError):
    """The number of devices is not specified."""

    code = "swarm.no_devices"
    cause = "Neither a scenario file nor --devices sets the number of devices."
    fix = (
        "Set the number of devices: `birthmark swarm run --devices 50 --to local --duration 30s`. To create a "
        "scenario file instead: `birthmark swarm init swarm.toml`"
    )


class ReportFormError(UsageError):
    """Unknown report format."""

    code = "swarm.report_form"
    cause = "{path} does not end with a report suffix (.json, .csv or .html)."
    fix = "Choose a suffix, for example: `{without} {option} {path}.html`"
    option: str = "--report"
    path: Path
    without: str


def _seconds(text: str) -> float:
    try:
        return value_parsers.some_time(text)
    except ValueError as mistake:
        raise typer.BadParameter(f"{mistake}, such as 30s, 5m or 1h") from mistake


ScenarioFile = Annotated[Path | None, typer.Argument(help="Scenario file, as written by `birthmark swarm init`.")]
Seconds = Annotated[
    float | None, typer.Option(parser=_seconds, metavar="DURATION", help="Duration of the run, such as 90s or 5m.")
]


@dataclass(frozen=True, slots=True)
class SwarmDeviceOptions:
    """Options for devices without a scenario file, or overrides of a scenario file."""

    devices: Annotated[
        int | None, typer.Option(min=1, max=MAX_DEVICES, help="Number of devices, without a scenario file.")
    ] = None
    to: Annotated[TargetKind | None, typer.Option(help="Target profile; local is the server of --data.")] = None
    host: Annotated[str | None, typer.Option(help="Host of the provisioning service, or of AWS's data endpoint.")] = (
        None
    )
    id_scope: Annotated[str | None, typer.Option(help="ID scope of the provisioning service.")] = None
    register: Annotated[
        RegistrationProtocol | None,
        typer.Option(help="Azure registration protocol. Default: none, and --host is the hub."),
    ] = None
    origin: Annotated[Origin | None, typer.Option("--from", help="Source of the certificates.")] = None
    identities: Annotated[Path | None, typer.Option(help="Directory for keys and certificates.")] = None
    ca_cert: Annotated[Path | None, typer.Option(help="Certificate of your CA, for --from ca.")] = None
    ca_key: Annotated[Path | None, typer.Option(help="Key of your CA.")] = None
    ca_passphrase_file: Annotated[Path | None, typer.Option(help="File of mode 0600 with the key's passphrase.")] = None
    ramp: Annotated[
        float | None, typer.Option(min=0.01, help="Devices started per second, without a scenario file.")
    ] = None
    interval: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="DURATION", help="Interval between messages, without a scenario file."),
    ] = None
    duration: Seconds = None
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random numbers; the same seed gives the same run.")
    ] = None
    data: DataOption = Path(DEFAULT_DATA)

    def scenario(self, file: Path | None) -> Scenario:
        """Return the scenario of the file, or of a single group, with the options applied."""
        if file is None and self.devices is None:
            raise NoDevicesError
        only(file is None, "without a scenario file", devices=self.devices, ramp=self.ramp, interval=self.interval)
        if file is not None:
            scenario = _read(file)
        else:
            given = {"ramp": self.ramp, "interval_s": self.interval}
            group = DeviceGroup("device", self.devices or 0, **_said(given))
            scenario = Scenario(groups=(group,))
        identities = {
            "directory": self.identities,
            "origin": self.origin,
            "ca_cert": self.ca_cert,
            "ca_key": self.ca_key,
            "passphrase_file": self.ca_passphrase_file,
        }
        wish = {"where": self.to, "host": self.host, "id_scope": self.id_scope, "way": self.register}
        if (self.ca_cert is None) != (self.ca_key is None):
            raise typer.BadParameter("--ca-cert and --ca-key must be used together")
        is_amqp = any(one.transport is SwarmTransport.AMQP for one in scenario.groups)
        if is_amqp and self.to is not None and self.to.is_aws:
            raise typer.BadParameter(f'--to {self.to} is not possible with `transport = "amqp"`: AWS has no AMQP')
        return replace(
            scenario,
            wish=replace(scenario.wish, **_said(wish)),
            identities=replace(scenario.identities, **_said(identities)),
            **_said({"duration_s": self.duration, "seed": self.seed}),
        )


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read(file: Path) -> Scenario:
    return parse_scenario(file, read_text(file))


def init(
    file: Annotated[Path, typer.Argument(help="Output file.")] = Path("swarm.toml"),
    to: Annotated[TargetKind, typer.Option(help="Target profile; local is the server of --data.")] = TargetKind.LOCAL,
    as_json: JsonOption = False,
) -> None:
    """Write a scenario file with every key and its meaning."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(example(to))
    except FileExistsError as error:
        raise FileExistsAlreadyError(path=file) from error
    say(as_json, {"file": str(file)}, f"Wrote {file}. Run it: birthmark swarm run {shlex.quote(str(file))}")


async def prepare(asked: SwarmDeviceOptions, scenario: ScenarioFile = None, as_json: JsonOption = False) -> None:
    """Create missing keys and certificates and enroll them.

    Enrolls the devices at a local server.
    """
    wanted = asked.scenario(scenario)
    with ExitStack() as ends:
        ready = await _ready(asked, wanted, ends)
    row = {"devices": ready.scenario.count, "made": ready.made, "directory": str(ready.shelf.directory)}
    emit(as_json, {**row, "ca": None if ready.ca is None else str(ready.ca), "group": ready.on_record or None})


async def run(
    asked: SwarmDeviceOptions,
    scenario: ScenarioFile = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Report file of the run: .json, .csv or .html; may be repeated."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Skip the confirmation before connecting to a remote target.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run simulated devices and check the target's responses.

    Exit code 0 if every response was as expected, otherwise 1.

    Ctrl-C ends a run cleanly, with its report. A second run uses the same keys.
    """
    _check_forms(report or [], "--report")
    wanted = asked.scenario(scenario)
    for group, moment in wanted.never():
        said = (
            f"The storm of {group} is scheduled {moment:g}s after the start, but the run ends at "
            f"{wanted.duration_s:g}s."
        )
        typer.echo(f"{said} It will not happen: set a longer --duration.", err=True)
    make_room(wanted.count)
    target = target_of(wanted, asked.data.expanduser(), os.environ)
    if not wanted.wish.where.is_local:
        confirm(f"Simulate {wanted.count} devices against {target.host} ({wanted.wish.where.value})?", yes=yes)
    for path in report or []:
        check_writable(path)
    with ExitStack() as ends:
        outcome = await _run(await _ready(asked, wanted, ends), as_json=as_json)
    results = results_of(outcome)
    for path in report or []:
        _write(path, results)
    if as_json:
        typer.echo(json.dumps({"event": "summary", **results["summary"]}))
    else:
        _tell(results["summary"])
    if not outcome.held:
        raise typer.Exit(FAILED)


def _write(path: Path, results: Mapping[str, Any]) -> None:
    if (kept := write_report(path, results)) is not None:
        typer.echo(printable(f"The previous {path.name} was renamed to {kept}."), err=True)


def report(
    file: Annotated[Path, typer.Argument(help="Report of a run: JSON.")],
    out: Annotated[list[Path] | None, typer.Option(help="Output file: .csv or .html; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a run's report or convert it.

    Exit code 1 if the run did not go as expected.
    """
    _check_forms(out or [], "--out")
    results = read_report(file)
    for path in out or []:
        _write(path, results)
    if as_json:
        typer.echo(json.dumps(results["summary"]))
    else:
        _tell(results["summary"])
    if not results["summary"]["held"]:
        raise typer.Exit(FAILED)


def _check_forms(paths: list[Path], option: str) -> None:
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ReportFormError(path=path, option=option, without=without(option, takes_value=True))


async def _ready(asked: SwarmDeviceOptions, scenario: Scenario, ends: ExitStack) -> RunSetup:
    data = asked.data.expanduser()
    target = target_of(scenario, data, os.environ)
    readying = SetupBuilder(scenario, target, data, SystemClock(), SystemEntropy())
    with Progress(console=Console(stderr=True, quiet=not sys.stderr.isatty()), transient=True) as progress:
        task = progress.add_task(f"Keys and certificates for {target.host}", total=None)
        readying = replace(readying, progress=lambda done, all_: progress.update(task, completed=done, total=all_))
        return await readying.run(ends)


async def _run(ready: RunSetup, *, as_json: bool) -> RunOutcome:
    """Run to the end or to Ctrl-C; report progress as JSON, as a dashboard or as lines."""
    with ExitStack() as ends:
        driven = SwarmRun(ready.scenario, ready.target, ready.dialer, ready.shelf, SystemClock())
        if as_json:
            driven.watch = _throttle_reports(lambda counting, now: typer.echo(json.dumps(progress_of(counting, now))))
        elif sys.stderr.isatty():
            driven.watch = ends.enter_context(Dashboard(ready.scenario, Console(stderr=True))).show
        else:
            driven.watch = _throttle_reports(lambda counting, now: typer.echo(line_of(counting, now), err=True))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, driven.stop.set)
            ends.callback(loop.remove_signal_handler, number)
        return await driven.go()


def _throttle_reports(tell: Callable[[Any, float], None]) -> Callable[[Any, float], None]:
    """Limit progress output to one report per interval."""
    last = -float(_TELL_EVERY_S)

    def watch(counting: Any, now: float) -> None:
        nonlocal last
        if now - last >= _TELL_EVERY_S:
            last = now
            tell(counting, now)

    return watch


def _tell(summary: dict[str, Any]) -> None:
    """Print a summary of a run."""
    shown = {name: value for name, value in summary.items() if not isinstance(value, dict)}
    emit(False, shown)
    for what, row in summary["latencies"].items():
        typer.echo(f"{printable(what):<12} {row['count']:>8}   p50 {row['p50_ms']} ms   p99 {row['p99_ms']} ms")
    for told, times in (*summary["faults"].items(), *summary["errors"].items(), *summary["why"].items()):
        typer.echo(f"{times:>8}  {printable(told)}")
