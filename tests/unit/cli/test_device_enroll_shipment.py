"""What a run over a shipment says when it ends, or never begins."""

from pathlib import Path

import pytest
import typer

from birthmark.cli import device_enroll_shipment
from birthmark.cli.device_enroll_shipment import Shipment, enroll_shipment, template_of
from birthmark.cli.options.device_enrollment import DeviceOptions, RunOptions
from birthmark.cli.output.bulk_summary import BulkSummary, Refusals
from birthmark.cli.output.command_output import print_errors
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome
from birthmark.fleet.enrollment_target import Change, TargetOutcome
from birthmark.fleet.enrollment_template import EnrollmentTemplate, TemplateInvalidError
from birthmark.manifests.errors import MalformedEntryError
from support.agent.memory_target import MemoryTarget

OTHERS = '{"format": "birthmark-enroll-journal/1", "target": "another"}\n'


@pytest.mark.parametrize(("content", "other"), [(OTHERS, ".other"), ("-----BEGIN\n", ".journal")])
def test_a_journal_that_cannot_be_used_is_the_only_complaint_and_is_replaced_in_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, other: str
) -> None:
    journal = tmp_path / "j"
    journal.write_text(content)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["birthmark", "device", "enroll-list", "m", "--journal", str(journal), "--update"])
    shipment = Shipment(Path("m"), None, 3, EnrollmentTemplate(), quiet=True)
    run = RunOptions(journal=journal)
    with pytest.raises(typer.Exit), print_errors():
        enroll_shipment(MemoryTarget(), shipment, BulkSummary(as_json=False), run, update=True, dry_run=False)
    told = capsys.readouterr().err
    assert "Interrupted" not in told
    assert f"`birthmark device enroll-list m --update --journal {journal}{other}`" in told


def test_what_differs_is_told_by_kind_with_the_first_few(capsys: pytest.CaptureFixture[str]) -> None:
    tally = BulkSummary(as_json=False)
    for number in range(5):
        tally.add(
            JournalOutcome(
                f"device-{number}", None, TargetOutcome.WOULD_UPDATE, difference=(Change("IoT Edge", "no", "yes"),)
            )
        )
    tally.show_differences()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "IoT Edge of 5 devices:"
    assert told[1:] == [*(f"  device-{number}: no -> yes" for number in range(3)), "  and 2 more"]


def test_refusals_that_differ_in_a_name_alone_are_not_told_a_thousand_times(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    tally = BulkSummary(as_json=False)
    for number in range(1000):
        error = MalformedEntryError(place=number, detail=f"device-{number} has no certificate")
        tally.add(JournalOutcome(f"device-{number}", None, TargetOutcome.REFUSED, error))
    tally.show_refusals()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Refused")]
    assert told[:5] == [f"Refused 1 device: device-{number}" for number in range(5)]
    assert told[5:] == ["Refused 995 devices: device-5, device-6, device-7 and 992 more"]


def test_a_rehearsal_is_told_in_words() -> None:
    tally = BulkSummary(as_json=True)
    for done in (
        TargetOutcome.WOULD_CREATE,
        TargetOutcome.WOULD_CREATE,
        TargetOutcome.WOULD_UPDATE,
        TargetOutcome.CREATED,
    ):
        tally.add(JournalOutcome("device-1", None, done))
    assert sorted(tally.summary().split(", ")) == ["1 created", "1 would be updated", "2 would be created"]


def test_of_very_many_refusals_the_first_of_a_kind_are_told_and_the_others_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    refused = Refusals(as_json=False)
    for place in range(1, 101):
        refused.add(MalformedEntryError(place=place, detail="x"), {"entry": place})
    refused.print_remaining()
    told = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("Refused manifest.malformed: ") for line in told) == 5
    assert told[-1].startswith("Refused manifest.malformed as well: entries 6, 7, 8")
    assert told[-1].endswith(" and 75 more; --json lists each")
    assert refused.count == 100


def test_who_stops_a_long_run_is_told_how_far_it_came_and_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["birthmark", "device", "enroll-list", "s.json", "--undo"])
    tally = BulkSummary(as_json=False)

    def stopped() -> None:
        with device_enroll_shipment._shown("Taking back", 5, tally) as step:
            tally.counts[TargetOutcome.TAKEN_BACK] += 2
            step()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    told = capsys.readouterr().err
    assert "2 undone of 5" in told
    assert "The same command continues: birthmark device enroll-list s.json --undo" in told


def test_an_empty_template_is_not_none(tmp_path: Path) -> None:
    for content in (b"", b"\r\n\r\n", b"\xff\xfe", b"\x1a"):
        (file := tmp_path / "template.toml").write_bytes(content)
        with pytest.raises(TemplateInvalidError) as refused:
            template_of(file, DeviceOptions())
        assert "it is empty" in refused.value.explain_cause()
    assert template_of(None, DeviceOptions()) == EnrollmentTemplate()
