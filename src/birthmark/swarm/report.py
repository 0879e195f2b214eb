"""Report files of a run: JSON for programs, CSV for tables, HTML with plots. The suffix selects the format."""

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from birthmark import atomic_files
from birthmark.fleet.device_outcome_report import REFUSED, bars
from birthmark.swarm.errors import ReportInvalidError
from birthmark.swarm.runner import RunOutcome
from birthmark.text_file_encodings import plain_text
from birthmark.untrusted_json_and_text import cell, decode_json, reason_of

FORMAT = "birthmark-swarm/1"


def results_of(outcome: RunOutcome) -> dict[str, Any]:
    """Return the results of a run in their JSON form."""
    return {
        "format": FORMAT,
        "summary": summary_of(outcome),
        "timeline": outcome.counting.timeline,
        "devices": [
            {
                "device": tally.name,
                "group": tally.group,
                "fault": tally.fault,
                "state": tally.state,
                "registrations": tally.registrations,
                "connects": tally.connects,
                "lost": tally.lost,
                "sent": tally.sent,
                "acknowledged": tally.acknowledged,
                "renewals": tally.renewals,
                "errors": tally.errors,
                "last_error": tally.last_error,
                "verdict": tally.verdict if tally.fault else "",
                "how": tally.how,
                "held": judgement.held,
                "why": judgement.why,
            }
            for tally, judgement in zip(outcome.tallies, outcome.judgements, strict=True)
        ],
    }


def summary_of(outcome: RunOutcome) -> dict[str, Any]:
    """Return a summary of the run."""
    scenario, counting = outcome.scenario, outcome.counting
    broken = [one for one in outcome.judgements if not one.held]
    faults = Counter(f"{one.fault}: {one.verdict}" for one in outcome.tallies if one.fault)
    totals = counting.totals
    return {
        "title": scenario.title,
        "target": scenario.wish.where,
        "devices": scenario.count,
        "seconds": round(outcome.lasted_s, 1),
        "stopped": outcome.was_stopped,
        "held": outcome.held,
        "broken": len(broken),
        "why": dict(Counter(one.why for one in broken).most_common(10)),
        "connected_at_the_end": int(counting.timeline[-1]["connected"]) if counting.timeline else 0,
        "connected_at_most": int(max((point["connected"] for point in counting.timeline), default=0)),
        "connects": totals["connect"],
        "registrations": totals["register"],
        "renewals": totals["renew"],
        "sent": totals["sent"],
        "acknowledged": totals["publish"],
        "lost": totals["lost"],
        "cut": totals["cut"],
        "jobs": totals["job"],
        "jobs_failed": totals["jobs failed"],
        "errors": dict(counting.errors.most_common()),
        "causes": counting.causes,
        "faults": dict(faults),
        "latencies": counting.spread(),
        "kib_each": round(max(0, outcome.grown_kib) / max(1, scenario.count), 1),
        "cpu_s": round(outcome.cpu_s, 2),
    }


MAX_REPORT_BYTES = 256 * 1024 * 1024
SUFFIXES = (".json", ".csv", ".html")
_MOST_ROWS = 1000
_WIDTH, _HEIGHT, _LEFT = 760, 160, 50
_LINES = (
    ("Connected devices", "connected", "#2e7d32"),
    ("Messages acknowledged a second", "acknowledged_per_s", "#1565c0"),
    ("Connects a second", "connects_per_s", "#6a1b9a"),
    ("Errors a second", "errors_per_s", "#c62828"),
)
_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
    "th,td{text-align:left;padding:.3em .6em;border-bottom:1px solid #ddd;overflow-wrap:anywhere}"
    "svg{display:block;margin:.5em 0 1.5em}.no{color:#c62828;font-weight:bold}.yes{color:#2e7d32;font-weight:bold}"
)


class _Latency(TypedDict):
    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class _Summary(TypedDict):
    """The displayed part of a report. Reports are untrusted, and no page shows text in place of a number."""

    title: str
    target: str
    devices: int
    seconds: float
    held: bool
    why: dict[str, int]
    connects: int
    registrations: int
    renewals: int
    sent: int
    acknowledged: int
    errors: dict[str, int]
    faults: dict[str, int]
    latencies: dict[str, _Latency]
    kib_each: float
    cpu_s: float


class _Point(TypedDict):
    s: float
    connected: float
    acknowledged_per_s: float
    connects_per_s: float
    errors_per_s: float


class _Device(TypedDict):
    device: str
    group: str
    fault: str | None
    state: str
    last_error: str
    held: bool
    why: str


class _Results(TypedDict):
    summary: _Summary
    timeline: list[_Point]
    devices: list[_Device]


def check_writable(path: Path) -> None:
    """Raise `OSError` before the run for a report that cannot be written after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.touch()
    part.unlink()


def write_report(path: Path, results: Mapping[str, Any]) -> Path | None:
    """Write a report in the format of its suffix, and rename it to its final name when complete.

    Return the new name of an earlier report.
    """
    text = {".json": _as_json, ".csv": as_csv, ".html": as_html}[path.suffix](results)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = atomic_files.link_backup(path)
    atomic_files.put(path, text.encode())
    return kept


def read_report(path: Path) -> dict[str, Any]:
    """Return a report that was written as JSON. Raise `ReportInvalidError`."""
    try:
        with path.open("rb") as file:
            found = decode_json(plain_text(file.read(MAX_REPORT_BYTES)))
    except OSError as error:
        raise ReportInvalidError(path=path, detail=reason_of(error)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReportInvalidError(path=path, detail="it cannot be parsed") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ReportInvalidError(path=path, detail=f"its format is not {FORMAT}")
    try:
        msgspec.convert(found, _Results)
    except msgspec.ValidationError as error:
        raise ReportInvalidError(path=path, detail=f"it is not a run's report: {error}") from error
    return found


def _as_json(results: Mapping[str, Any]) -> str:
    return json.dumps(results) + "\n"


def as_csv(results: Mapping[str, Any]) -> str:
    """Return a CSV with a row for each device."""
    rows: Sequence[Mapping[str, Any]] = results["devices"]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["device"])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) for name, value in row.items()})
    return out.getvalue()


def as_html(results: Mapping[str, Any]) -> str:
    """Return a self-contained page with plots."""
    summary = results["summary"]
    parts = [
        f"<!doctype html><meta charset=utf-8><title>Swarm</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(str(summary['title']))}</h1>",
        _intro(summary),
        *(_line(title, results["timeline"], name, colour) for title, name, colour in _LINES),
        _table("How long it took", ("", "count", "p50 ms", "p99 ms", "max ms"), _latency_rows(summary)),
    ]
    counts = {name: summary[name] for name in ("connects", "registrations", "renewals", "sent", "acknowledged")}
    parts.append(bars("Counted", counts))
    for title, name in (("Errors", "errors"), ("Misbehavior and its results", "faults"), ("Not held", "why")):
        if summary[name]:
            parts.append(bars(title, summary[name], "#757575" if name == "faults" else REFUSED))
    broken = [one for one in results["devices"] if not one["held"]][:_MOST_ROWS]
    if broken:
        shown = ("device", "group", "fault", "state", "last_error", "why")
        parts.append(
            _table("Devices that are not as expected", shown, [[one[name] for name in shown] for one in broken])
        )
    return "\n".join(parts) + "\n"


def _intro(summary: Mapping[str, Any]) -> str:
    word = '<span class="yes">as expected</span>' if summary["held"] else '<span class="no">not as expected</span>'
    what = f"{summary['devices']} devices, {summary['seconds']} s, target {html.escape(str(summary['target']))}"
    return f"<p>{what}: {word}. {summary['kib_each']} KiB per device, {summary['cpu_s']} s of CPU time.</p>"


def _latency_rows(summary: Mapping[str, Any]) -> list[list[object]]:
    names = ("count", "p50_ms", "p99_ms", "max_ms")
    return [[what, *(row[name] for name in names)] for what, row in summary["latencies"].items()]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def row(kind: str, cells: Sequence[object]) -> str:
        told = ("" if cell is None else str(cell) for cell in cells)
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in told) + "</tr>"

    return f"<h2>{html.escape(title)}</h2><table>{row('th', head)}{''.join(row('td', one) for one in rows)}</table>"


def _line(title: str, timeline: Sequence[Mapping[str, float]], name: str, colour: str) -> str:
    """Return a plot over time: a line, its maximum and the seconds."""
    most = max((point[name] for point in timeline), default=0.0) or 1.0
    last = max((point["s"] for point in timeline), default=0.0) or 1.0
    places = " ".join(
        f"{_LEFT + (_WIDTH - _LEFT) * point['s'] / last:.1f},{_HEIGHT - (_HEIGHT - 20) * point[name] / most:.1f}"
        for point in timeline
    )
    axis = f'<path d="M{_LEFT} 10V{_HEIGHT}H{_WIDTH}" fill="none" stroke="#999"/>'
    texts = (
        f'<text x="0" y="24">{most:g}</text><text x="0" y="{_HEIGHT}">0</text>'
        f'<text x="{_WIDTH - 60}" y="{_HEIGHT + 18}">{last:.0f} s</text>'
    )
    drawn = f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
    size = f'width="{_WIDTH}" height="{_HEIGHT + 24}"'
    return f'<h2>{html.escape(title)}</h2><svg {size} role="img">{axis}{drawn}{texts}</svg>'
