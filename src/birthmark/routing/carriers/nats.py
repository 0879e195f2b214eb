"""NATS: publishes to subjects of a server that the configuration names. A flush says that the server has them."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error

from birthmark.errors import BirthmarkError
from birthmark.routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.routing.letters import Letter
from birthmark.routing.servers import Server
from birthmark.text import reason_of

CONNECT_S = 5.0
FLUSH_S = 5


class NatsCarrier:
    """Addresses have `server`, a name of the configuration, and `topic`, the subject."""

    is_quick = False

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._clients: dict[str, Client] = {}

    async def carry(self, letters: Sequence[Letter]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.routing.letters.Carrier`."""
        name = letters[0].address["server"]
        try:
            async with asyncio.timeout(CONNECT_S + FLUSH_S):
                client = await self._client(name)
                results = [await self._published(client, letter) for letter in letters]
                await client.flush(FLUSH_S)
        except (OSError, Error, TimeoutError) as error:
            await self._forget(name)
            why = reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__
            return [NotTakenError(receiver=name, reason=why)] * len(letters)
        return results

    async def _published(self, client: Client, letter: Letter) -> BirthmarkError | None:
        subject = letter.address["topic"]
        if not subject or any(one in subject for one in " \t\r\n*>") or "" in subject.split("."):
            return AddressInvalidError(receiver=letter.address["server"], reason=f"{subject[:100]!r} is no subject")
        await client.publish(subject, letter.body)
        return None

    async def _client(self, name: str) -> Client:
        client = self._clients.get(name)
        if client is None or not client.is_connected:
            await self._forget(name)
            server = self._servers[name]
            more: dict[str, Any] = {"user": server.user, "password": server.password} if server.user else {}
            if server.url.startswith("tls:"):
                more["tls"] = await asyncio.to_thread(ssl.create_default_context, cafile=server.ca)
            client = self._clients[name] = await nats.connect(
                server.url, connect_timeout=int(CONNECT_S), allow_reconnect=False, name="birthmark rules", **more
            )
        return client

    async def _forget(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            with contextlib.suppress(OSError, Error, TimeoutError):
                async with asyncio.timeout(1):
                    await client.close()

    async def stop(self) -> None:
        """End every connection."""
        for name in tuple(self._clients):
            await self._forget(name)
