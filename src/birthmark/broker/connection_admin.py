"""Administration of a client's connection on any worker: inspect and close."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from birthmark.broker.broker_context import BrokerContext
from birthmark.broker.bus_requests import AskClient, ClientReply, EndClient
from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import SessionRecord, Subscription
from birthmark.broker.subscriptions import Subscriptions
from birthmark.net.mqtt_service_interface import CloseReason


class StoredSessions(Protocol):
    """Namespace interface used by connection administration."""

    name: str
    subscriptions: Subscriptions

    @property
    def live(self) -> Mapping[str, ConnectedSession]: ...

    async def record(self, client: str) -> SessionRecord | None: ...

    async def forget(self, client: str, record: SessionRecord | None = None, *, epoch: int | None = None) -> bool: ...


class ClientInfo(msgspec.Struct, frozen=True):
    """A connected client, or a client with a stored session; `expiry_s` is the session expiry."""

    is_connected: bool
    expiry_s: int
    since: int | None = None
    """Connect time in microseconds, if connected."""


class ConnectionAdmin:
    """Inspects and closes the connection of a client on any worker."""

    def __init__(self, broker: BrokerContext, space: StoredSessions) -> None:
        self._broker = broker
        self._space = space

    async def client(self, client: str) -> ClientInfo | None:
        """Return the state of a client, or None without a connection and a session."""
        if (here := self.here(client)).is_there:
            return ClientInfo(is_connected=True, expiry_s=here.expiry_s, since=here.since)
        for answer in await self._broker.ask_others(AskClient(self._space.name, client)):
            if answer.is_there:
                return ClientInfo(is_connected=True, expiry_s=answer.expiry_s, since=answer.since)
        record = await self._space.record(client)
        return None if record is None else ClientInfo(is_connected=False, expiry_s=record.expiry_s)

    def here(self, client: str) -> ClientReply:
        """Return the state of a client's connection on this worker."""
        if (attached := self._space.live.get(client)) is None:
            return ClientReply(is_there=False)
        expiry_s = attached.expiry_s if attached.is_stored else 0
        return ClientReply(is_there=True, expiry_s=expiry_s, since=attached.since)

    async def subscriptions(self, client: str) -> Sequence[Subscription]:
        """Return a client's subscriptions, ordered by filter."""
        attached = self._space.live.get(client)
        found = attached.subscriptions if attached is not None else await self._space.subscriptions.stored(client)
        return [found[name] for name in sorted(found)]

    async def end(self, client: str, *, with_will: bool, forgets: bool) -> bool:
        """Close a client's connection, and with `forgets` delete its session; return whether either existed."""
        is_ended = self.end_here(client, with_will=with_will, forgets=forgets)
        if not is_ended:
            request = EndClient(self._space.name, client, with_will, forgets)
            answers = await self._broker.ask_others(request)
            is_ended = any(answer.is_there for answer in answers)
        if is_ended or not forgets:
            return is_ended
        record = await self._space.record(client)
        if record is None or record.owner is not None:
            return False
        return await self._space.forget(client, record if with_will else None, epoch=record.epoch)

    def end_here(self, client: str, *, with_will: bool, forgets: bool) -> bool:
        """Close a connection of this worker; return whether it existed."""
        if (attached := self._space.live.get(client)) is None:
            return False
        if not with_will:
            attached.will = None
        if forgets:
            attached.expiry_s = 0
        attached.connection.end(CloseReason.ASKED)
        return True
