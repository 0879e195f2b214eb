"""Who is connected to one space on this worker, who was, and what each connection depends on."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from birthmark.broker.connected_session import ConnectedSession
from birthmark.net.admission import CloseReason

MAX_GONE = 100_000


class LastContact(NamedTuple):
    """When a client came, in microseconds; or with `reason` when it went."""

    at: int
    reason: CloseReason | None


class ClientPresence:
    """See the module. `live` has the connections by their clients."""

    def __init__(self) -> None:
        self.live: dict[str, ConnectedSession] = {}
        self.arrivals = 0  # clients that came since this process began
        self._gone: OrderedDict[str, tuple[int, CloseReason]] = OrderedDict()  # who was here since this process began
        self._tagged: defaultdict[str, set[ConnectedSession]] = defaultdict(set)

    def came(self, attached: ConnectedSession, tags: frozenset[str]) -> None:
        """Note a connection, to be found by what it depends on."""
        self.live[attached.client] = attached
        self.arrivals += 1
        self.tag(attached, tags)

    def went(self, attached: ConnectedSession, reason: CloseReason, at: int) -> None:
        """Note that a connection is over."""
        if self.live.get(attached.client) is attached:
            del self.live[attached.client]
            self._gone[attached.client] = at, reason
            self._gone.move_to_end(attached.client)
            if len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
        self._untag(attached)

    def seen(self, client: str) -> LastContact | None:
        """Return since when a client is connected, or when and how it went; None for one that this process never saw.

        Of those that went the latest `MAX_GONE` are known.
        """
        if (attached := self.live.get(client)) is not None:
            return LastContact(attached.since, None)
        return None if (gone := self._gone.get(client)) is None else LastContact(*gone)

    def reason(self, client: str) -> CloseReason:
        """Return why the connection of a client that is gone was over."""
        return self._gone[client][1] if client in self._gone else CloseReason.TAKEN_OVER

    def tag(self, attached: ConnectedSession, tags: frozenset[str]) -> None:
        """Let a connection be found by what it depends on now."""
        if attached.is_over or tags == attached.tags:
            return
        self._untag(attached)
        attached.depend_on(tags)
        for tag in tags:
            self._tagged[tag].add(attached)

    def tagged(self, tag: str) -> Sequence[ConnectedSession]:
        """Return the connections that depend on something."""
        return tuple(self._tagged.get(tag, ()))

    def _untag(self, attached: ConnectedSession) -> None:
        for tag in attached.tags:
            self._tagged[tag].discard(attached)
            if not self._tagged[tag]:
                del self._tagged[tag]
        attached.depend_on(frozenset())
