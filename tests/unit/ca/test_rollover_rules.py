"""Which step of an exchange of the root may be taken: the whole table, forward and back."""

from dataclasses import replace

import pytest

from birthmark.ca.rules.root_rollover import (
    AnchorsMissingError,
    GroupsMissingError,
    NewStillUsedError,
    NoRolloverError,
    OldStillUsedError,
    Phase,
    RolloverProgress,
    RolloverState,
    step_back,
    step_forward,
)
from birthmark.pki.certificates import Thumbprint
from support.fakes import NOON

STARTED = RolloverState(Thumbprint(b"A" * 32), Thumbprint(b"B" * 32), Phase.OLD_SIGNS, NOON, NOON)
SWITCHED, FINISHED = replace(STARTED, phase=Phase.NEW_SIGNS), replace(STARTED, phase=Phase.FINISHED)
ALL_KNOW = RolloverProgress(devices=1000, fetched=1000, below_old=1000, below_new=0)
SOME_KNOW = replace(ALL_KNOW, fetched=900, missing=("device-7",))
NOBODY = RolloverProgress(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("now", "progress", "share", "becomes"),
    [
        (STARTED, ALL_KNOW, 1.0, Phase.NEW_SIGNS),
        (STARTED, SOME_KNOW, 0.9, Phase.NEW_SIGNS),
        (STARTED, NOBODY, 1.0, Phase.NEW_SIGNS),
        (STARTED, SOME_KNOW, 1.0, AnchorsMissingError),
        (STARTED, SOME_KNOW, 0.91, AnchorsMissingError),
        (STARTED, replace(ALL_KNOW, groups=("edge",)), 1.0, GroupsMissingError),
        (SWITCHED, replace(ALL_KNOW, below_old=0, below_new=1000), 1.0, Phase.FINISHED),
        (SWITCHED, replace(ALL_KNOW, below_old=1, below_new=999), 0.0, OldStillUsedError),
        (FINISHED, ALL_KNOW, 1.0, NoRolloverError),
    ],
)
def test_a_step_forward(now: RolloverState, progress: RolloverProgress, share: float, becomes: object) -> None:
    if isinstance(becomes, type):
        with pytest.raises(becomes):
            step_forward(now, progress, share, NOON)
        return
    after = step_forward(now, progress, share, NOON)
    assert (after.phase, after.version) == (becomes, now.version + 1)


@pytest.mark.parametrize(
    ("now", "progress", "becomes"),
    [
        (FINISHED, ALL_KNOW, Phase.NEW_SIGNS),
        (SWITCHED, replace(ALL_KNOW, below_new=500), Phase.OLD_SIGNS),
        (STARTED, ALL_KNOW, None),
        (STARTED, replace(ALL_KNOW, below_new=1), NewStillUsedError),
    ],
)
def test_a_step_back(now: RolloverState, progress: RolloverProgress, becomes: object) -> None:
    if isinstance(becomes, type):
        with pytest.raises(becomes):
            step_back(now, progress, NOON)
        return
    after = step_back(now, progress, NOON)
    assert (None if after is None else after.phase) == becomes


def test_the_refusal_says_who_is_missing_and_which_share_would_do() -> None:
    with pytest.raises(AnchorsMissingError) as refused:
        step_forward(STARTED, SOME_KNOW, 1.0, NOON)
    assert "device-7" in refused.value.explain_cause()
    assert "--share 90%" in refused.value.explain_fix()
