"""A server's data directory: what is open to others, what is away, what ends, and who answers."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import FileFacts, ServerFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity
from birthmark.doctor.rules.server import findings
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

NAMED = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_DATA", "/data")
SERVED = ServerFacts("/data", NAMED, has_run=True, is_served=True, start="birthmark serve")


def only(seen: ServerFacts) -> DoctorFinding:
    (found,) = findings(seen)
    return found


def test_a_server_that_answers_is_well_and_one_that_nobody_named_is_not_looked_for() -> None:
    assert only(SERVED).severity is FindingSeverity.OK
    assert list(findings(ServerFacts("/data"))) == []


def test_each_private_file_that_others_can_read_is_closed_beside_what_else_is_found() -> None:
    exposed = (FileFacts("/data/est.seed", exists=True, mode=0o644), FileFacts("/data/k y", exists=True, mode=0o640))
    *files, last = findings(replace(SERVED, exposed=exposed))
    assert [one.command for one in files] == ["chmod 0600 /data/est.seed", "chmod 0600 '/data/k y'"]
    assert [one.about for one in files] == ["/data/est.seed", "/data/k y"]
    assert last.severity is FindingSeverity.OK


@pytest.mark.parametrize(
    ("seen", "code", "severity"),
    [
        (replace(SERVED, has_database=False), "doctor.database_away", FindingSeverity.FAULT),
        (replace(SERVED, certificate_trouble="x"), "doctor.server_certificate_not_taken", FindingSeverity.FAULT),
        (replace(SERVED, certificate_days=13), "doctor.server_certificate_ends", FindingSeverity.WARNING),
        (replace(SERVED, certificate_days=-1), "doctor.server_certificate_ends", FindingSeverity.FAULT),
        (replace(SERVED, certificate_days=14), "doctor.server", FindingSeverity.OK),
    ],
)
def test_what_a_person_has_to_put_right_says_why(seen: ServerFacts, code: str, severity: FindingSeverity) -> None:
    found = only(seen)
    assert (found.code, found.severity) == (code, severity)
    assert bool(found.for_a_person) is (severity is not FindingSeverity.OK)


def test_a_directory_that_is_closed_is_looked_at_by_its_owner() -> None:
    assert only(replace(SERVED, as_owner="sudo -u birthmark birthmark doctor")).command.startswith("sudo -u birthmark")


@pytest.mark.parametrize(("has_run", "told"), [(True, "no server runs on it"), (False, "no server has run on it")])
def test_a_server_that_does_not_run_is_started_or_another_is_named(*, has_run: bool, told: str) -> None:
    still = replace(SERVED, is_served=False, has_run=has_run)
    found = only(still)
    assert told in found.seen
    assert found.command == "birthmark serve"
    other = only(replace(still, others=("/other",)))
    assert (other.command, "`birthmark serve`" in other.advice) == ("export BIRTHMARK_DATA=/other", True)
