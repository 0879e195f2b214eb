"""Operator API of root rollover: status and steps."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.ca.hierarchy import Generation
from birthmark.ca.root_rollover import Rollovers
from birthmark.ca.rules.root_rollover import NoRolloverError, RolloverProgress, RolloverState
from birthmark.operator_api.api_router import ApiRequest, Endpoint, always
from birthmark.operator_api.name_validation import OperatorRequestError

Teach = Callable[[Generation, Generation, str], Awaitable[Sequence[str]]]


class StandingQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whether devices are counted, too; for a million certificates this takes seconds."""

    measured: bool = True


class NextStep(msgspec.Struct):
    """Required fraction of devices that trust both roots before the new one signs."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    state: str | None = None
    """Expected state; if the current state differs, nothing is done. Required for users."""


class StepBack(msgspec.Struct):
    """`state` is the expected state; if the current state differs, nothing is done."""

    state: str | None = None


def rollover_endpoints(rollovers: Rollovers, teach: Teach) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki rollover`. `teach` adds the new CA to enrollment groups."""

    async def status(request: ApiRequest) -> Any:
        query: StandingQuery = request.query
        return await current() if query.measured else _view(rollovers, rollovers.current, None)

    async def current() -> Any:
        rollover, progress = await rollovers.status()
        return _view(rollovers, rollover, progress)

    async def start(request: ApiRequest) -> Any:
        await rollovers.start(request.actor)
        return await current()

    async def forward(request: ApiRequest) -> Any:
        body: NextStep = request.body
        await rollovers.step_forward(body.share, request.actor, body.state)
        return await current()

    async def back(request: ApiRequest) -> Any:
        body: StepBack = request.body
        await rollovers.step_back(request.actor, body.state)
        return await current()

    async def groups(request: ApiRequest) -> Any:
        rollover, _ = await rollovers.status()
        if rollover is None:
            raise NoRolloverError
        old, new = (rollovers.roots.generation(root) for root in (rollover.old, rollover.new))
        return {"groups": list(await teach(old, new, request.actor))}

    at, trust = "/ca/rollover", Right.TRUST
    return [
        Endpoint("GET", at, Right.READ, "Return the state of the root rollover.", status, query=StandingQuery),
        Endpoint(
            "POST",
            f"{at}/start",
            trust,
            "Start the root rollover: create the new root and trust both.",
            start,
            is_final=always,
        ),
        Endpoint(
            "POST", f"{at}/next", trust, "Advance the root rollover.", forward, NextStep, is_final=_check_expected_state
        ),
        Endpoint("POST", f"{at}/back", trust, "Undo the last step of the root rollover.", back, StepBack),
        Endpoint("POST", f"{at}/groups", trust, "Add both CAs to the enrollment groups.", groups),
    ]


async def _check_expected_state(request: ApiRequest) -> bool:
    """Return True: a step is irreversible.

    Raise `OperatorRequestError` if a user names no state: an approval applies to one step, and the next may differ.
    """
    if request.caller.user is not None and request.body.state is None:
        raise OperatorRequestError(detail="`state` must be the state at the time of the decision, for the approver")
    return True


def _view(rollovers: Rollovers, current: RolloverState | None, progress: RolloverProgress | None) -> dict[str, Any]:
    signing = rollovers.hierarchy.anchor
    view: dict[str, Any] = {
        "state": "one root" if current is None else current.phase.value,
        "signs": signing.subject_text,
        "signs_until": signing.not_after.isoformat(),
        "trusted": [one.thumbprint.hex() for one in rollovers.hierarchy.anchors],
    }
    if progress is not None:
        view |= {
            "devices": progress.devices,
            "fetched": progress.fetched,
            "below_old": progress.below_old,
            "below_new": progress.below_new,
            "last_below_old": None if progress.last_below_old is None else progress.last_below_old.isoformat(),
            "missing": list(progress.missing),
            "groups": list(progress.groups),
        }
    if current is not None:
        view |= {
            "old": current.old.hex(),
            "new": current.new.hex(),
            "started_at": current.started_at.isoformat(),
            "changed_at": current.changed_at.isoformat(),
        }
    return view
