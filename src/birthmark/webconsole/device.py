"""*A device*: its life on one line, what it is, both clouds' documents side by side, messages, and what to do next."""

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.clock import Clock
from birthmark.errors import NotFoundError
from birthmark.operator_api.in_process_client import SignedInUser
from birthmark.operator_api.sign_in_handlers import Form
from birthmark.untrusted_text import decode_json, whole_number
from birthmark.webconsole.device_timeline import draw, lanes_of
from birthmark.webconsole.i18n import say
from birthmark.webconsole.labels import kind_of, words_of
from birthmark.webconsole.next_steps import is_refused, next_steps
from birthmark.webconsole.page_base import FormUnfitError, PageRenderer
from birthmark.webconsole.refusal_texts import localize_refusal

_HAPPENED, _REFUSALS, _MESSAGES = 100, 20, 10
_MAX_SHOWN = 16 * 1024


@dataclass(frozen=True, slots=True)
class DevicePage:
    """One device."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the routes: the page, its messages, and what one does to a device."""
        route = self.site.route
        return [
            route("/devices/{name:path}", self.show),
            route("/messages/{hub}/{name:path}", self.messages),
            route("/deed/message", self.send, "POST"),
            route("/deed/method", self.call, "POST"),
            route("/deed/desired", self.desire, "POST"),
        ]

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw it, as far as who looks may see. Raise `DeviceNotOnRecordError`."""
        name, inside, now = request.path_params["name"], self.site.inside, self.clock.now()
        parts = await inside.ask(who, "/devices/{name}", name)
        refusals = await inside.look(who, "/refusals", subject=name, limit=_REFUSALS)
        certificates = await inside.look(who, "/certificates", subject=name)
        happened = await inside.look(who, "/audit/latest", subject=name, limit=_HAPPENED)
        came = await inside.look(who, "/connections", subject=name, limit=_HAPPENED)
        known = {
            "refusals": [] if refusals is None else [localize_refusal(one) for one in refusals.items],
            "certificates": [] if certificates is None else certificates.items,
        }
        rows, noticed = happened.items if happened else (), came.items if came else ()
        drawn, lived = draw(lanes_of(known["certificates"], rows, noticed, known["refusals"], now), now)
        well = well_at(rows, noticed)
        values = {
            "name": name,
            "parts": parts,
            "standing": standing(parts, is_refused=is_refused(known["refusals"], well)),
            "steps": next_steps(parts, **known, now=now, quoted=shlex.quote(name), was_well_at=well),
            "documents": await self._documents(who, parts),
            "hubs": [await self._at_hub(who, part) for part in parts if part["what"] == "device"],
            "history": history(rows, noticed, known["refusals"]),
            "quoted": shlex.quote(name),
            "life": drawn,
            "life_rows": lived,
            **known,
        }
        return await self.site.draw(request, who, "device.html", values)

    async def _at_hub(
        self, who: SignedInUser, part: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any], Sequence[Any], Sequence[Any]]:
        """Return a device's hub, what it is there, its modules, and the certificates by which it was known."""
        hub, name, inside = part["place"].removeprefix("hub "), part["id"], self.site.inside
        modules = known = None
        with contextlib.suppress(NotFoundError):  # what was there a moment ago
            modules = await inside.look(who, "/hubs/{name}/modules/{device}", hub, name)
            known = await inside.look(who, "/hubs/{name}/thumbprints/{device}", hub, name)
        return hub, part, ([] if modules is None else modules.items), ([] if known is None else known.items)

    async def _documents(self, who: SignedInUser, parts: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return twin and shadow, in the same shape: what is desired, what is reported, and what is not yet so."""
        found: list[Mapping[str, Any]] = []
        for part in parts:
            with contextlib.suppress(NotFoundError):
                if part["what"] == "device" and part["place"].startswith("hub "):
                    hub = part["place"].removeprefix("hub ")
                    twin = await self.site.inside.look(who, "/hubs/{name}/twins/{device}", hub, part["id"])
                    if twin is not None:
                        found.append(document_of_twin(hub, part["id"], twin))
                if part["what"] == "thing":
                    shadow = await self.site.inside.look(who, "/aws/shadows/{shadow}", part["id"])
                    if shadow is not None:
                        found.append(document_of_shadow(part["id"], shadow))
        return found

    async def messages(self, request: Request, who: SignedInUser) -> Response:
        """Draw the latest messages of a device at a hub."""
        hub, name = request.path_params["hub"], request.path_params["name"]
        found = await self.site.inside.ask(who, "/hubs/{name}/messages", hub, device=name, limit=_MESSAGES)
        rows = [{**row, "text": str(row["body"])[:_MAX_SHOWN]} for row in reversed(found.items)]
        return self.site.drawing.page(request, "messages.html", {"rows": rows, "hub": hub, "name": name})

    async def send(self, request: Request, who: SignedInUser) -> Response:
        """Send a device a message."""
        given = await self.site.form(request)
        hub, name = given.get("hub", ""), given.get("device", "")
        await self.site.do(who, given, "POST", "/hubs/{name}/mail/{device}", hub, name, text=given.get("text", ""))
        return self._answer(request, given, say("It waits for the device, which takes it when it is connected."))

    async def call(self, request: Request, who: SignedInUser) -> Response:
        """Call a method of a device, and show what it answers."""
        given = await self.site.form(request)
        hub, name, payload = given.get("hub", ""), given.get("device", ""), given.get("payload", "").strip()
        body = {"method": given.get("method", ""), "payload": _json(payload) if payload else None}
        told = await self.site.do(who, given, "POST", "/hubs/{name}/methods/{device}", hub, name, **body)
        text = say("The device answered {status}").format(status=told["status"])
        return self._answer(request, given, text, json.dumps(told["payload"], ensure_ascii=False, indent=2))

    async def desire(self, request: Request, who: SignedInUser) -> Response:
        """Change what is desired of a device, where it is still as it was looked at."""
        given = await self.site.form(request)
        wanted = _json(given.get("desired", ""))
        if given.get("shadow"):
            body = {"desired": wanted, "version": whole_number(given.get("version", ""))}
            await self.site.do(who, given, "PATCH", "/aws/shadows/{shadow}", given["shadow"], **body)
        else:
            hub, name = given.get("hub", ""), given.get("device", "")
            body = {"desired": wanted, "etag": given.get("etag") or None}
            await self.site.do(who, given, "PATCH", "/hubs/{name}/twins/{device}", hub, name, **body)
        return self._again(request, given, say("That is desired now."))

    def _again(self, request: Request, given: Form, said: str) -> Response:
        """Show the page of the device anew, with what was done: what it shows is another thing now."""
        response = self.site.go(_page_of(given), said=said)
        if "hx-request" in request.headers:
            response.status_code, response.headers["hx-redirect"] = 200, response.headers["location"]
            del response.headers["location"]
        return response

    def _answer(self, request: Request, given: Form, said: str, more: str = "") -> Response:
        """Say at the place that was pressed what came of it; without script, on the page of the device."""
        if "hx-request" in request.headers:
            return self.site.drawing.page(request, "answer.html", {"said": said, "more": more[:_MAX_SHOWN]})
        return self.site.go(_page_of(given), said=f"{said} {more}".strip())


def _page_of(given: Form) -> str:
    """Return the address of the page that a form is of."""
    return f"/devices/{quote(given.get('name') or given.get('device', ''), safe='')}"


def _json(text: str) -> Any:
    """Return what somebody typed. Raise `FormUnfitError`."""
    try:
        return decode_json(text.encode())
    except (ValueError, RecursionError) as error:
        raise FormUnfitError(detail=f"that is no JSON: {error}") from error


_WELL = frozenset({"dps.register", "device.connect", "certificate.issue", "certificate.comeback"})


def well_at(*told: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return when a device was let in last, of what is told of it."""
    return max(
        (datetime.fromisoformat(row["at"]) for rows in told for row in rows if row["action"] in _WELL), default=None
    )


def standing(parts: Sequence[Mapping[str, Any]], *, is_refused: bool = False) -> tuple[str, str]:
    """Return in a word how a device is, and how that is marked."""
    states = {part["state"] for part in parts}
    details = " ".join(part["detail"] for part in parts if part["what"] == "device")
    if "shut out" in states:
        return say("revoked"), "bad"
    if "connected since" in details:
        return say("connected"), ""
    if any(part["state"] == "disabled" for part in parts):
        return say("disabled"), "off"
    if is_refused:
        return say("refused"), "bad"
    if any(part["what"] == "registration" for part in parts) or "last seen" in details:
        return say("away"), "warn"
    return say("never registered") if any(part["what"] == "enrollment" for part in parts) else say("registered"), "off"


def document_of_twin(hub: str, device: str, twin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a twin as the page shows documents."""
    desired, reported = twin["properties"]["desired"], twin["properties"]["reported"]
    fields = compared(_own(desired), _own(reported))
    told = {"kind": "twin", "title": f"hub {hub}", "etag": twin.get("etag"), "version": twin.get("version")}
    return {**told, "hub": hub, "device": device, "fields": fields, "tags": twin.get("tags") or {}, "shadow": ""}


def document_of_shadow(thing: str, shadow: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a shadow as the page shows documents."""
    state = shadow.get("state", {})
    fields = compared(state.get("desired") or {}, state.get("reported") or {})
    told = {"kind": "shadow", "title": "aws", "etag": None, "version": shadow.get("version")}
    return {**told, "hub": "", "device": thing, "fields": fields, "tags": {}, "shadow": thing}


def compared(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return every key of both documents with both values, and whether what is desired is so."""
    rows = []
    for key in sorted({*desired, *reported}):
        row = {"key": key, "desired": _text(desired, key), "reported": _text(reported, key)}
        rows.append({**row, "differs": key in desired and desired[key] != reported.get(key)})
    return rows


def _own(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in properties.items() if not key.startswith("$")}


def _text(document: Mapping[str, Any], key: str) -> str | None:
    return json.dumps(document[key], ensure_ascii=False) if key in document else None


def history(
    happened: Sequence[Mapping[str, Any]],
    came: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, Any]],
) -> Sequence[Mapping[str, Any]]:
    """Return what happened to a device in words, the latest first; a refusal once, with what it says."""
    rows: list[dict[str, Any]] = []
    for row in (*happened, *came):
        if row["action"] == "device.refuse":
            continue  # the refusal itself tells more
        told = {"words": words_of(row["action"], row["detail"]), "kind": kind_of(row["action"])}
        rows.append({"at": row["at"], "who": row["actor"], "detail": _detail(row["detail"]), "id": "", **told})
    for one in refusals:
        told = {"words": words_of("device.refuse", {}), "kind": "bad", "id": one["id"]}
        rows.append({"at": one["at"], "who": "", "detail": f"{one['message']} ({one['code']})", **told})
    return _grouped(sorted(rows, key=lambda row: datetime.fromisoformat(row["at"]), reverse=True)[:_HAPPENED])


def _grouped(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return refusals that say the same, with nothing between them, as the latest of them and how many there are."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if found and row["id"] and found[-1]["id"] and found[-1]["detail"] == row["detail"]:
            found[-1]["times"] += 1
        else:
            found.append({**row, "times": 1})
    return found


_TELLS = ("place", "hub", "from", "reason", "profile", "not_after", "scope", "what", "status", "name")
"""What of an action's facts a page says, in this order; the audit trail has all."""


def _detail(detail: Mapping[str, Any]) -> str:
    told = [
        f"{key} {detail[key]}"
        for key in _TELLS
        if detail.get(key) not in {None, ""} and not isinstance(detail[key], dict | list)
    ]
    return ", ".join(told)
