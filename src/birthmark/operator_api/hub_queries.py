"""Operator API of hub queries: a query text in, pages of twins or rows out."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.service import IotHub
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows


class HubQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A query in the IoT Hub query language."""

    query: str
    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=250)] = 100


def endpoints(iothub: IotHub, presence: DevicePresence) -> Sequence[Endpoint]:
    """Return the route of `birthmark hub query`."""

    async def query(request: ApiRequest) -> Rows:
        wanted: HubQuery = request.query
        hub = iothub.hubs.by_name(request["name"])
        found = await iothub.queries.answer(hub, wanted.query, wanted.after, wanted.limit, presence)
        return Rows(found.rows, found.marker)

    return [Endpoint("GET", "/hubs/{name}/query", Right.READ, "Run a query.", query, query=HubQuery)]
