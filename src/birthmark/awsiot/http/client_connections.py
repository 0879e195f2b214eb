"""Operations on client connections: GetConnection, DeleteConnection, subscriptions and connectivity of a thing."""

from typing import Any

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.rules.mqtt_protocol_limits import MAX_CLIENT_ID_BYTES
from birthmark.awsiot.rules.reserved_topics import REASONS
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.client_connections import UnknownClientError
from birthmark.broker import Namespace
from birthmark.broker.model import MICROS
from birthmark.store.pagination import page_of


class ClientOperations:
    """The operations of `iot-data` on connections."""

    def __init__(self, aws: AwsIot, space: Namespace) -> None:
        self._connections = aws.connections
        self._devices = aws.devices
        self._space = space

    async def get_connection(self, request: AwsRequest) -> Any:
        client = self._client(request, "iot:GetConnection")
        if (known := await self._space.asked.client(client)) is None:
            raise UnknownClientError(thing=client)
        told: dict[str, Any] = {"clientId": client, "connected": known.is_connected}
        told |= {"cleanSession": known.expiry_s == 0, "sessionExpiry": known.expiry_s}
        if known.since is not None:
            return told | {"connectedSince": known.since // 1000}
        seen = (await self._space.get_last_contacts([client])).get(client)
        if seen is None or seen.reason is None:
            return told
        return told | {"disconnectedSince": seen.at // 1000, "disconnectReason": REASONS[seen.reason]}

    async def delete_connection(self, request: AwsRequest) -> None:
        client = self._client(request, "iot:DeleteConnection")
        with_will, forgets = not request.flag("preventWillMessage"), request.flag("cleanSession")
        if await self._space.asked.client(client) is None:
            raise UnknownClientError(thing=client)
        await self._connections.record_disconnect(client, forgets=forgets, actor=request.actor)
        if not await self._space.asked.end(client, with_will=with_will, forgets=forgets):
            raise UnknownClientError(thing=client)

    async def list_subscriptions(self, request: AwsRequest) -> Any:
        client = self._client(request, "iot:ListSubscriptions")
        if await self._space.asked.client(client) is None:
            raise UnknownClientError(thing=client)
        found = [one for one in await self._space.asked.subscriptions(client) if one.name > request.after]
        page = page_of(found, request.size, [one.name for one in found])
        told = [{"topicFilter": one.name, "qos": one.qos} for one in page.items]
        return request.paged("subscriptions", told, page)

    def _client(self, request: AwsRequest, action: str) -> str:
        client = request["clientId"][:MAX_CLIENT_ID_BYTES]
        self._devices.check(request.grant, action, "client", client)
        return client


class ConnectivityOperations:
    """Connectivity of things by client ID, which is the thing name; AWS serves it from the fleet index."""

    def __init__(self, aws: AwsIot, space: Namespace) -> None:
        self._things = aws.things
        self._space = space

    async def get_thing_connectivity_data(self, request: AwsRequest) -> Any:
        name = (await self._things.get(request["thingName"])).name
        if (seen := (await self._space.get_last_contacts([name])).get(name)) is None:
            return {"thingName": name, "connected": False}
        told = {"thingName": name, "connected": seen.reason is None, "timestamp": seen.at / MICROS}
        return told if seen.reason is None else told | {"disconnectReason": REASONS[seen.reason]}
