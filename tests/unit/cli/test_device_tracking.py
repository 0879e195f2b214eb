"""Whatever ends a look at many devices, what it saw or did is told and kept."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from birthmark.cli.device_state_poller import PatienceOptions, follow, move
from birthmark.cli.output.bulk_summary import BulkSummary
from birthmark.cli.output.command_output import INTERRUPTED
from birthmark.fleet.device_migration import MigrationProgress, MigrationStage, Pair
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage, Goal
from birthmark.fleet.enrollment_target import EnrollmentRequest
from birthmark.fleet.errors import TargetUnreachableError
from support.pki.pki_builders import a_device

WISH = EnrollmentRequest("gateway", a_device(common_name="gateway").certificate)


class Target:
    """Where a device never comes."""

    description = "here"

    def get_progress(self, wish: EnrollmentRequest) -> DeviceProgress:
        return DeviceProgress(wish.device_id, DeviceStage.UNASSIGNED)


def interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_who_stops_waiting_keeps_where_devices_stand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", interrupt)
    shipment, kept = cast(Any, SimpleNamespace(wishes=lambda _tell: iter([WISH]))), list[Mapping[str, Any]]()
    with pytest.raises(typer.Exit) as ending:
        follow(Target(), shipment, Goal.CONNECTED, PatienceOptions(timedelta(hours=1)), kept.append, as_json=False)
    assert ending.value.exit_code == INTERRUPTED
    assert [(row["device"], row["outcome"], row["cause"]) for row in kept] == [("gateway", "unassigned", "")]
    assert "here: 1 unassigned." in capsys.readouterr().err


def test_what_was_moved_before_a_target_was_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def look(_wishes: Sequence[Pair]) -> Iterator[MigrationProgress]:
        yield MigrationProgress("gateway", MigrationStage.MOVED, "retired at there")
        raise TargetUnreachableError(target="there", reason="gone")

    moving, kept = cast(Any, SimpleNamespace(run_pass=look, source=Target(), destination=Target())), list[Any]()
    pairs, tally = [(WISH, WISH), (WISH, WISH)], BulkSummary(as_json=False)
    with pytest.raises(TargetUnreachableError):
        move(moving, pairs, 0, tally, ("", ""), keep=kept.append, as_json=False)
    assert [row["outcome"] for row in kept] == ["moved"]
    assert "1 moved." in capsys.readouterr().err
