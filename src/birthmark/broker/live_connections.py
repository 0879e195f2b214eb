"""Presence of a namespace's clients on this worker, and the resources that each connection depends on."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from birthmark.broker.connected_session import ConnectedSession
from birthmark.net.mqtt_service_interface import CloseReason

MAX_GONE = 100_000


class LastContact(NamedTuple):
    """Connect time of a client in microseconds; with `reason`, its disconnect time."""

    at: int
    reason: CloseReason | None


class ClientPresence:
    """Presence of clients on this worker; `live` maps client IDs to connections."""

    def __init__(self) -> None:
        self.live: dict[str, ConnectedSession] = {}
        self.arrivals = 0  # clients since this process started
        self._gone: OrderedDict[str, tuple[int, CloseReason]] = OrderedDict()  # clients since this process started
        self._tagged: defaultdict[str, set[ConnectedSession]] = defaultdict(set)

    def add_connection(self, attached: ConnectedSession, tags: frozenset[str]) -> None:
        """Add a connection with its dependency tags."""
        self.live[attached.client] = attached
        self.arrivals += 1
        self.tag(attached, tags)

    def remove_connection(self, attached: ConnectedSession, reason: CloseReason, timestamp: int) -> None:
        """Remove a closed connection."""
        if self.live.get(attached.client) is attached:
            del self.live[attached.client]
            self._gone[attached.client] = timestamp, reason
            self._gone.move_to_end(attached.client)
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
        self._untag(attached)

    def find_last_contact(self, client: str) -> LastContact | None:
        """Return the connect time, or the disconnect time and reason, of a client.

        Return None if this process never saw it. The latest `MAX_GONE` disconnected clients are remembered.
        """
        if (attached := self.live.get(client)) is not None:
            return LastContact(attached.since, None)
        return None if (gone := self._gone.get(client)) is None else LastContact(*gone)

    def reason(self, client: str) -> CloseReason:
        """Return the disconnect reason of a client."""
        return self._gone[client][1] if client in self._gone else CloseReason.TAKEN_OVER

    def tag(self, attached: ConnectedSession, tags: frozenset[str]) -> None:
        """Replace the dependency tags of a connection."""
        if attached.is_over or tags == attached.tags:
            return
        self._untag(attached)
        attached.depend_on(tags)
        for tag in tags:
            self._tagged[tag].add(attached)

    def tagged(self, tag: str) -> Sequence[ConnectedSession]:
        """Return the connections that depend on a tag."""
        return tuple(self._tagged.get(tag, ()))

    def _untag(self, attached: ConnectedSession) -> None:
        for tag in attached.tags:
            self._tagged[tag].discard(attached)
            if not self._tagged[tag]:
                del self._tagged[tag]
        attached.depend_on(frozenset())
