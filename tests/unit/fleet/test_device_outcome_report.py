"""A report says of each device what the target said, in a form that its reader knows."""

import csv
import json
import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from birthmark.cli.options.report import add_row, opened
from birthmark.cli.output.command_output import INTERRUPTED, SOME_ROWS_REFUSED
from birthmark.fleet import device_outcome_report as module
from birthmark.fleet.device_outcome_report import REFUSED, FleetRun, Report, ReportFormError, bars, check_form
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome
from birthmark.fleet.enrollment_target import TargetOutcome
from birthmark.fleet.errors import DifferentRecordError
from support.fakes import NOON

DIFFERENT = DifferentRecordError(device="b<script>", target="here", present="an old one", wanted="a new one")
OUTCOMES = [
    JournalOutcome("a", "00ff", TargetOutcome.CREATED),
    JournalOutcome("b<script>", None, TargetOutcome.REFUSED, DIFFERENT),
    JournalOutcome("=1+1", "11ff", TargetOutcome.CREATED),
]


def written(path: Path, outcomes: list[JournalOutcome] = OUTCOMES) -> str:
    run = FleetRun("AWS IoT & others", NOON, dry_run=False, command="birthmark device enroll <x>")
    with Report(path, run, lambda: NOON + timedelta(seconds=2)) as report:
        for outcome in outcomes:
            report.add(outcome)
    return path.read_text()


def test_a_table_has_a_row_a_device_and_no_formula(tmp_path: Path) -> None:
    rows = list(csv.DictReader(written(tmp_path / "run.csv").splitlines()))
    assert [(row["device"], row["outcome"]) for row in rows] == [
        ("a", "created"),
        ("b<script>", "refused"),
        ("'=1+1", "created"),
    ]
    assert rows[1]["cause"] == DIFFERENT.explain_cause()
    assert rows[1]["fix"] == DIFFERENT.explain_fix()


def test_json_lines_begin_with_the_run_and_end_with_its_counts(tmp_path: Path) -> None:
    first, *rows, last = map(json.loads, written(tmp_path / "run.json").splitlines())
    run = {"begun": NOON.isoformat(), "dry_run": False, "command": "birthmark device enroll <x>"}
    assert first == {"target": "AWS IoT & others"} | run
    assert rows == [outcome.as_row() for outcome in OUTCOMES]
    assert last["counts"] == {"created": 2, "refused": 1}
    assert last["refusals"] == {DIFFERENT.code: 1}


def test_a_page_shows_charts_and_each_device_with_nothing_of_theirs_as_markup(tmp_path: Path) -> None:
    page = written(tmp_path / "run.html")
    assert "<script>" not in page
    assert "b&lt;script&gt;" in page
    assert "2 of 3 devices are enrolled as requested: 2 created, 1 refused." in page
    assert f"1 &times; {DIFFERENT.code}: " in page
    assert "<code>birthmark device enroll &lt;x&gt;</code><br>3 devices, 2 a second" in page
    assert len(re.findall("<rect ", page)) == 3
    assert page.count("<tr") == 1 + len(OUTCOMES)


def test_a_page_of_very_many_shows_the_first_and_counts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ROWS", 10)
    page = written(tmp_path / "run.html", [JournalOutcome(f"d{n}", None, TargetOutcome.UNCHANGED) for n in range(12)])
    assert (page.count("<tr"), "The first 10 of 12" in page) == (11, True)


def test_a_run_that_is_cut_off_leaves_what_is_known(tmp_path: Path) -> None:
    path, run = tmp_path / "run.csv", FleetRun("here", NOON, dry_run=True, command="again")

    def cut_off() -> None:
        with Report(path, run, lambda: NOON) as report:
            report.add(OUTCOMES[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["device", "a"]
    assert list(tmp_path.iterdir()) == [path]


def ending(path: Path, outcomes: list[JournalOutcome], end: BaseException) -> str:
    with suppress(type(end)), opened([path], "Move", "here", dry_run=False) as reports:
        for outcome in outcomes:
            add_row(reports, outcome.as_row())
        raise end
    return path.read_text()


@pytest.mark.parametrize(("count", "said"), [(1, "of 1 devices are known: 1 created."), (0, "nothing yet.")])
@pytest.mark.parametrize("end", [KeyboardInterrupt(), typer.Exit(INTERRUPTED), OSError()])
def test_a_run_that_is_cut_off_is_said_to_be_so_and_nothing_of_it_to_be_all(
    tmp_path: Path, count: int, said: str, end: BaseException
) -> None:
    page = ending(tmp_path / "run.html", OUTCOMES[:count], end)
    assert "The run was interrupted." in page
    assert said in page
    assert "enrolled as requested" not in page
    assert "the list is empty" not in page
    assert json.loads(ending(tmp_path / "run.json", OUTCOMES[:count], end).splitlines()[-1])["cut_off"] is True


def test_a_run_that_came_to_its_end_with_refusals_is_whole(tmp_path: Path) -> None:
    page = ending(tmp_path / "run.html", OUTCOMES, typer.Exit(SOME_ROWS_REFUSED))
    assert "interrupted" not in page
    assert "enrolled as requested" in page


def test_a_suffix_that_says_nothing_is_refused() -> None:
    with pytest.raises(ReportFormError) as refused:
        check_form(Path("run.xls"), "birthmark device enroll-list shipment.json")
    assert "`birthmark device enroll-list shipment.json --report run.xls.csv`" in refused.value.explain_fix()


def test_a_link_that_stands_where_a_report_grows_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run.csv.part").symlink_to("precious")
    assert "created" in written(tmp_path / "run.csv")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "run.csv").is_symlink()


def test_what_went_well_is_not_drawn_as_what_went_wrong() -> None:
    wrong = bars("", {"refused": 1}).count(REFUSED)
    assert wrong == 1
    for outcome in ("moved", "taken back", "connected", "would be enrolled", "would create", "waiting", "sent"):
        assert REFUSED not in bars("", {outcome: 3}), outcome
    assert REFUSED in bars("", {"fleet.different_record": 1}, REFUSED)
