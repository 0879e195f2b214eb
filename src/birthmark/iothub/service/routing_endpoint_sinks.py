"""Routing endpoints of a hub: webhooks, files, streams, servers. Each uses its endpoint's current configuration."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from birthmark.errors import BirthmarkError
from birthmark.iothub.service.message_routing import Routes
from birthmark.iothub.wire.stored_routing_configuration import FileEndpoint, ServerEndpoint, WebhookEndpoint
from birthmark.message_routing.delivery_model import Delivery, MessageServer, Sink
from birthmark.message_routing.sinks.errors import AddressInvalidError
from birthmark.message_routing.sinks.files import FolderQuota, LineSink
from birthmark.message_routing.sinks.http import HttpSink, Post
from birthmark.message_routing.sinks.local_streams import StreamSink
from birthmark.message_routing.sinks.mqtt import MqttSink
from birthmark.message_routing.sinks.nats import NatsSink
from birthmark.outbound.webhook_signature import headers_of
from birthmark.untrusted_json_and_text import reason_of


async def _each(
    deliveries: Sequence[Delivery], ready: Callable[[Delivery], Delivery], by: Sink
) -> Sequence[BirthmarkError | None]:
    """Deliver messages that can be prepared; return an error or None for each."""
    made: list[Delivery] = []
    problems: list[BirthmarkError | None] = []
    for letter in deliveries:
        try:
            made.append(ready(letter))
            problems.append(None)
        except BirthmarkError as error:
            problems.append(error)
    results = iter(await by.carry(made) if made else ())
    return [next(results) if problem is None else problem for problem in problems]


def _to(delivery: Delivery, **more: Any) -> Delivery:
    return Delivery(
        delivery.lane, delivery.kind, {**delivery.address, **more}, delivery.body, delivery.origin, delivery.id
    )


class _Webhooks:
    is_quick = False

    def __init__(self, routes: Routes, outside: Post) -> None:
        self._routes = routes
        self._http = HttpSink(outside)

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        return await _each(deliveries, self._ready, self._http)

    def _ready(self, delivery: Delivery) -> Delivery:
        endpoint = self._routes.endpoint_of(delivery)
        assert isinstance(endpoint, WebhookEndpoint)  # noqa: S101 - kind-checked
        secret = self._routes.secret(delivery.address["hub"], endpoint.name)
        at_s = int(self._routes.clock.now().timestamp())
        signed = headers_of(delivery.id, at_s, delivery.body, [] if secret is None else [secret])
        return _to(delivery, url=endpoint.url, headers={"content-type": "application/json", **signed})


class _Servers:
    is_quick = False

    def __init__(self, routes: Routes, servers: Mapping[str, MessageServer]) -> None:
        self._routes, self._servers = routes, servers
        self._nats, self._mqtt = NatsSink(servers), MqttSink(servers)

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `message_routing.delivery_model.Carrier`. A partition has one server."""
        try:
            endpoint = self._routes.endpoint_of(deliveries[0])
            assert isinstance(endpoint, ServerEndpoint)  # noqa: S101 - kind-checked
            if (server := self._servers.get(endpoint.server)) is None:
                reason = f"the configuration has no [servers.{endpoint.server}]"
                raise AddressInvalidError(receiver=endpoint.server, reason=reason, is_final=False)
        except BirthmarkError as error:
            return [error] * len(deliveries)
        by: Sink = self._mqtt if server.url.startswith("mqtt") else self._nats
        return await by.carry([_to(one, server=endpoint.server) for one in deliveries])


def sinks_of(
    routes: Routes, *, outside: Post, buckets: Path, servers: Mapping[str, MessageServer]
) -> Mapping[str, Sink]:
    """Return the sinks by kind of endpoint. Files are below `buckets`, apart from all buckets."""

    def place(delivery: Delivery) -> Path:
        endpoint = routes.endpoint_of(delivery)
        assert isinstance(endpoint, FileEndpoint)  # noqa: S101 - kind-checked
        own = buckets / f"hub@{delivery.address['hub']}" / endpoint.folder
        path = own / str(delivery.address["file"])
        receiver = f"{endpoint.folder}/{delivery.address['file']}"[:200]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.parent.resolve().is_relative_to(own.resolve()):
                raise AddressInvalidError(receiver=receiver, reason="it is not a file in this folder")
        except OSError as error:
            raise AddressInvalidError(receiver=receiver, reason=reason_of(error), is_final=False) from error
        return path

    return {
        "hub-webhook": _Webhooks(routes, outside),
        "hub-file": LineSink(place, FolderQuota(buckets, routes.clock.micros)),
        "hub-stream": StreamSink(routes.stream, routes.clock.micros),
        "hub-server": _Servers(routes, servers),
    }
