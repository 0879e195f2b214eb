"""Reports of the outcome per device, as files: CSV for spreadsheets, JSON lines for programs, HTML.

The suffix of the file name selects the format. A report is written next to its final name and renamed when the run
ends, also after an interruption. Memory use is independent of the number of rows, and an HTML page shows the first rows
only.
"""

import csv
import html
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from birthmark import atomic_files
from birthmark.errors import InvalidRequestError
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome, add_path_to_errors
from birthmark.fleet.enrollment_target import TargetOutcome
from birthmark.untrusted_json_and_text import cell

FIELDS = ("device", "thumbprint", "outcome", "code", "message", "cause", "fix")
_MOST_ROWS = 5000
_MOST_REFUSALS = 50
_DONE, _CHANGED, _AS_IT_WAS, _WAITED_FOR, REFUSED = "#2e7d32", "#1565c0", "#757575", "#ef6c00", "#c62828"
_COLOURS = {
    **dict.fromkeys(("created", "moved", "connected"), _DONE),
    **dict.fromkeys(("updated", "taken back", "away"), _CHANGED),
    **dict.fromkeys(("waiting", "unassigned", "never seen", "not on record", "not retired"), _WAITED_FOR),
    **dict.fromkeys(("refused", "on record otherwise"), REFUSED),
}
"""Colors of outcomes; others, such as planned changes, are neither success nor failure."""


class ReportFormError(InvalidRequestError):
    """Unknown report format."""

    code = "enroll.report_form"
    cause = "The file name {path} has none of the report suffixes .csv, .json, and .html."
    fix = "Choose a suffix, for example: `{again} --report {path}.csv`"
    again: str = "?"
    path: Path


@dataclass(frozen=True, slots=True)
class FleetRun:
    """The run of a report."""

    target: str
    begun: datetime
    dry_run: bool
    command: str
    """Command as typed."""
    title: str = "Enrollment"


@dataclass(slots=True)
class _RefusalSummary:
    """Number of refusals of one kind, and the cause of the first."""

    cause: str
    count: int = 0


class _Form(Protocol):
    def row(self, row: Mapping[str, Any]) -> None: ...

    def end(self, report: "Report", ended: datetime) -> None: ...


@dataclass(slots=True)
class Report:
    """A report file; use it in a `with` block."""

    path: Path
    run: FleetRun
    now: Callable[[], datetime]
    counts: Counter[str] = field(default_factory=Counter)
    is_cut_off: bool = False
    """Whether the run was interrupted."""
    refusals: dict[str, _RefusalSummary] = field(default_factory=dict)
    kept: Path | None = None
    """New name of an earlier report."""
    _file: TextIO = field(init=False, repr=False)
    _form: _Form = field(init=False, repr=False)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = _part_of(self.path)
        part.unlink(missing_ok=True)  # never write through an existing entry, such as a link
        self._file = part.open("x", encoding="utf-8", errors="backslashreplace", newline="")
        self._form = _FORMS[self.path.suffix](self._file, self.run)
        return self

    def add(self, outcome: JournalOutcome) -> None:
        """Add an outcome."""
        self.add_row(outcome.as_row())

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add a row with members of `FIELDS`, at least device and outcome."""
        self.counts[row["outcome"]] += 1
        if (code := row.get("code")) is not None and (code in self.refusals or len(self.refusals) < _MOST_REFUSALS):
            self.refusals.setdefault(code, _RefusalSummary(row["cause"])).count += 1
        with add_path_to_errors(self.path):
            self._form.row(row)

    def __exit__(self, *_: object) -> None:
        with add_path_to_errors(self.path), self._file:
            self._form.end(self, self.now())
            self._file.flush()
            os.fsync(self._file.fileno())
        self.kept = atomic_files.link_backup(self.path)
        _part_of(self.path).replace(self.path)


def check_form(path: Path, again: str) -> None:
    """Raise `ReportFormError` for a file name with an unknown suffix."""
    if path.suffix not in _FORMS:
        raise ReportFormError(path=path, again=again)


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


class _Csv:
    def __init__(self, file: TextIO, run: FleetRun) -> None:
        del run
        self._writer = csv.DictWriter(file, FIELDS, restval="", extrasaction="ignore")
        self._writer.writeheader()

    def row(self, row: Mapping[str, Any]) -> None:
        self._writer.writerow({name: cell(value) for name, value in row.items()})

    def end(self, report: Report, ended: datetime) -> None:
        """Do nothing: a table has only rows."""


class _Json:
    def __init__(self, file: TextIO, run: FleetRun) -> None:
        self._file = file
        told = {"target": run.target, "begun": run.begun.isoformat(), "dry_run": run.dry_run}
        self._write(told | {"command": run.command})

    def row(self, row: Mapping[str, Any]) -> None:
        self._write(row)

    def end(self, report: Report, ended: datetime) -> None:
        why = {code: one.count for code, one in report.refusals.items()}
        told = {"ended": ended.isoformat(), "cut_off": report.is_cut_off}
        self._write(told | {"counts": dict(report.counts), "refusals": why})

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")


class _Html:
    def __init__(self, file: TextIO, run: FleetRun) -> None:
        self._file, self._run, self._shown = file, run, 0
        what = f"{run.title}, rehearsed" if run.dry_run else run.title
        head = f"<!doctype html><meta charset=utf-8><title>{what}</title><style>{_STYLE}</style><main>"
        told = f"<h1>{what}</h1><p>{html.escape(run.target)}</p><table><thead>{_cells('th', _SHOWN)}</thead><tbody>"
        file.write(f"{head}{told}\n")

    def row(self, row: Mapping[str, Any]) -> None:
        self._shown += 1
        if self._shown <= _MOST_ROWS:
            self._file.write(_cells("td", (row.get(name) for name in _SHOWN), row["outcome"]))

    def end(self, report: Report, ended: datetime) -> None:
        counts, refusals = report.counts, report.refusals
        total = counts.total()
        shown = f"<p>The first {_MOST_ROWS} of {total}.</p>" if total > _MOST_ROWS else ""
        took = (ended - self._run.begun).total_seconds()
        rate = f"{total / took:.0f} a second" if took else "at once"
        span = f"{self._run.begun:%Y-%m-%d %H:%M:%S} to {ended:%H:%M:%S} UTC"
        self._file.write(f"</tbody></table>{shown}<header><p><strong>{html.escape(_outcome(report))}</strong></p>")
        if refusals:
            most = sorted(refusals.items(), key=lambda one: -one[1].count)
            why = (f"<li>{each.count} &times; {code}: {html.escape(each.cause)}</li>" for code, each in most)
            self._file.write(f"<p>Refused, and why the first of each kind was:</p><ul>{''.join(why)}</ul>")
        ran = f"<code>{html.escape(self._run.command)}</code>"
        self._file.write(f"<p>{ran}<br>{total} devices, {rate}, {span}</p>")
        self._file.write(bars("Outcomes", counts))
        if refusals:
            self._file.write(
                bars("Why some were refused", {code: each.count for code, each in refusals.items()}, REFUSED)
            )
        self._file.write("</header></main>\n")


_ON_RECORD = (TargetOutcome.CREATED, TargetOutcome.UPDATED, TargetOutcome.UNCHANGED)


def _outcome(report: Report) -> str:
    """Return the overall outcome in one sentence."""
    counts = report.counts
    several = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    if report.is_cut_off:
        return (
            f"The run was interrupted. The results of {counts.total()} devices are known: {several or 'nothing yet'}."
        )
    several = several or "the list is empty"
    on_record = sum(counts[done] for done in _ON_RECORD)
    if not on_record:
        return f"{counts.total()} devices: {several}."
    return f"{on_record} of {counts.total()} devices are enrolled as requested: {several}."


_SHOWN = ("device", "outcome", "thumbprint", "cause", "fix")
# The style moves the end results to the top.
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222}main{display:flex;flex-direction:column}"
    "h1,h1+p{order:0;margin:.2em 0}header{order:1}table{order:2;border-collapse:collapse}table+p{order:3}"
    "th,td{text-align:left;padding:.3em .6em;border-bottom:1px solid #ddd;vertical-align:top;overflow-wrap:anywhere}"
    "tr.refused td:nth-child(2){color:#c62828;font-weight:bold}svg{display:block;margin:.5em 0 1.5em}"
)


def _cells(kind: str, values: Iterable[object], outcome: str = "") -> str:
    cells = "".join(f"<{kind}>{html.escape('' if value is None else str(value))}</{kind}>" for value in values)
    return f'<tr class="{html.escape(outcome)}">{cells}</tr>\n'


def bars(title: str, counts: Mapping[str, int], colour: str = _AS_IT_WAS) -> str:
    """Return a bar chart of the counts; `colour` is for names that are not outcomes."""
    most, rows = max([1, *counts.values()]), []
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda one: -one[1])):
        y, fill = place * 28, _COLOURS.get(name, colour)
        rows.append(
            f'<text x="0" y="{y + 17}">{html.escape(name)}</text>'
            f'<rect x="260" y="{y + 2}" width="{max(2, 400 * count // most)}" height="20" fill="{fill}"/>'
            f'<text x="{270 + 400 * count // most}" y="{y + 17}">{count}</text>'
        )
    return f'<h2>{html.escape(title)}</h2><svg width="760" height="{28 * len(rows)}" role="img">{"".join(rows)}</svg>'


_FORMS: Mapping[str, Callable[[TextIO, FleetRun], _Form]] = {".csv": _Csv, ".json": _Json, ".html": _Html}
