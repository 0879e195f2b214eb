"""Expected results: the reaction to each fault, and the conditions for all other devices."""

from collections.abc import Mapping

from birthmark.swarm.model import DeviceGroup, DeviceMetrics, Fault, Judgement, SwarmState, SwarmVerdict

DESERVED: Mapping[Fault, SwarmVerdict] = {
    Fault.OTHER_NAME: SwarmVerdict.STOPPED,
    Fault.OTHER_TOPIC: SwarmVerdict.STOPPED,
    Fault.OVERSIZED: SwarmVerdict.STOPPED,
    Fault.GARBAGE: SwarmVerdict.STOPPED,
    Fault.HALF_OPEN: SwarmVerdict.STOPPED,
    Fault.EXPIRED: SwarmVerdict.STOPPED,
    Fault.REVOKED: SwarmVerdict.STOPPED,
    Fault.CLOCK_SKEW: SwarmVerdict.STOPPED,
    Fault.NO_ACK: SwarmVerdict.TOLERATED,
    Fault.DUPLICATE: SwarmVerdict.STOPPED,
    Fault.RENEW_OTHER: SwarmVerdict.STOPPED,
}
_ALIVE = frozenset({SwarmState.CONNECTED, SwarmState.SENDING, SwarmState.RENEWING, SwarmState.DONE})


def expected_of(group: DeviceGroup, fault: Fault) -> SwarmVerdict:
    """Return the expected reaction of the target: from the scenario, or the default of the fault."""
    return dict(group.expect).get(fault, DESERVED[fault])


def judge(tally: DeviceMetrics, group: DeviceGroup, now: float) -> Judgement:
    """Evaluate a device at the end of the run."""
    why = _trouble_of(tally, group, now) if tally.fault is None else _surprise_of(tally, group, tally.fault)
    return Judgement(held=not why, why=why)


def _surprise_of(tally: DeviceMetrics, group: DeviceGroup, fault: Fault) -> str:
    wanted = expected_of(group, fault)
    return "" if tally.verdict is wanted else f"{fault}: {tally.verdict}, expected {wanted}"


def _trouble_of(tally: DeviceMetrics, group: DeviceGroup, now: float) -> str:
    """Return the problem of a well-behaved device; pending operations may take up to the group's patience."""
    spent_s, is_sending = now - tally.since_s, tally.state is SwarmState.SENDING
    is_late = spent_s > group.patience_s
    if not tally.connects:
        return f"never connected: {tally.last_error or 'the run was too short, or its ramp too steep'}"
    if tally.state is SwarmState.REFUSED:
        return f"refused: {tally.last_error}"
    if tally.state not in _ALIVE and not tally.is_planned and is_late:
        return f"not back after {spent_s:.0f} s: {tally.last_error or tally.state}"
    if is_sending and is_late:
        return f"no acknowledgement for {spent_s:.0f} s"
    return "no message was acknowledged" if tally.sent > is_sending and not tally.acknowledged else ""
