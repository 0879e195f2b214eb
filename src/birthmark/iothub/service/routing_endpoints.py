"""The ways out of a hub: webhooks, files, streams, servers. Each looks at its endpoint as it is when it carries."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from birthmark.errors import BirthmarkError
from birthmark.iothub.service.message_routing import Routes
from birthmark.iothub.wire.routing import FileEndpoint, ServerEndpoint, WebhookEndpoint
from birthmark.message_routing.carriers.errors import AddressInvalidError
from birthmark.message_routing.carriers.files import FolderQuota, LineCarrier
from birthmark.message_routing.carriers.http import HttpCarrier, Post
from birthmark.message_routing.carriers.mqtt import MqttCarrier
from birthmark.message_routing.carriers.nats import NatsCarrier
from birthmark.message_routing.carriers.streams import StreamCarrier
from birthmark.message_routing.deliveries import Delivery, MessageServer, Sink
from birthmark.outbound.webhook_signing import headers_of
from birthmark.untrusted_text import reason_of


async def _each(
    letters: Sequence[Delivery], ready: Callable[[Delivery], Delivery], by: Sink
) -> Sequence[BirthmarkError | None]:
    """Carry those letters that can be made ready; return for each why it failed, or None."""
    made: list[Delivery] = []
    problems: list[BirthmarkError | None] = []
    for letter in letters:
        try:
            made.append(ready(letter))
            problems.append(None)
        except BirthmarkError as error:
            problems.append(error)
    results = iter(await by.carry(made) if made else ())
    return [next(results) if problem is None else problem for problem in problems]


def _to(letter: Delivery, **more: Any) -> Delivery:
    return Delivery(letter.lane, letter.kind, {**letter.address, **more}, letter.body, letter.origin, letter.id)


class _Webhooks:
    is_quick = False

    def __init__(self, routes: Routes, outside: Post) -> None:
        self._routes = routes
        self._http = HttpCarrier(outside)

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        return await _each(letters, self._ready, self._http)

    def _ready(self, letter: Delivery) -> Delivery:
        endpoint = self._routes.endpoint_of(letter)
        assert isinstance(endpoint, WebhookEndpoint)  # noqa: S101 - of this kind
        secret = self._routes.secret(letter.address["hub"], endpoint.name)
        at_s = int(self._routes.clock.now().timestamp())
        signed = headers_of(letter.id, at_s, letter.body, [] if secret is None else [secret])
        return _to(letter, url=endpoint.url, headers={"content-type": "application/json", **signed})


class _Servers:
    is_quick = False

    def __init__(self, routes: Routes, servers: Mapping[str, MessageServer]) -> None:
        self._routes, self._servers = routes, servers
        self._nats, self._mqtt = NatsCarrier(servers), MqttCarrier(servers)

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`; one lane has one server."""
        try:
            endpoint = self._routes.endpoint_of(letters[0])
            assert isinstance(endpoint, ServerEndpoint)  # noqa: S101 - of this kind
            if (server := self._servers.get(endpoint.server)) is None:
                reason = f"the configuration has no [servers.{endpoint.server}]"
                raise AddressInvalidError(receiver=endpoint.server, reason=reason, is_final=False)
        except BirthmarkError as error:
            return [error] * len(letters)
        by: Sink = self._mqtt if server.url.startswith("mqtt") else self._nats
        return await by.carry([_to(one, server=endpoint.server) for one in letters])


def carriers_of(
    routes: Routes, *, outside: Post, buckets: Path, servers: Mapping[str, MessageServer]
) -> Mapping[str, Sink]:
    """Return the ways out, by kinds of endpoints. Files are below `buckets`, where no bucket can be."""

    def place(letter: Delivery) -> Path:
        endpoint = routes.endpoint_of(letter)
        assert isinstance(endpoint, FileEndpoint)  # noqa: S101 - of this kind
        own = buckets / f"hub@{letter.address['hub']}" / endpoint.folder
        path = own / str(letter.address["file"])
        receiver = f"{endpoint.folder}/{letter.address['file']}"[:200]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.parent.resolve().is_relative_to(own.resolve()):
                raise AddressInvalidError(receiver=receiver, reason="it is not a file in this folder")
        except OSError as error:
            raise AddressInvalidError(receiver=receiver, reason=reason_of(error), is_final=False) from error
        return path

    return {
        "hub-webhook": _Webhooks(routes, outside),
        "hub-file": LineCarrier(place, FolderQuota(buckets, routes.clock.micros)),
        "hub-stream": StreamCarrier(routes.stream, routes.clock.micros),
        "hub-server": _Servers(routes, servers),
    }
