"""A run's report is shown again from its JSON, wherever that came from: as a run wrote it, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from birthmark.swarm.errors import ReportInvalidError
from birthmark.swarm.report import FORMAT, as_html, read_report

NOTHING = dict.fromkeys(("connects", "registrations", "renewals", "sent", "acknowledged", "devices"), 0)
SUMMARY: dict[str, Any] = NOTHING | {
    "title": "<b>swarm</b>",
    "target": "local",
    "seconds": 1.5,
    "held": False,
    "why": {},
    "errors": {},
    "faults": {},
    "latencies": {},
    "kib_each": 0.0,
    "cpu_s": 0.1,
}
RESULTS: dict[str, Any] = {"format": FORMAT, "summary": SUMMARY, "timeline": [], "devices": []}


def written(directory: Path, results: dict[str, Any]) -> Path:
    file = directory / "run.json"
    file.write_text(json.dumps(results))
    return file


def test_a_run_in_which_nothing_happened_has_a_page(tmp_path: Path) -> None:
    page = as_html(read_report(written(tmp_path, RESULTS)))
    assert "&lt;b&gt;swarm&lt;/b&gt;" in page


@pytest.mark.parametrize(
    "changed",
    [
        {"summary": SUMMARY | {"devices": "<script>alert(1)</script>"}},
        {"summary": SUMMARY | {"errors": {"a": "<script>"}}},
        {"summary": {}},
        {"timeline": [{"s": "x"}]},
        {"devices": None},
    ],
)
def test_what_no_run_wrote_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ReportInvalidError):
        read_report(written(tmp_path, RESULTS | changed))
