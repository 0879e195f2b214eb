"""*Device*: its timeline, properties, the documents of both clouds side by side, messages, and next steps."""

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

from birthmark.clock_and_entropy import Clock
from birthmark.errors import NotFoundError
from birthmark.operator_api.page_api_client import SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form
from birthmark.untrusted_json_and_text import decode_json, whole_number
from birthmark.webconsole.device_next_steps import is_refused, next_steps
from birthmark.webconsole.device_timeline import draw, lanes_of
from birthmark.webconsole.event_labels import kind_of, words_of
from birthmark.webconsole.i18n import translate
from birthmark.webconsole.page_base import FormUnfitError, PageRenderer
from birthmark.webconsole.refusal_translations import localize_refusal

_HAPPENED, _REFUSALS, _MESSAGES = 100, 20, 10
_MAX_SHOWN = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeviceAtHub:
    """A device's hub, its state, modules, past certificates and configurations there, and its IoT Edge runtime."""

    hub: str
    part: Mapping[str, Any]
    modules: Sequence[Any]
    prints: Sequence[Any]
    configurations: Sequence[Any]
    runtime: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class DevicePage:
    """The page of a device."""

    site: PageRenderer
    clock: Clock

    def routes(self) -> list[Route]:
        """Return the routes: the page, its messages, and the device's actions."""
        route = self.site.route
        return [
            route("/devices/{name:path}", self.show),
            route("/messages/{hub}/{name:path}", self.messages),
            route("/deed/message", self.send, "POST"),
            route("/deed/method", self.call, "POST"),
            route("/deed/desired", self.desire, "POST"),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the page with the data that the user may read. Raise `DeviceNotOnRecordError`."""
        name, inside, now = request.path_params["name"], self.site.inside, self.clock.now()
        parts = await inside.ask(caller, "/devices/{name}", name)
        refusals = await inside.look(caller, "/refusals", subject=name, limit=_REFUSALS)
        certificates = await inside.look(caller, "/certificates", subject=name)
        happened = await inside.look(caller, "/audit/latest", subject=name, limit=_HAPPENED)
        came = await inside.look(caller, "/connections", subject=name, limit=_HAPPENED)
        known = {
            "refusals": [] if refusals is None else [localize_refusal(one) for one in refusals.items],
            "certificates": [] if certificates is None else certificates.items,
        }
        rows, noticed = happened.items if happened else (), came.items if came else ()
        drawn, lived = draw(lanes_of(known["certificates"], rows, noticed, known["refusals"], now), now)
        well = find_last_admission(rows, noticed)
        values = {
            "name": name,
            "parts": parts,
            "standing": describe_state(parts, is_refused=is_refused(known["refusals"], well)),
            "steps": next_steps(parts, **known, now=now, quoted=shlex.quote(name), was_well_at=well),
            "documents": await self._documents(caller, parts),
            "hubs": [await self._at_hub(caller, part) for part in parts if part["what"] == "device"],
            "history": history(rows, noticed, known["refusals"]),
            "quoted": shlex.quote(name),
            "life": drawn,
            "life_rows": lived,
            **known,
        }
        return await self.site.draw(request, caller, "device.html", values)

    async def _at_hub(self, caller: SignedInUser, part: Mapping[str, Any]) -> "DeviceAtHub":
        """Return what a hub knows of a device."""
        hub, name, inside = part["place"].removeprefix("hub "), part["id"], self.site.inside
        modules = known = targeting = identity = None
        with contextlib.suppress(NotFoundError):  # may be deleted
            modules = await inside.look(caller, "/hubs/{name}/modules/{device}", hub, name)
            known = await inside.look(caller, "/hubs/{name}/thumbprints/{device}", hub, name)
            targeting = await inside.look(caller, "/hubs/{name}/devices/{device}/configurations", hub, name)
            identity = await inside.look(caller, "/hubs/{name}/identities/{identity}", hub, name)
        runtime = None if identity is None else identity.get("edgeRuntime")
        return DeviceAtHub(hub, part, _items(modules), _items(known), _items(targeting), runtime)

    async def _documents(self, caller: SignedInUser, parts: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Return twin and shadow in the same form: desired state, reported state, and differences."""
        found: list[Mapping[str, Any]] = []
        for part in parts:
            with contextlib.suppress(NotFoundError):
                if part["what"] == "device" and part["place"].startswith("hub "):
                    hub = part["place"].removeprefix("hub ")
                    twin = await self.site.inside.look(caller, "/hubs/{name}/twins/{device}", hub, part["id"])
                    if twin is not None:
                        found.append(document_of_twin(hub, part["id"], twin))
                if part["what"] == "thing":
                    shadow = await self.site.inside.look(caller, "/aws/shadows/{shadow}", part["id"])
                    if shadow is not None:
                        found.append(document_of_shadow(part["id"], shadow))
        return found

    async def messages(self, request: Request, caller: SignedInUser) -> Response:
        """Render the latest messages of a device at a hub."""
        hub, name = request.path_params["hub"], request.path_params["name"]
        found = await self.site.inside.ask(caller, "/hubs/{name}/messages", hub, device=name, limit=_MESSAGES)
        rows = [{**row, "text": str(row["body"])[:_MAX_SHOWN]} for row in reversed(found.items)]
        return self.site.drawing.page(request, "messages.html", {"rows": rows, "hub": hub, "name": name})

    async def send(self, request: Request, caller: SignedInUser) -> Response:
        """Send a message to a device."""
        given = await self.site.form(request)
        hub, name = given.get("hub", ""), given.get("device", "")
        await self.site.do(caller, given, "POST", "/hubs/{name}/mail/{device}", hub, name, text=given.get("text", ""))
        return self._answer(
            request, given, translate("The message is queued. The device receives it when it connects.")
        )

    async def call(self, request: Request, caller: SignedInUser) -> Response:
        """Call a direct method of a device, and show the result."""
        given = await self.site.form(request)
        hub, name, payload = given.get("hub", ""), given.get("device", ""), given.get("payload", "").strip()
        body = {"method": given.get("method", ""), "payload": _json(payload) if payload else None}
        told = await self.site.do(caller, given, "POST", "/hubs/{name}/methods/{device}", hub, name, **body)
        text = translate("The device returned status {status}").format(status=told["status"])
        return self._answer(request, given, text, json.dumps(told["payload"], ensure_ascii=False, indent=2))

    async def desire(self, request: Request, caller: SignedInUser) -> Response:
        """Change the desired state of a device, if it is unchanged since it was displayed."""
        given = await self.site.form(request)
        wanted = _json(given.get("desired", ""))
        if given.get("shadow"):
            body = {"desired": wanted, "version": whole_number(given.get("version", ""))}
            await self.site.do(caller, given, "PATCH", "/aws/shadows/{shadow}", given["shadow"], **body)
        else:
            hub, name = given.get("hub", ""), given.get("device", "")
            body = {"desired": wanted, "etag": given.get("etag") or None}
            await self.site.do(caller, given, "PATCH", "/hubs/{name}/twins/{device}", hub, name, **body)
        return self._again(request, given, translate("The desired state is updated."))

    def _again(self, request: Request, form: Form, message: str) -> Response:
        """Reload the device's page with the result of an action that changes its content."""
        response = self.site.go(_page_of(form), message=message)
        if "hx-request" in request.headers:
            response.status_code, response.headers["hx-redirect"] = 200, response.headers["location"]
            del response.headers["location"]
        return response

    def _answer(self, request: Request, form: Form, message: str, more: str = "") -> Response:
        """Show a result in place; without script, on the device's page."""
        if "hx-request" in request.headers:
            return self.site.drawing.page(request, "answer.html", {"said": message, "more": more[:_MAX_SHOWN]})
        return self.site.go(_page_of(form), message=f"{message} {more}".strip())


def _items(found: Any) -> Sequence[Any]:
    """Return the rows of a list; none if the user may not read it."""
    return [] if found is None else found.items


def _page_of(form: Form) -> str:
    """Return the URL of the device page to which a form belongs."""
    return f"/devices/{quote(form.get('name') or form.get('device', ''), safe='')}"


def _json(text: str) -> Any:
    """Return the submitted JSON. Raise `FormUnfitError`."""
    try:
        return decode_json(text.encode())
    except (ValueError, RecursionError) as error:
        raise FormUnfitError(detail=f"the text is not JSON: {error}") from error


_WELL = frozenset({"dps.register", "device.connect", "certificate.issue", "certificate.comeback"})


def find_last_admission(*told: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Return when a device was last admitted, from its events."""
    return max(
        (datetime.fromisoformat(row["at"]) for rows in told for row in rows if row["action"] in _WELL), default=None
    )


def describe_state(parts: Sequence[Mapping[str, Any]], *, is_refused: bool = False) -> tuple[str, str]:
    """Return the state of a device as text, and its style."""
    states = {part["state"] for part in parts}
    details = " ".join(part["detail"] for part in parts if part["what"] == "device")
    if "shut out" in states:
        return translate("revoked"), "bad"
    if "connected since" in details:
        return translate("connected"), ""
    if any(part["state"] == "disabled" for part in parts):
        return translate("disabled"), "off"
    if is_refused:
        return translate("refused"), "bad"
    if any(part["what"] == "registration" for part in parts) or "last seen" in details:
        return translate("away"), "warn"
    return translate("never registered") if any(part["what"] == "enrollment" for part in parts) else translate(
        "registered"
    ), "off"


def document_of_twin(hub: str, device: str, twin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a twin in the page's document format."""
    desired, reported = twin["properties"]["desired"], twin["properties"]["reported"]
    fields = compare_documents(_own(desired), _own(reported))
    told = {"kind": "twin", "title": f"hub {hub}", "etag": twin.get("etag"), "version": twin.get("version")}
    return {**told, "hub": hub, "device": device, "fields": fields, "tags": twin.get("tags") or {}, "shadow": ""}


def document_of_shadow(thing: str, shadow: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a shadow in the page's document format."""
    state = shadow.get("state", {})
    fields = compare_documents(state.get("desired") or {}, state.get("reported") or {})
    told = {"kind": "shadow", "title": "aws", "etag": None, "version": shadow.get("version")}
    return {**told, "hub": "", "device": thing, "fields": fields, "tags": {}, "shadow": thing}


def compare_documents(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return every key of both documents with both values, and whether they are equal."""
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
    """Return the events of a device as text, latest first; each refusal once, with its message."""
    rows: list[dict[str, Any]] = []
    for row in (*happened, *came):
        if row["action"] == "device.refuse":
            continue  # the refusal has details
        told = {"words": words_of(row["action"], row["detail"]), "kind": kind_of(row["action"])}
        rows.append({"at": row["at"], "who": row["actor"], "detail": _detail(row["detail"]), "id": "", **told})
    for one in refusals:
        told = {"words": words_of("device.refuse", {}), "kind": "bad", "id": one["id"]}
        rows.append({"at": one["at"], "who": "", "detail": f"{one['message']} ({one['code']})", **told})
    return _grouped(sorted(rows, key=lambda row: datetime.fromisoformat(row["at"]), reverse=True)[:_HAPPENED])


def _grouped(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Merge consecutive identical refusals: the latest of them, and their number."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if found and row["id"] and found[-1]["id"] and found[-1]["detail"] == row["detail"]:
            found[-1]["times"] += 1
        else:
            found.append({**row, "times": 1})
    return found


_TELLS = ("place", "hub", "from", "reason", "profile", "not_after", "scope", "what", "status", "name")
"""Details of an action that a page shows, in this order; the audit log has all."""


def _detail(detail: Mapping[str, Any]) -> str:
    told = [
        f"{key} {detail[key]}"
        for key in _TELLS
        if detail.get(key) not in {None, ""} and not isinstance(detail[key], dict | list)
    ]
    return ", ".join(told)
