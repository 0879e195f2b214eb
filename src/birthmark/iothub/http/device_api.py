"""Device API over HTTPS: send telemetry, receive messages (IoT Hub REST reference, "Device").

A message is received under a lock, which its ETag names, and completed, rejected or abandoned with it. A client that
fails to authenticate gets the same response whether the device exists or not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.broker.rules.device_queue import MAX_LOCK_S, QueueOutcome
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.errors import BirthmarkError, ThrottledError, UnavailableError
from birthmark.iothub.http import message_headers
from birthmark.iothub.http.authorization_and_errors import DEVICEBOUND, UNAUTHORIZED, Record, answer_of, guarded
from birthmark.iothub.model import Hub, SenderAuthentication, authentication_of, name_of, parse_name, space_of
from birthmark.iothub.rules.authentication import DEVICE_CONNECT
from birthmark.iothub.rules.tier_throttles_and_quotas import PATIENCE_S
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import HubUser
from birthmark.net.http_route_wrappers import Handler
from birthmark.supervised_tasks import cancel_and_wait
from birthmark.untrusted_json_and_text import whole_number

_MIN_LOCK_S = 5


class Sender(NamedTuple):
    """The device or module of a request."""

    name: str
    authentication: SenderAuthentication


Answer = Callable[[Request, Hub, Sender], Awaitable[Response]]


def device_authenticator(iothub: IotHub, record: Record) -> Callable[[Answer], Handler]:
    """Return a decorator of handlers that authenticates the device first."""

    def of_device(answer: Answer) -> Handler:
        async def proven(request: Request) -> Response:
            try:
                name = name_of(request.path_params["device_id"], request.path_params.get("module_id"))
                user = HubUser(request.headers.get("host", ""), *parse_name(name), "")
                password = request.headers.get("authorization", "").encode()
                hub, identity, token = await iothub.registry.authenticate(
                    user, request.scope["extensions"]["tls"], password, path=request.scope["path"]
                )
            except (UnavailableError, ThrottledError):
                raise
            except BirthmarkError as error:
                return answer_of(UNAUTHORIZED, "Unauthorized", record(error, request))
            is_of_policy = token is not None and token.policy in DEVICE_CONNECT
            sender = Sender(identity.name, authentication_of(identity, is_of_policy=is_of_policy))
            return await answer(request, hub, sender)

        return guarded(proven, record)

    return of_device


def routes(iothub: IotHub, record: Record) -> list[Route]:
    """Return the device routes; `record` logs a refusal and returns its tracking id."""
    inboxes, of_device = iothub.c2d.inboxes, device_authenticator(iothub, record)

    async def send(request: Request, hub: Hub, sender: Sender) -> Response:
        body, name = await request.body(), sender.name
        messages = message_headers.telemetry_of(name, request.headers, body, iothub.c2d.now(), sender.authentication)
        if not await _wait_for_turn(iothub, hub, name, [len(message.body) for message in messages], request):
            return Response(status_code=503)  # never delivered
        await iothub.telemetry.write(hub, key_of(name.partition("/")[0]), messages, len(body))
        return Response(status_code=204)

    async def receive(request: Request, hub: Hub, sender: Sender) -> Response:
        asked_s = whole_number(request.headers.get("iothub-messagelocktimeout", ""))
        lock_s = None if asked_s is None else min(max(_MIN_LOCK_S, asked_s), MAX_LOCK_S)
        letter = await inboxes.take(space_of(hub.name), sender.name, lock_s)
        if letter is None:
            return Response(status_code=204)
        mail = iothub.c2d.mail_of(letter)
        found = message_headers.headers_of(sender.name, letter, mail)
        return Response(mail.payload, 200, found, "application/octet-stream")

    async def settle(request: Request, hub: Hub, sender: Sender) -> Response:
        outcome = QueueOutcome.REJECTED if "reject" in request.query_params else QueueOutcome.COMPLETED
        await inboxes.settle(space_of(hub.name), sender.name, request.path_params["lock"], outcome)
        return Response(status_code=204)

    async def abandon(request: Request, hub: Hub, sender: Sender) -> Response:
        await iothub.c2d.abandon(hub, sender.name, request.path_params["lock"])
        return Response(status_code=204)

    one = "/devices/{device_id}/messages"
    of_module = "/devices/{device_id}/modules/{module_id}/messages/events"
    found = [Route(place, of_device(send), methods=["POST"]) for place in (f"{one}/events", of_module)]
    for name in DEVICEBOUND:
        found += [
            Route(f"{one}/{name}", of_device(receive), methods=["GET"]),
            Route(f"{one}/{name}/{{lock}}", of_device(settle), methods=["DELETE"]),
            Route(f"{one}/{name}/{{lock}}/abandon", of_device(abandon), methods=["POST"]),
        ]
    return found


async def _wait_for_turn(iothub: IotHub, hub: Hub, name: str, sizes: list[int], request: Request) -> bool:
    """Wait until the hub's tier accepts the messages; return False if the client disconnected.

    Raise `TierThrottledError`, `TierQuotaError`.
    """
    if iothub.throttles.of(hub.name) is None:
        return True
    leaving = asyncio.create_task(_left(request))
    try:
        return await iothub.throttles.telemetry(hub.name, name, sizes, leaving.done, PATIENCE_S)
    finally:
        await cancel_and_wait(leaving)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
