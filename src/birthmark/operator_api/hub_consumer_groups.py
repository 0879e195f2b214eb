"""Operator API of consumer groups: those of a hub's Event Hubs-compatible endpoint."""

from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.consumer_groups import ConsumerGroup
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows


class NewConsumerGroup(msgspec.Struct):
    """A consumer group to create."""

    name: str


def endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub consumer-group`."""
    hubs, groups = iothub.hubs, iothub.consumer_groups

    async def listing(request: ApiRequest) -> Rows:
        return Rows([_view(one) for one in await groups.all(hubs.by_name(request["name"]))])

    async def create(request: ApiRequest) -> Any:
        return _view(await groups.create(hubs.by_name(request["name"]), request.body.name, actor=request.actor))

    async def remove(request: ApiRequest) -> None:
        await groups.delete(hubs.by_name(request["name"]), request["group"], actor=request.actor)

    every, rule = "/hubs/{name}/consumer-groups", Right.ADMINISTER
    return [
        Endpoint("GET", every, Right.READ, "List consumer groups.", listing),
        Endpoint("POST", every, rule, "Create a consumer group.", create, NewConsumerGroup, status=201),
        Endpoint("DELETE", f"{every}/{{group}}", rule, "Delete a consumer group.", remove, status=204),
    ]


def _view(group: ConsumerGroup) -> dict[str, Any]:
    return {"name": group.name, "created": group.created_at.isoformat()}
