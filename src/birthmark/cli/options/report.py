"""Option `--report`: write the outcome of each device to report files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.cli.output.command_output import SOME_ROWS_REFUSED, again, without
from birthmark.clock_and_entropy import SystemClock
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.fleet.device_outcome_report import Report

ReportOption = Annotated[
    list[Path] | None,
    typer.Option(help="Report file with each device's result: .csv, .json or .html; may be repeated."),
]


def check_reports(reports: Sequence[Path] | None, *others: Path | None) -> None:
    """Check the paths of the reports.

    Raise `ReportFormError`, or `BadParameter` for a report that would overwrite another file of the run.
    """
    from birthmark.fleet.device_outcome_report import check_form

    taken = {one.resolve() for one in others if one is not None}
    for path in reports or ():
        check_form(path, without("--report", takes_value=True))
        if path.resolve() in taken or path.is_dir():
            raise typer.BadParameter(f"{path} is another file of this run, or a directory", param_hint="--report")
        taken.add(path.resolve())


@contextmanager
def opened(reports: Sequence[Path] | None, title: str, where: str, *, dry_run: bool) -> Iterator["list[Report]"]:
    """Open the reports of a run."""
    from birthmark.fleet.device_outcome_report import FleetRun, Report

    now = SystemClock().now
    run = FleetRun(where, now(), dry_run=dry_run, command=again(), title=title)
    with ExitStack() as files:
        kept: list[Report] = []
        files.callback(_say_kept, kept)
        kept += (files.enter_context(Report(path, run, now)) for path in reports or ())
        try:
            yield kept
        except BaseException as ending:
            # Only a completed run reports that some rows were refused.
            is_over = isinstance(ending, typer.Exit) and ending.exit_code == SOME_ROWS_REFUSED
            for report in kept:
                report.is_cut_off = not is_over
            raise


def _say_kept(reports: "Sequence[Report]") -> None:
    for report in reports:
        if report.kept is not None:
            typer.echo(printable(f"The previous {report.path.name} was renamed to {report.kept}."), err=True)


def add_row(reports: "Sequence[Report]", row: Mapping[str, Any]) -> None:
    """Add the outcome of a device to each report."""
    for report in reports:
        report.add_row(row)
