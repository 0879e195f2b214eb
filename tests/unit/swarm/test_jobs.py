"""What a simulated device does about its jobs."""

import json

import pytest

from birthmark.swarm.rules.jobs import JobMessage, SimulatedJob, ending, fails, parse_job_message

JOBS = "$aws/things/press-1/jobs/"


def test_so_many_of_many_fail_and_always_the_same_ones() -> None:
    names = [f"press-{number}" for number in range(10_000)]
    found = [name for name in names if fails(name, SimulatedJob("j", 1), 0.02)]
    assert 150 < len(found) < 250
    assert found == [name for name in names if fails(name, SimulatedJob("j", 1), 0.02)]
    assert not any(fails(name, SimulatedJob("j", 1), 0.0) for name in names)
    assert all(fails(name, SimulatedJob("j", 1), 1.0) for name in names)


def test_another_try_has_a_fate_of_its_own() -> None:
    names = [name for name in (f"press-{number}" for number in range(1000)) if fails(name, SimulatedJob("j", 1), 0.1)]
    again = [name for name in names if fails(name, SimulatedJob("j", 2), 0.1)]
    assert 0 < len(again) < len(names)


@pytest.mark.parametrize(
    ("rest", "told", "meant"),
    [
        ("notify-next", {"execution": {"jobId": "j", "executionNumber": 1}}, JobMessage(is_news=True)),
        ("notify-next", {"timestamp": 1}, JobMessage()),
        (
            "start-next/accepted",
            {"execution": {"jobId": "j", "executionNumber": 2}},
            JobMessage(begun=SimulatedJob("j", 2)),
        ),
        ("start-next/accepted", {"timestamp": 1}, JobMessage()),
        ("j/update/accepted", {}, JobMessage(ended=True)),
        ("j/update/rejected", {"code": "VersionMismatch"}, JobMessage(refused="VersionMismatch")),
        ("get/accepted", {}, JobMessage()),
    ],
)
def test_a_message_means_what_its_topic_says(rest: str, told: object, meant: JobMessage) -> None:
    assert parse_job_message(JOBS + rest, json.dumps(told).encode()) == meant


def test_what_is_no_json_means_nothing() -> None:
    assert (
        parse_job_message(f"{JOBS}notify-next", b"{") == parse_job_message(f"{JOBS}notify-next", b"[]") == JobMessage()
    )


@pytest.mark.parametrize(("share", "status"), [(0.0, "SUCCEEDED"), (1.0, "FAILED")])
def test_a_try_ends_with_its_number_and_a_reason(share: float, status: str) -> None:
    body, is_bad = ending("press-1", SimulatedJob("j", 3), share)
    told = json.loads(body)
    assert (told["status"], told["executionNumber"], is_bad) == (status, 3, status == "FAILED")
    assert told["statusDetails"]["why"]
