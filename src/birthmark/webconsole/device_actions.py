"""What is done to devices, one or many: first what would happen, row by row, then what happened."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError
from birthmark.operator_api.in_process_client import ApiOperation, SignedInUser
from birthmark.operator_api.sign_in_handlers import Form, read_many
from birthmark.pki.crl import RevocationReason
from birthmark.webconsole.i18n import say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import ONCE, FormUnfitError, PageRenderer

MOST = 100
"""Devices of one page of a list, with room."""
_DISABLE, _ENABLE, _REVOKE = "disable", "enable", "revoke"
DEEDS: Mapping[str, str] = {
    _DISABLE: marked("Disable these devices"),
    _ENABLE: marked("Enable these devices"),
    _REVOKE: marked("Revoke these devices"),
}
_OF_ONE: Mapping[str, str] = {
    _DISABLE: marked("Disable this device"),
    _ENABLE: marked("Enable this device"),
    _REVOKE: marked("Revoke this device"),
}


@dataclass(frozen=True, slots=True)
class ActionRow:
    """What would become, or became, of a part of a device."""

    device: str
    place: str
    what: str
    became: str
    note: str = ""
    command: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class TakingPages:
    """The preview and the deed."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self.site.route
        return [
            route("/take-back", self.one),
            route("/bulk", self.look, "POST"),
            route("/bulk/do", self.carry_out, "POST"),
        ]

    async def one(self, request: Request, who: SignedInUser) -> Response:
        """Show what taking one device back would do."""
        return await self._preview(request, who, _REVOKE, [request.query_params.get("device", "")])

    async def look(self, request: Request, who: SignedInUser) -> Response:
        """Show what a deed would do to the chosen devices."""
        await self.site.form(request)
        deed, names = _chosen(await read_many(request))
        return await self._preview(request, who, deed, names)

    async def carry_out(self, request: Request, who: SignedInUser) -> Response:
        """Do it, device by device; one that is refused leaves the others be."""
        given = await self.site.form(request)
        deed, names = _chosen(await read_many(request))
        rows: list[ActionRow] = []
        for number, name in enumerate(names):
            try:
                rows += await self._done(who, {**given, ONCE: f"{given.get(ONCE, '')}-{number}"}, deed, name)
            except BirthmarkError as error:
                self.site.note(error, request)
                rows.append(ActionRow(name, "", "", say("not done"), str(error), error.explain_apart()[1], "bad"))
        values = {
            "deed": deed,
            "title": say((_OF_ONE if len(names) == 1 else DEEDS)[deed]),
            "rows": rows,
            "names": names,
            "is_done": True,
            **_command(deed, names),
        }
        return await self.site.draw(request, who, "taking.html", values | {"reasons": ()})

    async def _preview(self, request: Request, who: SignedInUser, deed: str, names: Sequence[str]) -> Response:
        rows: list[ActionRow] = []
        for name in names:
            try:
                rows += await self._would(who, deed, name)
            except BirthmarkError as error:
                rows.append(ActionRow(name, "", "", say("cannot be done"), str(error), error.explain_apart()[1], "bad"))
        reasons = [one.value for one in RevocationReason] if deed == _REVOKE else []
        values = {
            "deed": deed,
            "title": say((_OF_ONE if len(names) == 1 else DEEDS)[deed]),
            "rows": rows,
            "names": names,
            "is_done": False,
            **_command(deed, names),
        }
        return await self.site.draw(request, who, "taking.html", values | {"reasons": reasons})

    async def _would(self, who: SignedInUser, deed: str, name: str) -> Sequence[ActionRow]:
        if deed == _REVOKE:
            told = await self.site.inside.read(who, "/devices/{name}/revoke", {"dry_run": True}, name)
            return [_taken(name, one) for one in told]
        is_on = deed == _ENABLE
        rows = []
        for part in await self._at_hubs(who, name):
            state = part["state"] == "enabled"
            words = (
                say("stays as it is")
                if state == is_on
                else say("would be enabled")
                if is_on
                else say("would be disabled")
            )
            ends = "" if is_on or state == is_on else say("its connection ends at once")
            rows.append(
                ActionRow(name, part["place"], part["what"], words, ends, kind="off" if state == is_on else "warn")
            )
        return rows or [
            ActionRow(name, "", "", say("stays as it is"), say("It is at no hub of this server."), kind="off")
        ]

    async def _done(self, who: SignedInUser, given: Form, deed: str, name: str) -> Sequence[ActionRow]:
        key = given[ONCE]
        if deed == _REVOKE:
            body = {"reason": given.get("reason") or RevocationReason.KEY_COMPROMISE.value}
            told = await self.site.inside.do(
                who, ApiOperation("POST", "/devices/{name}/revoke", (name,), body, key=key)
            )
            return [_taken(name, one) for one in told]
        is_on = deed == _ENABLE
        rows = []
        for number, part in enumerate(await self._at_hubs(who, name)):
            hub = part["place"].removeprefix("hub ")
            path = "/hubs/{name}/devices/{device}"
            await self.site.inside.do(
                who, ApiOperation("PATCH", path, (hub, part["id"]), {"enabled": is_on}, key=f"{key}-{number}")
            )
            words = say("enabled") if is_on else say("disabled")
            rows.append(ActionRow(name, part["place"], part["what"], words))
        return rows

    async def _at_hubs(self, who: SignedInUser, name: str) -> Sequence[Mapping[str, Any]]:
        parts = await self.site.inside.ask(who, "/devices/{name}", name)
        return [part for part in parts if part["what"] == "device" and part["place"].startswith("hub ")]


def _chosen(given: Mapping[str, Sequence[str]]) -> tuple[str, Sequence[str]]:
    """Return what is to be done to which devices. Raise `FormUnfitError`."""
    deed, names = next(iter(given.get("deed", ())), ""), list(dict.fromkeys(given.get("device", ())))
    if deed not in DEEDS:
        raise FormUnfitError(detail="nothing is to be done")
    if not names:
        raise FormUnfitError(detail="no device is chosen: go back, and choose some")
    if len(names) > MOST:
        raise FormUnfitError(detail=f"more than {MOST} devices at once are for a command: `birthmark device --help`")
    return deed, names


def _command(deed: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return the same as it is typed, of one device."""
    kind = "device" if deed == _REVOKE else "hub device"
    return {"command_line": f"birthmark {kind} {deed} {shlex.quote(names[0])}" if len(names) == 1 else ""}


def _taken(name: str, one: Mapping[str, Any]) -> ActionRow:
    kind = {"failed": "bad", "left": "off"}.get(one["became"], "warn")
    return ActionRow(name, one["place"], f"{one['what']} {one['id']}", one["became"], one["note"], one["command"], kind)
