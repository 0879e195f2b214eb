"""Receivers of a message: connected clients, stored sessions and members of shared subscriptions.

Clean sessions of connected clients are in memory. For stored sessions, only the shapes of their filters are; the
filters are looked up in the database. Routes are cached until a subscription changes (`rules.filter_index`).
"""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import NO_LOCAL, RETAIN_AS_PUBLISHED, BrokerMessage, Subscription
from birthmark.broker.rules.filter_shape_index import RouteCache, Shapes, shape_of

PORTION = 256
"""Maximum number of receivers per time slice; larger fan-outs alternate with other work."""
_LIGHT_BYTES, _FEW_PROPERTIES = 8192, 32
_WORD, _GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15
Receiver: TypeAlias = tuple[str, ConnectedSession | None, int, int]
"""Client ID; its connection, if the session is not stored; QoS; options."""


class SharedSubscription:
    """Members of a shared subscription; each message is delivered to one of them."""

    __slots__ = ("_nobody_at", "_turn", "members")

    def __init__(self, members: Sequence[Receiver], turn: int = 0) -> None:
        self.members = members
        self._turn = turn  # first member of the next round
        self._nobody_at = -1  # number of arrivals in the space when all members were away

    def in_turn(self, arrivals: int) -> Iterator[Receiver]:
        """Yield the members in rotation.

        If all were disconnected and no client has connected since, yield only one.
        """
        self._turn = first = (self._turn + 1) % len(self.members)
        begin = first - len(self.members)
        for place in range(begin, begin + 1 if self._nobody_at == arrivals else first):
            yield self.members[place]

    def note_absence(self, arrivals: int) -> None:
        """Record that all members were disconnected at this connect count of the namespace."""
        self._nobody_at = arrivals


def weight_of(message: BrokerMessage) -> int:
    """Return the cost of a message in receivers of small messages.

    Each receiver's copy is encrypted separately, and its properties are encoded one by one.
    """
    return 1 + len(message.payload) // _LIGHT_BYTES + len(message.properties) // _FEW_PROPERTIES


Owner: TypeAlias = tuple[str | None, bool]
"""Worker that holds the session, and whether the session is stored; used if several workers share a database."""


class TopicRoute:
    """Receivers of the messages of a topic."""

    __slots__ = ("is_live_only", "live", "owners", "rows", "shares", "size", "stored")

    def __init__(
        self,
        live: Sequence[tuple[ConnectedSession, int, int]],
        stored: Sequence[tuple[str, int, int]],
        shares: Sequence[SharedSubscription],
        owners: Mapping[str, Owner],
    ) -> None:
        self.owners = owners
        self.live = live
        self.stored = stored
        self.shares = shares
        self.is_live_only = not stored and not shares
        self.rows = len(stored) + len(shares)
        """Maximum number of queues that a message is written to."""
        self.size = len(live) + len(stored) + sum(len(share.members) for share in shares)

    def cost_of(self, message: BrokerMessage) -> int:
        """Return the cost of a message on this route, in receivers of small messages, against `PORTION`."""
        is_light = len(message.payload) < _LIGHT_BYTES and len(message.properties) < _FEW_PROPERTIES
        return self.size if is_light else self.size * weight_of(message)


T = TypeVar("T")
NOWHERE = TopicRoute((), (), (), {})
StoredRow: TypeAlias = tuple[str, Subscription]


class RouteLookup(NamedTuple):
    """Stored subscriptions found for a topic: the matching filters and their sessions."""

    filters: frozenset[str]
    rows: Sequence[StoredRow]
    owners: Mapping[str, Owner] = {}


_NOTHING = RouteLookup(frozenset(), ())


class TopicRouter:
    """Subscriptions of a namespace."""

    def __init__(self, *, hash_matches_parent: bool) -> None:
        self.stored_shapes = Shapes(hash_matches_parent=hash_matches_parent)
        self._shapes = Shapes(hash_matches_parent=hash_matches_parent)
        self._live: defaultdict[str, dict[tuple[str, str], tuple[ConnectedSession, Subscription]]] = defaultdict(dict)
        self._routes: RouteCache[TopicRoute] = RouteCache()
        self._stored: RouteCache[RouteLookup] = RouteCache()
        self._route_of = self._routes.of.get
        self._changes = self._live_changes = self._shares_made = 0

    # ---- changes

    def add(self, attached: ConnectedSession, subscription: Subscription) -> None:
        """Add a filter of a session that is not stored."""
        key = (attached.client, subscription.share)
        here = self._live[subscription.topic_filter]
        if key not in here:
            self._shapes.add(shape_of(subscription.topic_filter))
        here[key] = (attached, subscription)
        self._live_changed()

    def remove(self, attached: ConnectedSession, subscription: Subscription) -> None:
        """Remove a filter."""
        here = self._live.get(subscription.topic_filter, {})
        known = here.get((attached.client, subscription.share))
        if known is None or known[0] is not attached:
            return
        del here[attached.client, subscription.share]
        if not here:
            del self._live[subscription.topic_filter]
        self._shapes.discard(shape_of(subscription.topic_filter))
        self._live_changed()

    def _live_changed(self) -> None:
        self._live_changes += 1
        self._routes.clear()

    def stored_changed(self) -> None:
        """Clear the cached lookups after a change of stored subscriptions."""
        self._changes += 1
        self._stored.clear()
        self._routes.clear()

    # ---- look-ups

    def find(self, topic: str) -> TopicRoute | None:
        """Return the route of a topic.

        Return None if it must be looked up first or is too large to build in one step.
        """
        if (known := self._route_of(topic)) is not None:
            return known
        if (stored := self.known(topic)) is None:
            return None
        if self.size_of(topic, stored) > PORTION and self._routes.find((self._fitting(topic), stored.filters)) is None:
            return None
        return run_steps(self.build_route_steps(topic, stored, self._changes))

    def size_of(self, topic: str, stored: RouteLookup) -> int:
        """Return the number of receivers of a topic's route."""
        return len(stored.rows) + sum([len(self._live[one]) for one in self._fitting(topic)])

    def known(self, topic: str) -> RouteLookup | None:
        """Return the cached lookup of a topic; None if there is none since the last change of subscriptions."""
        return self._stored.of.get(topic) if len(self.stored_shapes) else _NOTHING

    def found(self, filters: frozenset[str]) -> RouteLookup | None:
        """Return the cached lookup of these filters from another topic."""
        return self._stored.find(filters)

    def candidates(self, topic: str) -> Sequence[str]:
        """Return the stored filters to look up for a topic."""
        return self.stored_shapes.candidates(topic)

    @property
    def changes(self) -> int:
        """Counter that increases with every change of stored subscriptions."""
        return self._changes

    def build_route(
        self, topic: str, rows: Sequence[StoredRow], seen: int, owners: Mapping[str, Owner] | None = None
    ) -> TopicRoute:
        """Return the route of a topic from rows that were read when `changes` was `seen`."""
        found = RouteLookup(frozenset([one.topic_filter for _, one in rows]), rows, owners or {})
        return run_steps(self.build_route_steps(topic, found, seen))

    def _fitting(self, topic: str) -> tuple[str, ...]:
        """Return the filters of in-memory sessions that match a topic."""
        if not len(self._shapes):
            return ()
        return tuple([one for one in self._shapes.candidates(topic) if one in self._live])

    def build_route_steps(self, topic: str, stored: RouteLookup, seen: int) -> Generator[None, None, TopicRoute]:
        """Build a route as `looked_up` does, a limited number of receivers per step."""
        fitting, is_lasting = self._fitting(topic), seen == self._changes
        key, live_seen = (fitting, stored.filters), self._live_changes
        if is_lasting:
            if len(self.stored_shapes):
                stored = self._stored.put(topic, stored.filters, stored, len(stored.rows))
            if (known := self._routes.find(key)) is not None:
                return self._routes.put(topic, key, known, known.size)
        route = yield from self._making(fitting, stored.rows, stored.owners)
        if is_lasting and (seen, live_seen) == (self._changes, self._live_changes):
            route = self._routes.put(topic, key, route, route.size)
        return route

    def _making(
        self, fitting: Sequence[str], stored: Sequence[StoredRow], owners: Mapping[str, Owner]
    ) -> Generator[None, None, TopicRoute]:
        live: dict[ConnectedSession, tuple[ConnectedSession, int, int]] = {}
        kept: dict[str, tuple[str, int, int]] = {}
        shared: defaultdict[tuple[str, str], list[Receiver]] = defaultdict(list)
        for candidate in fitting:
            for portion in portions(tuple(self._live.get(candidate, {}).values())):
                for attached, one in portion:
                    if one.share:
                        shared[one.share, candidate].append((attached.client, attached, one.qos, one.options))
                    else:
                        live[attached] = (attached, *_merge_options(live.get(attached), one))
                yield
        for some in portions(stored):
            for client, one in some:
                if one.share:
                    shared[one.share, one.topic_filter].append((client, None, one.qos, one.options))
                else:
                    kept[client] = (client, *_merge_options(kept.get(client), one))
            yield
        if not live and not kept and not shared:
            return NOWHERE
        shares = tuple([SharedSubscription(members, self._any_turn()) for members in shared.values()])
        return TopicRoute(tuple(live.values()), tuple(kept.values()), shares, owners)

    def _any_turn(self) -> int:
        """Return the initial rotation position of a shared subscription.

        Cached positions are lost with every change. Positions are spread evenly (Knuth, TAOCP volume 3, section 6.4),
        so that no member is first more often than others, however often shares are rebuilt.
        """
        self._shares_made += 1
        return (self._shares_made * _GOLDEN & _WORD) >> 32


def portions(some: Sequence[T], weight: int = 1) -> Iterator[Sequence[T]]:
    """Yield the items in portions of one time slice each."""
    count = max(PORTION // weight, 1)
    if len(some) <= count:
        if some:
            yield some
        return
    for at in range(0, len(some), count):
        yield some[at : at + count]


def run_steps(steps: Generator[None, None, T]) -> T:
    """Run all steps, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made


def _merge_options(existing: tuple[object, int, int] | None, subscription: Subscription) -> tuple[int, int]:
    """Return the merged QoS and options of a client's overlapping filters (section 3.3.5)."""
    if existing is None:
        return subscription.qos, subscription.options
    _, qos, had = existing
    options = (had | subscription.options) & RETAIN_AS_PUBLISHED | had & subscription.options & NO_LOCAL
    return max(qos, subscription.qos), options
