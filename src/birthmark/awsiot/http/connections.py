"""Connections of clients by their ids: what one is, what it subscribed to, and that it ends."""

from typing import Any

from birthmark.awsiot.http.routing import Call
from birthmark.awsiot.rules.presence import REASONS
from birthmark.awsiot.rules.topics import MAX_CLIENT_ID_BYTES
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.connections import UnknownClientError
from birthmark.broker import Space
from birthmark.store.paging import page_of


class ClientOperations:
    """The operations of `iot-data` on connections."""

    def __init__(self, aws: AwsIot, space: Space) -> None:
        self._connections = aws.connections
        self._devices = aws.devices
        self._space = space

    async def get_connection(self, call: Call) -> Any:
        client = self._client(call, "iot:GetConnection")
        if (known := await self._space.asked.client(client)) is None:
            raise UnknownClientError(thing=client)
        told: dict[str, Any] = {"clientId": client, "connected": known.is_connected}
        told |= {"cleanSession": known.expiry_s == 0, "sessionExpiry": known.expiry_s}
        if known.since is not None:
            return told | {"connectedSince": known.since // 1000}
        seen = (await self._space.seen_anywhere([client])).get(client)
        if seen is None or seen.reason is None:
            return told
        return told | {"disconnectedSince": seen.at // 1000, "disconnectReason": REASONS[seen.reason]}

    async def delete_connection(self, call: Call) -> None:
        client = self._client(call, "iot:DeleteConnection")
        with_will, forgets = not call.flag("preventWillMessage"), call.flag("cleanSession")
        if await self._space.asked.client(client) is None:
            raise UnknownClientError(thing=client)
        await self._connections.note_ended(client, forgets=forgets, actor=call.actor)
        if not await self._space.asked.end(client, with_will=with_will, forgets=forgets):
            raise UnknownClientError(thing=client)

    async def list_subscriptions(self, call: Call) -> Any:
        client = self._client(call, "iot:ListSubscriptions")
        if await self._space.asked.client(client) is None:
            raise UnknownClientError(thing=client)
        found = [one for one in await self._space.asked.subscriptions(client) if one.name > call.after]
        page = page_of(found, call.size, [one.name for one in found])
        told = [{"topicFilter": one.name, "qos": one.qos} for one in page.items]
        return call.paged("subscriptions", told, page)

    def _client(self, call: Call, action: str) -> str:
        client = call["clientId"][:MAX_CLIENT_ID_BYTES]
        self._devices.check(call.grant, action, "client", client)
        return client
