"""Actions on one or many devices: first a preview for each row, then the results."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.operator_api.page_api_client import ApiOperation, SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form, read_many
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import ONCE, FormUnfitError, PageRenderer

MOST = 100
"""Maximum number of devices per action: a page of a list, with a margin."""
_DISABLE, _ENABLE, _REVOKE = "disable", "enable", "revoke"
DEEDS: Mapping[str, str] = {
    _DISABLE: mark_for_translation("Disable these devices"),
    _ENABLE: mark_for_translation("Enable these devices"),
    _REVOKE: mark_for_translation("Revoke these devices"),
}
_OF_ONE: Mapping[str, str] = {
    _DISABLE: mark_for_translation("Disable this device"),
    _ENABLE: mark_for_translation("Enable this device"),
    _REVOKE: mark_for_translation("Revoke this device"),
}


@dataclass(frozen=True, slots=True)
class ActionRow:
    """Expected or actual result for a part of a device."""

    device: str
    place: str
    what: str
    became: str
    note: str = ""
    command: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class BulkActionPages:
    """Preview and result pages of device actions."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/take-back", self.one),
            route("/bulk", self.look, "POST"),
            route("/bulk/do", self.carry_out, "POST"),
        ]

    async def one(self, request: Request, caller: SignedInUser) -> Response:
        """Preview the revocation of one device."""
        return await self._preview(request, caller, _REVOKE, [request.query_params.get("device", "")])

    async def look(self, request: Request, caller: SignedInUser) -> Response:
        """Preview an action on the selected devices."""
        await self.site.form(request)
        deed, names = _chosen(await read_many(request))
        return await self._preview(request, caller, deed, names)

    async def carry_out(self, request: Request, caller: SignedInUser) -> Response:
        """Execute the action for each device; a refusal does not affect the other devices."""
        given = await self.site.form(request)
        deed, names = _chosen(await read_many(request))
        rows: list[ActionRow] = []
        for number, name in enumerate(names):
            try:
                rows += await self._done(caller, {**given, ONCE: f"{given.get(ONCE, '')}-{number}"}, deed, name)
            except BirthmarkError as error:
                self.site.note(error, request)
                rows.append(
                    ActionRow(
                        name, "", "", translate("not executed"), str(error), error.explain_for_display()[1], "bad"
                    )
                )
        values = {
            "deed": deed,
            "title": translate((_OF_ONE if len(names) == 1 else DEEDS)[deed]),
            "rows": rows,
            "names": names,
            "is_done": True,
            **_command(deed, names),
        }
        return await self.site.draw(request, caller, "taking.html", values | {"reasons": ()})

    async def _preview(self, request: Request, caller: SignedInUser, deed: str, names: Sequence[str]) -> Response:
        rows: list[ActionRow] = []
        for name in names:
            try:
                rows += await self._would(caller, deed, name)
            except BirthmarkError as error:
                rows.append(
                    ActionRow(
                        name, "", "", translate("not possible"), str(error), error.explain_for_display()[1], "bad"
                    )
                )
        reasons = [one.value for one in RevocationReason] if deed == _REVOKE else []
        values = {
            "deed": deed,
            "title": translate((_OF_ONE if len(names) == 1 else DEEDS)[deed]),
            "rows": rows,
            "names": names,
            "is_done": False,
            **_command(deed, names),
        }
        return await self.site.draw(request, caller, "taking.html", values | {"reasons": reasons})

    async def _would(self, caller: SignedInUser, deed: str, name: str) -> Sequence[ActionRow]:
        if deed == _REVOKE:
            told = await self.site.inside.read(caller, "/devices/{name}/revoke", {"dry_run": True}, name)
            return [_taken(name, one) for one in told]
        is_on = deed == _ENABLE
        rows = []
        for part in await self._at_hubs(caller, name):
            state = part["state"] == "enabled"
            words = (
                translate("no change")
                if state == is_on
                else translate("would be enabled")
                if is_on
                else translate("would be disabled")
            )
            ends = "" if is_on or state == is_on else translate("the device is disconnected immediately")
            rows.append(
                ActionRow(name, part["place"], part["what"], words, ends, kind="off" if state == is_on else "warn")
            )
        return rows or [
            ActionRow(
                name,
                "",
                "",
                translate("no change"),
                translate("The device is not registered in any hub of this server."),
                kind="off",
            )
        ]

    async def _done(self, caller: SignedInUser, form: Form, deed: str, name: str) -> Sequence[ActionRow]:
        key = form[ONCE]
        if deed == _REVOKE:
            body = {"reason": form.get("reason") or RevocationReason.KEY_COMPROMISE.value}
            told = await self.site.inside.do(
                caller, ApiOperation("POST", "/devices/{name}/revoke", (name,), body, key=key)
            )
            return [_taken(name, one) for one in told]
        is_on = deed == _ENABLE
        rows = []
        for number, part in enumerate(await self._at_hubs(caller, name)):
            hub = part["place"].removeprefix("hub ")
            path = "/hubs/{name}/devices/{device}"
            await self.site.inside.do(
                caller, ApiOperation("PATCH", path, (hub, part["id"]), {"enabled": is_on}, key=f"{key}-{number}")
            )
            words = translate("enabled") if is_on else translate("disabled")
            rows.append(ActionRow(name, part["place"], part["what"], words))
        return rows

    async def _at_hubs(self, caller: SignedInUser, name: str) -> Sequence[Mapping[str, Any]]:
        parts = await self.site.inside.ask(caller, "/devices/{name}", name)
        return [part for part in parts if part["what"] == "device" and part["place"].startswith("hub ")]


def _chosen(given: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str]]:
    """Return the action and the selected devices. Raise `FormUnfitError`."""
    deed, names = next(iter(given.get("deed", ())), ""), list(dict.fromkeys(given.get("device", ())))
    if deed not in DEEDS:
        raise FormUnfitError(detail="nothing is to be done")
    if not names:
        raise FormUnfitError(detail="no device is selected: go back and select devices")
    if len(names) > MOST:
        raise FormUnfitError(detail=f"for more than {MOST} devices at once, use a command: `birthmark device --help`")
    return deed, names


def _command(deed: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return the equivalent commands for single devices."""
    kind = "device" if deed == _REVOKE else "hub device"
    return {"command_line": f"birthmark {kind} {deed} {shlex.quote(names[0])}" if len(names) == 1 else ""}


def _taken(name: str, values: Mapping[str, Any]) -> ActionRow:
    kind = {"failed": "bad", "left": "off"}.get(values["became"], "warn")
    return ActionRow(
        name,
        values["place"],
        f"{values['what']} {values['id']}",
        values["became"],
        values["note"],
        values["command"],
        kind,
    )
