"""*Root rollover*: its current step, the effect of each step on devices, and the conditions of the next one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.ca.rules.root_rollover import Phase
from birthmark.iam.model import SERVER
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import PageRenderer

_ONE = "one root"
_START, _NEXT, _BACK, _GROUPS = "start", "next", "back", "groups"
_AT = "/certificates/rollover"


@dataclass(frozen=True, slots=True)
class RolloverStep:
    """A state of a rollover: its name, trusted and signing roots, effect, and next step."""

    state: str
    title: str
    trusted: str
    signs: str
    means: str
    forward: str = ""
    """Label of the button that starts the next step."""
    back: str = ""


STEPS: Sequence[RolloverStep] = (
    RolloverStep(
        _ONE,
        mark_for_translation("Single root"),
        mark_for_translation("old root"),
        mark_for_translation("old root"),
        mark_for_translation("All devices trust the current root."),
        mark_for_translation("Create the new root and trust both"),
    ),
    RolloverStep(
        Phase.OLD_SIGNS.value,
        mark_for_translation("Both roots trusted, old root signs"),
        mark_for_translation("both roots"),
        mark_for_translation("old root"),
        mark_for_translation("Devices fetch the new root when they renew. They have no other changes."),
        mark_for_translation("Sign with the new root"),
        mark_for_translation("Discard the new root"),
    ),
    RolloverStep(
        Phase.NEW_SIGNS.value,
        mark_for_translation("Both roots trusted, new root signs"),
        mark_for_translation("both roots"),
        mark_for_translation("new root"),
        mark_for_translation(
            "Devices receive certificates that chain to the new root when they renew. Devices that trust "
            "only the old root can still connect."
        ),
        mark_for_translation("Stop trusting the old root"),
        mark_for_translation("Sign with the old root again"),
    ),
    RolloverStep(
        Phase.FINISHED.value,
        mark_for_translation("New root only"),
        mark_for_translation("new root"),
        mark_for_translation("new root"),
        mark_for_translation(
            "A device that was offline during the rollover trusts only the old root. Install the new root on it "
            "manually."
        ),
        back=mark_for_translation("Trust the old root again"),
    ),
)
DONE: Mapping[str, str] = {
    _START: mark_for_translation("The new root is created, and both roots are trusted."),
    _NEXT: mark_for_translation("The rollover advanced to the next step."),
    _BACK: mark_for_translation("The last step is undone."),
    _GROUPS: mark_for_translation("The enrollment groups now include both CAs."),
}


@dataclass(frozen=True, slots=True)
class StepGate:
    """A condition of a step, and whether it is met."""

    words: str
    is_open: bool
    value: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class RolloverPage:
    """Page of the root rollover."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [self.site.route(_AT, self.show), self.site.route(_AT, self.go_on, "POST")]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the state of the rollover."""
        row = await self.site.inside.ask(caller, "/ca/rollover")
        at = place_of(row["state"])
        gates = gates_of(row)
        values = {
            "row": row,
            "at": at,
            "takes_two": caller.caller.user is not None,
            "may": caller.caller.rights.allow(Right.TRUST, SERVER),
            "steps": [
                {name: translate(getattr(one, name)) if getattr(one, name) else "" for name in RolloverStep.__slots__}
                for one in STEPS
            ],
            "gates": gates,
            "is_open": all(gate.is_open for gate in gates),
            "within_reach": int(100 * share_of(row)),
        }
        return await self.site.draw(request, caller, "rollover.html", values)

    async def go_on(self, request: Request, caller: SignedInUser) -> Response:
        """Perform a step; of two concurrent requests the later one is refused. Raise the reason if it is too early."""
        given = await self.site.form(request)
        deed = given.get("deed", "")
        if deed not in DONE:
            raise OperatorRequestError(detail="nothing is to be done")
        state = given.get("state", "")
        bodies: Mapping[str, Mapping[str, Any]] = {
            _NEXT: {"share": _share(given), "state": state},
            _BACK: {"state": state},
        }
        await self.site.do(caller, given, "POST", f"/ca/rollover/{deed}", **bodies.get(deed, {}))
        return self.site.go(_AT, message=translate(DONE[deed]))


def place_of(state: str) -> int:
    """Return the index of a state's step."""
    return next((at for at, one in enumerate(STEPS) if one.state == state), 0)


def share_of(row: Mapping[str, Any]) -> float:
    """Return the fraction of devices that know both roots."""
    return row["fetched"] / row["devices"] if row["devices"] else 1.0


def gates_of(row: Mapping[str, Any]) -> Sequence[StepGate]:
    """Return the conditions of the next step."""
    groups = StepGate(translate("Every enrollment group includes the new CA."), is_open=not row["groups"])
    if row["state"] == Phase.OLD_SIGNS.value:
        words = translate("Every device has received both roots.")
        return [StepGate(words, row["fetched"] >= row["devices"], row["fetched"], row["devices"]), groups]
    if row["state"] == Phase.NEW_SIGNS.value:
        words, devices = translate("The latest certificate of every device chains to the new root."), row["below_old"]
        total = row["below_old"] + row["below_new"]
        return [groups, StepGate(words, devices == 0, row["below_new"], total)]
    return []


def _share(form: Form) -> float:
    try:
        return float(form.get("share") or 100) / 100
    except ValueError as error:
        raise OperatorRequestError(detail="the part of the devices is a number of percent, 1 to 100") from error
