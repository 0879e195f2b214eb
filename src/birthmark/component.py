"""What a protocol package brings to a running server. The server loops over components and names no package."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeAlias

from starlette.requests import Request
from starlette.routing import BaseRoute

from birthmark.bus import Bus
from birthmark.devices.records import DeviceRecords
from birthmark.errors import BirthmarkError
from birthmark.metrics import Sample, Traffic
from birthmark.net.mqtt_driver import Accept, MqttPump

Record: TypeAlias = Callable[[BirthmarkError, Request], str]
"""Stores a rejected request, and returns its tracking id."""


class TrackedMqttConnection(Protocol):
    """A live MQTT connection."""

    @property
    def pump(self) -> MqttPump: ...


class MqttConnections(Protocol):
    """The live MQTT connections of a component."""

    traffic: Traffic

    def everyone(self) -> Sequence[TrackedMqttConnection]: ...

    def revoked(self) -> None:
        """Check again every client that is about to connect: a certificate was revoked."""
        ...


class Component:
    """A package that serves devices. A package overrides what it has."""

    service: str = ""
    """Its name under `serve --only`; empty where it cannot be left out."""
    cloud: str = ""
    """The label `cloud` of its metrics; empty where it has no MQTT connections."""
    space_kinds: AbstractSet[str] = frozenset()
    """What the names of its MQTT spaces begin with, before the first slash."""
    mqtt: MqttConnections | None = None
    devices: DeviceRecords = DeviceRecords()
    websocket_paths: Sequence[str] = ()
    """Where its clients speak MQTT over WebSocket."""

    def routes(self, _record: Record) -> Sequence[BaseRoute]:
        """Return its HTTP interface for devices and services; it loads with the first request."""
        return ()

    def find_acceptor(self, _username: str) -> Accept | None:
        """Return what authenticates an MQTT client with that user name; None for a client of another component."""
        return None

    def subscribe(self, bus: Bus) -> None:
        """Subscribe to the events that concern its live connections."""

    def samples(self) -> Iterable[Sample]:
        """Return its metrics from memory."""
        return ()

    async def stored_samples(self) -> AsyncIterator[Sample]:
        """Yield its metrics that only the database has."""
        return
        yield

    async def settle(self) -> None:
        """Return when everything that it accepted is stored."""

    async def stop(self) -> None:
        """End its background tasks."""
