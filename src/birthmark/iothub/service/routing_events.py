"""Routable events of twins, devices and connections of a hub.

An event is written to a stream of the hub in the commit that causes it. Without a route for it, no event is written.
"""

from collections.abc import Callable, Mapping

from birthmark.broker.database_stream import SqlStream
from birthmark.clock_and_entropy import Clock
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.routes.event_messages import key
from birthmark.iothub.wire.stored_routing_configuration import RouteSource
from birthmark.store import Changes, Database


def stream_name(hub: str) -> str:
    """Return the name of a hub's event stream."""
    return f"hub-events/{hub}"


class RoutingEvents:
    """Routable events of all hubs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._wanted: Mapping[str, frozenset[RouteSource]] = {}
        self._streams: dict[str, SqlStream[TelemetryMessage]] = {}

    def set_requested(self, wanted: Mapping[str, frozenset[RouteSource]]) -> None:
        """Set the sources that routes request, by hub."""
        self._wanted = wanted

    def wants(self, hub: str, source: RouteSource) -> bool:
        """Return whether a route of the hub requests messages of the source."""
        return source in self._wanted.get(hub, ())

    def stream(self, hub: str) -> SqlStream[TelemetryMessage]:
        """Return a hub's event stream."""
        if (known := self._streams.get(hub)) is None:
            known = self._streams[hub] = SqlStream(stream_name(hub), TelemetryMessage, self._database, self._clock)
        return known

    def event_changes(self, hub: str, source: RouteSource, make: Callable[[], TelemetryMessage]) -> Changes:
        """Return changes that write an event with a commit; none if no route requests it."""
        if not self.wants(hub, source):
            return Changes()
        message = make()
        return self.stream(hub).append_changes(key(message), [message])
