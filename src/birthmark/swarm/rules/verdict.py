"""Whether it went as it should: what each misbehavior deserves, and what is asked of everybody else."""

from collections.abc import Mapping

from birthmark.swarm.model import Fault, Group, Judgement, State, Tally, Verdict

DESERVED: Mapping[Fault, Verdict] = {
    Fault.OTHER_NAME: Verdict.STOPPED,
    Fault.OTHER_TOPIC: Verdict.STOPPED,
    Fault.OVERSIZED: Verdict.STOPPED,
    Fault.GARBAGE: Verdict.STOPPED,
    Fault.HALF_OPEN: Verdict.STOPPED,
    Fault.EXPIRED: Verdict.STOPPED,
    Fault.REVOKED: Verdict.STOPPED,
    Fault.CLOCK_SKEW: Verdict.STOPPED,
    Fault.NO_ACK: Verdict.TOLERATED,
    Fault.DUPLICATE: Verdict.STOPPED,
    Fault.RENEW_OTHER: Verdict.STOPPED,
}
_ALIVE = frozenset({State.CONNECTED, State.SENDING, State.RENEWING, State.DONE})


def expected_of(group: Group, fault: Fault) -> Verdict:
    """Return what the target is expected to do: as the scenario says, else as is deserved."""
    return dict(group.expect).get(fault, DESERVED[fault])


def judge(tally: Tally, group: Group, now: float) -> Judgement:
    """Judge a device at the end of the run."""
    if tally.fault is not None:
        wanted = expected_of(group, tally.fault)
        told = f"{tally.fault}: {tally.verdict}, expected {wanted}"
        return Judgement(tally.verdict is wanted, "" if tally.verdict is wanted else told)
    if not tally.connects:
        return Judgement(held=False, why=f"never connected: {tally.last_error or 'no time'}")
    missing_s = 0.0 if tally.state in _ALIVE or tally.is_planned else now - tally.since_s
    if missing_s > group.patience_s:
        return Judgement(held=False, why=f"not back after {missing_s:.0f} s: {tally.last_error or tally.state}")
    if tally.state is State.REFUSED:
        return Judgement(held=False, why=f"refused: {tally.last_error}")
    if group.interval_s and tally.sent and not tally.acknowledged:
        return Judgement(held=False, why="no message was acknowledged")
    return Judgement(held=True)
