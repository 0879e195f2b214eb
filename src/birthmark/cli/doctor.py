"""`birthmark doctor`: problems on this machine, with evidence and fixes."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birthmark.cli import simulated_chip_list
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import ACTION_NEEDED, FAILED, say, working
from birthmark.cli.output.command_refusal_journal import noted
from birthmark.cli.output.table import format_count, wrap_to_terminal
from birthmark.clock_and_entropy import SystemClock
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic, remove_consequences
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.doctor.runner import InspectionContext

_LATELY = timedelta(hours=1)
# Option name, and the variable that replaces a missing option.
_SETTINGS = {
    "config": ("--config", "BIRTHMARK_AGENT_CONFIG"),
    "data": ("--data", "BIRTHMARK_DATA"),
    "module": ("--module", "BIRTHMARK_PKCS11_MODULE"),
    "token": ("--token", "BIRTHMARK_TOKEN"),
    "slot": ("--slot", "BIRTHMARK_SLOT"),
    "pin_file": ("--pin-file", "BIRTHMARK_PIN_FILE"),
    "key": ("--key", ""),
}


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", readable=False, help="Configuration file of an agent (BIRTHMARK_AGENT_CONFIG)."),
    ] = None,
    root: Annotated[
        Path,
        typer.Option(
            envvar="BIRTHMARK_AGENT_ROOT", help="Directory that contains etc/aziot, var/lib/aziot and usr/lib."
        ),
    ] = Path("/"),
    data: Annotated[Path | None, typer.Option(readable=False, help="The server's data directory.")] = None,
    module: Annotated[
        Path | None, typer.Option(readable=False, help="PKCS#11 library of the chip (BIRTHMARK_PKCS11_MODULE).")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Label of the chip's token (BIRTHMARK_TOKEN).")] = None,
    slot: Annotated[str | None, typer.Option(help="Number of the slot (BIRTHMARK_SLOT).")] = None,
    pin_file: Annotated[Path | None, typer.Option(readable=False, help="File of mode 0600 with the PIN.")] = None,
    key: Annotated[str | None, typer.Option(help="Label of the key, as in your program.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Run only the checks that need no network.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show passed checks as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Diagnose library, token, key, files, clock and network.

    Also checks PIN, trust anchors, proxy, names and ports. Changes nothing.

    Checks what options and variables name. Each finding has the observed state and a command that fixes it. Exit code
    0: no problem; 6: action needed; 1: a check could not run.
    """
    given = {"config": config, "data": data, "module": module, "token": token, "slot": slot}
    given |= {"pin_file": pin_file, "key": key}
    said = {name: None if value is None else str(value) for name, value in given.items()}
    from birthmark.doctor.runner import InspectionContext, examine  # it loads what it checks: keys, links, agent

    patient = InspectionContext(os.environ, SystemClock().now(), dict(_settings(said)), root, is_offline=offline)
    found = [*remove_consequences(examine(patient, working)), *_lately(patient)]
    for one in found:
        if verbose or as_json or one.severity is not FindingSeverity.OK:
            say_finding(one, as_json=as_json)
    if not as_json:
        typer.echo(_summary(found))
    raise typer.Exit(_exit_code(found))


def _lately(patient: "InspectionContext") -> Iterator[DoctorFinding]:
    """Yield the last refusal on this machine, and an unselected simulated secure element.

    No environment variable of this shell selects that element.
    """
    if patient.get("module") is None and (command := simulated_chip_list.find_setup_command()) is not None:
        seen = "a simulated secure element was created here, and no variable refers to a chip"
        yield DoctorFinding(
            "doctor.chip_not_named", Topic.TOKEN, FindingSeverity.NOTE, seen, command=command, advice="To use it"
        )
    for row in noted(None, 1):
        if datetime.fromisoformat(row["at"]) > patient.now - _LATELY:
            seen = f"refused on this machine at {row['at'][11:19]} UTC: {row['code']}: {row['message']}"
            command = f"birthmark why {row['id']}"
            yield DoctorFinding(
                "doctor.refused_lately", Topic.ENVIRONMENT, FindingSeverity.NOTE, seen, command=command, advice="Why"
            )


def _settings(given: dict[str, str | None]) -> Iterator[tuple[str, SourcedSetting]]:
    typed = ("birthmark", *sys.argv[1:])
    for name, (option, variable) in _SETTINGS.items():
        if (value := given[name]) is not None:
            yield name, SourcedSetting(SettingSource.OPTION, option, value, command=typed)
        elif variable and os.environ.get(variable):
            yield name, SourcedSetting(SettingSource.VARIABLE, variable, os.environ[variable])
    for variable, value in os.environ.items():
        if value:
            yield variable, SourcedSetting(SettingSource.VARIABLE, variable, value)


def say_finding(finding: DoctorFinding, *, as_json: bool) -> None:
    """Print a finding as an object or as text."""
    if as_json:
        say(True, asdict(finding) | {"fix": finding.fix}, "")
        return
    typer.echo(printable(f"{finding.severity}: {finding.cause or finding.seen}"))
    if finding.cause:
        typer.echo(printable(f"  Seen: {finding.seen}"))
    if finding.fix:
        person = f" (Manual step: {finding.for_a_person}.)" if finding.for_a_person else ""
        typer.echo(wrap_to_terminal(printable(f"  Fix: {finding.fix}{person}")))
    if finding.severity is not FindingSeverity.OK:
        typer.echo(printable(f"  Code: {finding.code}"))


def _summary(findings: list[DoctorFinding]) -> str:
    counts = Counter(one.severity for one in findings)
    parts = [_several(one, counts[one]) for one in FindingSeverity if counts[one]]
    if not parts:
        return "Nothing to check is specified: see `birthmark doctor --help`."
    return f"Checked: {', '.join(parts)}."


def _several(severity: FindingSeverity, count: int) -> str:
    """Return the count with its severity, such as `1 fault` or `2 faults`; `ok` and `unknown` have no plural."""
    return (
        format_count(count, severity)
        if severity in {FindingSeverity.FAULT, FindingSeverity.WARNING, FindingSeverity.NOTE}
        else f"{count} {severity}"
    )


def _exit_code(findings: list[DoctorFinding]) -> int:
    severities = {one.severity for one in findings}
    if severities & {FindingSeverity.FAULT, FindingSeverity.WARNING}:
        return ACTION_NEEDED
    return FAILED if FindingSeverity.UNKNOWN in severities else 0
