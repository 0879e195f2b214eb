"""Queries over HTTPS (IoT Hub REST reference, "Query"): return a page of twins or rows."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.iothub import wire
from birthmark.iothub.http.authorization_and_errors import Record, guarded, hub_of, page_size_of
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import SERVICE
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import read_json

_to_json = msgspec.json.Encoder().encode


class _Body(msgspec.Struct):
    query: str


def routes(iothub: IotHub, presence: DevicePresence, record: Record) -> list[Route]:
    """Return the query route; `record` logs a refusal and returns its tracking id."""

    async def query(request: Request) -> Response:
        hub = hub_of(iothub.hubs, request)
        address = request.client.host if request.client else ""
        given = request.headers.get("authorization")
        iothub.hubs.authorize(hub, given, SERVICE, "devices/query", right=Right.READ, address=address)
        iothub.throttles.take(hub, ThrottleClass.QUERY)
        body = await request.body()
        asked = read_json(body, _Body, wire.BodyInvalidError)
        if (member := find_unread_member(read_json(body, dict[str, Any], wire.BodyInvalidError), _Body)) is not None:
            raise wire.BodyInvalidError(detail=f"{member} is not served here, leave it out")
        marker = request.headers.get("x-ms-continuation")
        found = await iothub.queries.answer(hub, asked.query, marker, page_size_of(request), presence)
        headers = {"x-ms-item-type": found.item_type}
        if found.marker is not None:
            headers["x-ms-continuation"] = found.marker
        return Response(_to_json(found.rows), 200, headers, "application/json")

    return [Route("/devices/query", guarded(query, record), methods=["POST"])]
