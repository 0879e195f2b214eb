"""What is expected of a target, and of devices."""

import pytest

from birthmark.swarm.model import DeviceGroup, DeviceMetrics, Fault, SwarmState, SwarmVerdict
from birthmark.swarm.rules.fault_reaction_verdicts import DESERVED, expected_of, judge

GROUP = DeviceGroup("meters", 10, patience_s=30.0)


def a_tally(state: SwarmState = SwarmState.CONNECTED, **given: object) -> DeviceMetrics:
    facts = {"name": "meters-1", "group": "meters", "state": state, "connects": 1, "sent": 1, "acknowledged": 1}
    return DeviceMetrics(**{**facts, **given})  # type: ignore[arg-type]  # fields by name


def test_every_misbehavior_has_what_it_deserves() -> None:
    assert set(DESERVED) == set(Fault)


@pytest.mark.parametrize("fault", Fault)
def test_a_target_that_does_what_is_deserved_holds_and_another_does_not(fault: Fault) -> None:
    for verdict in SwarmVerdict:
        held = judge(a_tally(SwarmState.DONE, fault=fault, verdict=verdict), GROUP, 60).held
        assert held == (verdict is DESERVED[fault])


def test_a_scenario_may_expect_otherwise() -> None:
    lenient = DeviceGroup("meters", 10, expect=((Fault.DUPLICATE, SwarmVerdict.TOLERATED),))
    assert expected_of(lenient, Fault.DUPLICATE) is SwarmVerdict.TOLERATED
    assert expected_of(lenient, Fault.GARBAGE) is SwarmVerdict.STOPPED


@pytest.mark.parametrize("state", [SwarmState.CONNECTED, SwarmState.SENDING, SwarmState.RENEWING])
def test_a_connected_device_holds(state: SwarmState) -> None:
    assert judge(a_tally(state, since_s=990.0), GROUP, 1000).held


def test_a_device_that_never_connected_does_not_hold_and_says_why() -> None:
    judged = judge(a_tally(SwarmState.AWAY, connects=0, last_error="links.unreachable"), GROUP, 60)
    assert (judged.held, judged.why) == (False, "never connected: links.unreachable")


def test_a_device_may_be_away_for_as_long_as_is_patience() -> None:
    assert judge(a_tally(SwarmState.AWAY, since_s=40.0), GROUP, 60).held
    assert not judge(a_tally(SwarmState.AWAY, since_s=20.0), GROUP, 60).held
    assert judge(a_tally(SwarmState.AWAY, since_s=20.0, is_planned=True), GROUP, 60).held


def test_a_device_that_is_refused_at_the_end_does_not_hold() -> None:
    assert (
        judge(a_tally(SwarmState.REFUSED, since_s=59.0, last_error="dps.refused"), GROUP, 60).why
        == "refused: dps.refused"
    )


def test_a_device_none_of_whose_messages_were_acknowledged_does_not_hold() -> None:
    assert not judge(a_tally(acknowledged=0), GROUP, 60).held
    assert judge(a_tally(acknowledged=0, sent=0), GROUP, 60).held


def test_a_message_may_be_under_way_for_as_long_as_is_patience() -> None:
    first = a_tally(SwarmState.SENDING, acknowledged=0, sent=1, since_s=40.0)
    assert judge(first, GROUP, 60).held
    assert not judge(first, GROUP, 80).held
    assert not judge(a_tally(SwarmState.SENDING, acknowledged=0, sent=2, since_s=40.0), GROUP, 60).held
