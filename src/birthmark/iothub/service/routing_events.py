"""What a hub says of its twins, devices and connections, for routes that ask for it.

It is written to a stream of the hub's own in the commit that makes it. Where no route asks, nothing is written.
"""

from collections.abc import Callable, Mapping

from birthmark.broker.stream import SqlStream
from birthmark.clock import Clock
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.routes.event_messages import key
from birthmark.iothub.wire.routing import RouteSource
from birthmark.store import Changes, Database


def stream_name(hub: str) -> str:
    """Return the name of the stream of what a hub says."""
    return f"hub-events/{hub}"


class RoutingEvents:
    """See the module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._wanted: Mapping[str, frozenset[RouteSource]] = {}
        self._streams: dict[str, SqlStream[TelemetryMessage]] = {}

    def become(self, wanted: Mapping[str, frozenset[RouteSource]]) -> None:
        """Take this for what routes ask for, by hub."""
        self._wanted = wanted

    def wants(self, hub: str, source: RouteSource) -> bool:
        """Say whether some route of a hub asks for messages of a source."""
        return source in self._wanted.get(hub, ())

    def stream(self, hub: str) -> SqlStream[TelemetryMessage]:
        """Return the stream of what a hub says."""
        if (known := self._streams.get(hub)) is None:
            known = self._streams[hub] = SqlStream(stream_name(hub), TelemetryMessage, self._database, self._clock)
        return known

    def adding(self, hub: str, source: RouteSource, make: Callable[[], TelemetryMessage]) -> Changes:
        """Return what says something with a commit, nothing where no route asks for it."""
        if not self.wants(hub, source):
            return Changes()
        message = make()
        return self.stream(hub).adding(key(message), [message])
