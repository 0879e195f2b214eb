"""*Exchange of the root*: at which step it stands, what each means for devices, and what the next one waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permissions import Right
from birthmark.ca.rules.rollover import Phase
from birthmark.iam.model import SERVER
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.sign_in_handlers import Form
from birthmark.webconsole.i18n import say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import PageRenderer

_ONE = "one root"
_START, _NEXT, _BACK, _GROUPS = "start", "next", "back", "groups"
_AT = "/certificates/rollover"


@dataclass(frozen=True, slots=True)
class RolloverStep:
    """A state of an exchange: what it is called, who is trusted and signs, what it means, what the next one does."""

    state: str
    title: str
    trusted: str
    signs: str
    means: str
    forward: str = ""
    """What the button does that leads to the next one."""
    back: str = ""


STEPS: Sequence[RolloverStep] = (
    RolloverStep(
        _ONE,
        marked("One root"),
        marked("the old"),
        marked("the old"),
        marked("Every device knows the one root there is."),
        marked("Make the new root, and trust both"),
    ),
    RolloverStep(
        Phase.OLD_SIGNS.value,
        marked("Both are trusted, the old one signs"),
        marked("both"),
        marked("the old"),
        marked("Devices fetch the new root when they renew. Nothing else changes for them."),
        marked("Let the new root sign"),
        marked("Give the new root up"),
    ),
    RolloverStep(
        Phase.NEW_SIGNS.value,
        marked("Both are trusted, the new one signs"),
        marked("both"),
        marked("the new"),
        marked("Devices get certificates below the new root when they renew; who knows the old one is served, too."),
        marked("End the trust in the old root"),
        marked("Let the old root sign again"),
    ),
    RolloverStep(
        Phase.FINISHED.value,
        marked("The new one alone"),
        marked("the new"),
        marked("the new"),
        marked("A device that was offline the whole time trusts only the old root and needs the new one manually."),
        back=marked("Trust the old root again"),
    ),
)
DONE: Mapping[str, str] = {
    _START: marked("The new root is there, and both are trusted."),
    _NEXT: marked("The next step is taken."),
    _BACK: marked("The last step is undone."),
    _GROUPS: marked("The enrollment groups know both."),
}


@dataclass(frozen=True, slots=True)
class StepGate:
    """What a step waits for, and whether that has come."""

    words: str
    is_open: bool
    value: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class RolloverPage:
    """The page."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [self.site.route(_AT, self.show), self.site.route(_AT, self.go_on, "POST")]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw how it stands."""
        row = await self.site.inside.ask(who, "/ca/rollover")
        at = place_of(row["state"])
        gates = gates_of(row)
        values = {
            "row": row,
            "at": at,
            "takes_two": who.caller.user is not None,
            "may": who.caller.rights.allow(Right.TRUST, SERVER),
            "steps": [
                {name: say(getattr(one, name)) if getattr(one, name) else "" for name in RolloverStep.__slots__}
                for one in STEPS
            ],
            "gates": gates,
            "is_open": all(gate.is_open for gate in gates),
            "within_reach": int(100 * share_of(row)),
        }
        return await self.site.draw(request, who, "rollover.html", values)

    async def go_on(self, request: Request, who: SignedInUser) -> Response:
        """Take a step; of two who saw the same state the later one is told. Raise why it is too early."""
        given = await self.site.form(request)
        deed = given.get("deed", "")
        if deed not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        state = given.get("state", "")
        bodies: Mapping[str, Mapping[str, Any]] = {
            _NEXT: {"share": _share(given), "state": state},
            _BACK: {"state": state},
        }
        await self.site.do(who, given, "POST", f"/ca/rollover/{deed}", **bodies.get(deed, {}))
        return self.site.go(_AT, said=say(DONE[deed]))


def place_of(state: str) -> int:
    """Return which of the steps it is."""
    return next((at for at, one in enumerate(STEPS) if one.state == state), 0)


def share_of(row: Mapping[str, Any]) -> float:
    """Return the part of the devices that know both roots."""
    return row["fetched"] / row["devices"] if row["devices"] else 1.0


def gates_of(row: Mapping[str, Any]) -> Sequence[StepGate]:
    """Return what the next step waits for."""
    groups = StepGate(say("Every enrollment group knows the new CA."), is_open=not row["groups"])
    if row["state"] == Phase.OLD_SIGNS.value:
        words = say("Every device was handed both roots.")
        return [StepGate(words, row["fetched"] >= row["devices"], row["fetched"], row["devices"]), groups]
    if row["state"] == Phase.NEW_SIGNS.value:
        words, devices = say("The latest certificate of every device is below the new root."), row["below_old"]
        total = row["below_old"] + row["below_new"]
        return [groups, StepGate(words, devices == 0, row["below_new"], total)]
    return []


def _share(given: Form) -> float:
    try:
        return float(given.get("share") or 100) / 100
    except ValueError as error:
        raise OperatorRequestError(detail="the part of the devices is a number of percent, 1 to 100") from error
