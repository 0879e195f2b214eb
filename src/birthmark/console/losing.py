"""The operator interface of a lost device: everything of it is taken back by one request."""

from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import msgspec

from birthmark.auth.principals import Principal
from birthmark.auth.rights import Right
from birthmark.console.devices import Sees
from birthmark.console.names import OperatorRequestError
from birthmark.console.routing import Asked, Endpoint
from birthmark.console.taken import Taken
from birthmark.pki.crl import RevocationReason


class TakeBack(Protocol):
    """Takes a device back at every place of this server where that may be done."""

    def __call__(
        self, name: str, principal: Principal, reason: RevocationReason, *, may: Sees, dry_run: bool, block: bool
    ) -> Awaitable[Sequence[Taken]]: ...


class LossQuestion(msgspec.Struct):
    """Why it is taken back; `dry_run` changes nothing, `block` shuts out a name of which nothing is on record."""

    reason: str = RevocationReason.KEY_COMPROMISE.value
    dry_run: bool = False
    block: bool = False


def reason_of(text: str) -> RevocationReason:
    """Return the reason. Raise `OperatorRequestError`."""
    try:
        return RevocationReason(text)
    except ValueError as error:
        known = ", ".join(r.value for r in RevocationReason)
        raise OperatorRequestError(detail=f"the reason must be one of {known}") from error


def losing_endpoints(take_back: TakeBack) -> Sequence[Endpoint]:
    """Return the route of `birthmark device revoke`."""

    async def revoke(asked: Asked) -> Any:
        body: LossQuestion = asked.body
        done = await take_back(
            asked["name"],
            asked.principal,
            reason_of(body.reason),
            may=lambda place: asked.caller.rights.allow(Right.REVOKE, place),
            dry_run=body.dry_run,
            block=body.block,
        )
        return [asdict(one) for one in done]

    summary = "Take everything of a device back."
    return [Endpoint("POST", "/devices/{name:path}/revoke", Right.REVOKE, summary, revoke, LossQuestion)]
