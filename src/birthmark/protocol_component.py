"""Interface of a protocol package to a running server, which loops over components and names no package."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeAlias

from starlette.requests import Request
from starlette.routing import Route

from birthmark.amqp.events import AmqpEvent
from birthmark.bus import Bus
from birthmark.devices.ports import DeviceRecords
from birthmark.errors import BirthmarkError
from birthmark.metric_catalog import Sample, Traffic
from birthmark.net.amqp_driver import AmqpDriver, AmqpServiceConnection
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_driver import Accept

MakeAmqp: TypeAlias = Callable[[AmqpDriver, str], AmqpServiceConnection]
"""Returns the component's side of an AMQP connection; the text is the host name in OPEN, empty before."""
Record: TypeAlias = Callable[[BirthmarkError, Request], str]
"""Stores a rejected request, and returns its tracking id."""


class TrackedMqttConnection(Protocol):
    """A live MQTT connection."""

    @property
    def driver(self) -> LiveConnection: ...


class MqttConnections(Protocol):
    """The live MQTT connections of a component."""

    traffic: Traffic

    def live_connections(self) -> Sequence[TrackedMqttConnection]: ...

    def recheck_connecting_clients(self) -> None:
        """Check all connecting clients again, because a certificate was revoked."""
        ...


class Component:
    """A package that serves devices. Packages override the members that they need."""

    service: str = ""
    """Name in `serve --only`; empty for a component that cannot be left out."""
    cloud: str = ""
    """Label `cloud` of its metrics; empty without MQTT connections."""
    space_kinds: AbstractSet[str] = frozenset()
    """First path segments of the names of its MQTT namespaces."""
    mqtt: MqttConnections | None = None
    devices: DeviceRecords = DeviceRecords()
    websocket_paths: Sequence[str] = ()
    """Paths at which its clients use MQTT over WebSocket."""
    amqp_websocket_paths: Sequence[str] = ()
    """Paths at which its clients use AMQP over WebSocket."""

    def routes(self, _record: Record) -> Sequence[Route]:
        """Return the component's HTTP routes for devices and services; they load with the first request."""
        return ()

    def find_acceptor(self, _username: str) -> Accept | None:
        """Return the authenticator for an MQTT client with that user name; None for another component's client."""
        return None

    def find_amqp(self, _event: AmqpEvent) -> MakeAmqp | None:
        """Return who serves the AMQP connection of a client's first `SaslStarted` or `LinkRequested`, or None.

        PLAIN and TPM are the SASL mechanisms that name the client. The first component that claims a connection has it.
        """
        return None

    def subscribe(self, bus: Bus) -> None:
        """Subscribe to the events that affect its live connections."""

    def samples(self) -> Iterable[Sample]:
        """Return the component's in-memory metrics."""
        return ()

    async def stored_samples(self) -> AsyncIterator[Sample]:
        """Yield the component's metrics that are only in the database."""
        return
        yield

    async def settle(self) -> None:
        """Wait until everything that the component accepted is stored."""

    async def stop(self) -> None:
        """End the component's background tasks."""
