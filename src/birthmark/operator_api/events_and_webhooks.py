"""Operator API of events: a stream, and webhooks."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.errors import add_fix_command
from birthmark.events.event_types import event_of
from birthmark.events.merged_event_feed import Feed, parse_place, place_of
from birthmark.events.model import DeadLetters, EventForm, OperationEvent, Webhook
from birthmark.events.webhook_url_redaction import host_only
from birthmark.events.webhooks import Webhooks, check_type
from birthmark.iam.model import SERVER
from birthmark.net.fair_scheduler import collect_page, iterate_async
from birthmark.operator_api.api_router import SIGN_OF_LIFE_S, ApiRequest, Endpoint, LineStream, Rows
from birthmark.operator_api.name_validation import parse_name
from birthmark.outbound.http_client import EXAMPLE, UrlInvalidError
from birthmark.outbound.ssrf_guard import PlainRefusedError
from birthmark.store import Database

_LOOK_EVERY_S = 0.5


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Start of an event stream: after `place` (an event's position), `begin` (the first event), or new events."""

    after: str = ""
    begin: bool = False
    type: str = "*"
    follow: bool = False


class NewWebhook(msgspec.Struct):
    """A webhook's receiver, its event types (default: all), and the form of its events."""

    name: str
    url: str
    types: Annotated[list[str], msgspec.Meta(max_length=32)] = []
    form: EventForm = EventForm.CLOUDEVENTS


class PauseBody(msgspec.Struct):
    """Whether the webhook is paused."""

    paused: bool


class ConnectionsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Device, and maximum number of rows."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


def event_endpoints(database: Database, source: str) -> Sequence[Endpoint]:
    """Return the route of `birthmark events`."""
    feed = Feed(database)

    async def parts(query: EventsQuery) -> AsyncIterator[Mapping[str, Any]]:
        place = parse_place(query.after) if query.after else {} if query.begin else await feed.end()
        silent = 0.0
        while True:
            found = await feed.after(place)
            for happening, after in found:
                place, event = after, event_of(happening, source)
                if fnmatchcase(event["type"], query.type):
                    silent = 0.0
                    yield {"place": place_of(place), "event": event}
            if not found:
                if not query.follow:
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
                silent += _LOOK_EVERY_S
                if silent >= SIGN_OF_LIFE_S:
                    silent = 0.0
                    yield {}

    async def events(request: ApiRequest) -> Any:
        check_type(request.query.type, command="birthmark events --type 'birthmark.device.*'")
        return LineStream(parts(request.query))

    async def connections(request: ApiRequest) -> Rows:
        query: ConnectionsQuery = request.query
        return Rows([_noticed_view(one) for one in await feed.noticed_of(query.subject, query.limit)])

    of_one = "List connections, disconnections and refusals of a device in the last week."
    return [
        Endpoint("GET", "/events", Right.READ, "Stream events, one JSON line each.", events, query=EventsQuery),
        Endpoint("GET", "/connections", Right.READ, of_one, connections, query=ConnectionsQuery),
    ]


def _noticed_view(event: OperationEvent) -> dict[str, Any]:
    told = {"at": event.at.isoformat(), "action": event.action, "subject": event.subject}
    return {**told, "actor": event.actor, "detail": dict(event.detail)}


def webhook_endpoints(webhooks: Webhooks) -> Sequence[Endpoint]:
    """Return the routes of `birthmark webhook`."""

    async def listing(request: ApiRequest) -> Rows:
        is_whole = request.caller.rights.allow(Right.ADMINISTER, SERVER)
        return Rows([_view(one, is_whole=is_whole) for one in await webhooks.all()])

    async def create(request: ApiRequest) -> Any:
        body: NewWebhook = request.body
        name = parse_name(body.name)
        with add_fix_command(f"birthmark webhook create {name} {EXAMPLE}", UrlInvalidError, PlainRefusedError):
            made = await webhooks.create(name, body.url, body.types, actor=request.actor, form=body.form)
        return {**_view(made), "secret": made.secret}

    async def remove(request: ApiRequest) -> None:
        await webhooks.remove(request["name"], actor=request.actor)

    async def rotate(request: ApiRequest) -> Any:
        return {"name": request["name"], "secret": await webhooks.rotate(request["name"], actor=request.actor)}

    async def pause(request: ApiRequest) -> Any:
        return _view(await webhooks.pause(request["name"], is_paused=request.body.paused, actor=request.actor))

    async def dead(request: ApiRequest) -> Rows:
        found = await webhooks.dead(request["name"])
        return Rows(await collect_page(iterate_async(map(_dead_view, found)), lambda view: len(view["body"])))

    async def replay(request: ApiRequest) -> Any:
        return {"name": request["name"], "events": await webhooks.replay(request["name"], actor=request.actor)}

    look, rule, one = Right.READ, Right.ADMINISTER, "/webhooks/{name}"
    return [
        Endpoint("GET", "/webhooks", look, "List webhooks, without their secrets.", listing),
        Endpoint(
            "POST",
            "/webhooks",
            rule,
            "Create a webhook. The response contains its secret once.",
            create,
            NewWebhook,
            status=201,
            waits=True,
        ),
        Endpoint("DELETE", one, rule, "Delete a webhook.", remove, status=204),
        Endpoint(
            "POST", f"{one}/secret", rule, "Rotate the secret of a webhook. The response contains it once.", rotate
        ),
        Endpoint("PATCH", one, rule, "Pause or resume a webhook.", pause, PauseBody),
        Endpoint("GET", f"{one}/dead", look, "List the dead letters of a webhook.", dead),
        Endpoint("POST", f"{one}/replay", rule, "Resend the dead letters of a webhook.", replay, waits=True),
    ]


def _view(hook: Webhook, *, is_whole: bool = True) -> dict[str, Any]:
    return {
        "name": hook.name,
        "url": hook.url if is_whole else host_only(hook.url),
        "types": list(hook.types),
        "form": (hook.form or EventForm.CLOUDEVENTS).value,
        "created": hook.created_at.isoformat(),
        "paused": hook.is_paused,
        "failing_since": None if hook.failed_since is None else hook.failed_since.isoformat(),
        "tries": hook.tries,
        "problem": hook.problem,
    }


def _dead_view(letters: DeadLetters) -> dict[str, Any]:
    return {
        "id": letters.id,
        "at": letters.at.isoformat(),
        "events": letters.count,
        "problem": letters.problem,
        "body": letters.body.decode(),
    }
