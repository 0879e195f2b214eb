"""Who gets a message: clients that are connected, sessions that are stored, members of shared subscriptions.

What is connected with a clean session stands in memory; of stored sessions only the shapes of their filters do, and
the filters are looked up. What a topic led to is remembered until a subscription changes (`rules.known`).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from birthmark.broker.model import NO_LOCAL, RETAIN_AS_PUBLISHED, Subscription
from birthmark.broker.rules.known import Known
from birthmark.broker.rules.matching import Shapes, shape_of

if TYPE_CHECKING:
    from birthmark.broker.attached import Attached

Receiver: TypeAlias = "tuple[str, Attached | None, int, int]"
"""Client id; its connection, where the session is not stored; QoS; options."""


class Share:
    """The members of one shared subscription; each message goes to one of them."""

    __slots__ = ("_turn", "members")

    def __init__(self, members: Sequence[Receiver]) -> None:
        self.members = members
        self._turn = 0

    def in_turn(self) -> Sequence[Receiver]:
        """Return the members, another one first each time."""
        self._turn = (self._turn + 1) % len(self.members)
        return (*self.members[self._turn :], *self.members[: self._turn])


Owner: TypeAlias = tuple[str | None, bool]
"""Where several workers share a database: the worker that has a session, and whether the session is kept."""


class Route:
    """Where the messages of one topic go."""

    __slots__ = ("is_live_only", "live", "owners", "shares", "size", "stored")

    def __init__(
        self,
        live: "Sequence[tuple[Attached, int, int]]",
        stored: Sequence[tuple[str, int, int]],
        shares: Sequence[Share],
        owners: Mapping[str, Owner],
    ) -> None:
        self.owners = owners
        self.live = live
        self.stored = stored
        self.shares = shares
        self.is_live_only = not stored and not shares
        self.size = len(live) + len(stored) + sum(len(share.members) for share in shares)


NOWHERE = Route((), (), (), {})
StoredRow: TypeAlias = tuple[str, Subscription]


class Found(NamedTuple):
    """What was looked up of a topic: the filters that fit it, and who has them stored."""

    filters: frozenset[str]
    rows: Sequence[StoredRow]


_NOTHING = Found(frozenset(), ())


class Router:
    """The subscriptions of one space."""

    def __init__(self, *, hash_matches_parent: bool) -> None:
        self.stored_shapes = Shapes(hash_matches_parent=hash_matches_parent)
        self._shapes = Shapes(hash_matches_parent=hash_matches_parent)
        self._live: defaultdict[str, dict[tuple[str, str], tuple[Attached, Subscription]]] = defaultdict(dict)
        self._routes: Known[Route] = Known()
        self._stored: Known[Found] = Known()
        self._route_of = self._routes.of.get
        self._changes = 0

    # ---- changes

    def add(self, attached: "Attached", subscription: Subscription) -> None:
        """Enter a filter of a session that is not stored."""
        key = (attached.client, subscription.share)
        here = self._live[subscription.topic_filter]
        if key not in here:
            self._shapes.add(shape_of(subscription.topic_filter))
        here[key] = (attached, subscription)
        self._routes.clear()

    def remove(self, attached: "Attached", subscription: Subscription) -> None:
        """Take a filter out again."""
        here = self._live.get(subscription.topic_filter, {})
        known = here.get((attached.client, subscription.share))
        if known is None or known[0] is not attached:
            return
        del here[attached.client, subscription.share]
        if not here:
            del self._live[subscription.topic_filter]
        self._shapes.discard(shape_of(subscription.topic_filter))
        self._routes.clear()

    def stored_changed(self) -> None:
        """Forget what was looked up: subscriptions of stored sessions changed."""
        self._changes += 1
        self._stored.clear()
        self._routes.clear()

    # ---- look-ups

    def find(self, topic: str) -> Route | None:
        """Return the route of a topic; None when stored subscriptions have to be looked up first."""
        if (known := self._route_of(topic)) is not None:
            return known
        if not len(self.stored_shapes):
            return self._made(topic, _NOTHING)
        stored = self._stored.of.get(topic)
        return None if stored is None else self._made(topic, stored)

    def candidates(self, topic: str) -> str:
        """Return the filters to look up, as JSON."""
        return json.dumps(self.stored_shapes.candidates(topic))

    @property
    def changes(self) -> int:
        """Grows with every change of what is stored."""
        return self._changes

    def looked_up(
        self, topic: str, rows: Sequence[StoredRow], seen: int, owners: Mapping[str, Owner] | None = None
    ) -> Route:
        """Return the route of a topic, with what was looked up when `changes` was `seen`.

        With `owners` it is of this one message only: other workers may change what it depends on.
        """
        if seen != self._changes or owners is not None:
            return self._make(self._fitting(topic), rows, owners or {})
        filters = frozenset([one.topic_filter for _, one in rows])
        return self._made(topic, self._stored.put(topic, filters, Found(filters, rows), len(rows)))

    def _fitting(self, topic: str) -> tuple[str, ...]:
        """Return the filters of sessions in memory that a topic fits."""
        if not len(self._shapes):
            return ()
        return tuple([one for one in self._shapes.candidates(topic) if one in self._live])

    def _made(self, topic: str, stored: Found) -> Route:
        fitting = self._fitting(topic)
        key = fitting, stored.filters
        if (route := self._routes.find(key)) is None:
            route = self._make(fitting, stored.rows)
        return self._routes.put(topic, key, route, route.size)

    def _make(
        self, fitting: Sequence[str], stored: Sequence[StoredRow], owners: Mapping[str, Owner] | None = None
    ) -> Route:
        live: dict[Attached, tuple[int, int]] = {}
        kept: dict[str, tuple[int, int]] = {}
        shared: defaultdict[tuple[str, str], list[Receiver]] = defaultdict(list)
        for candidate in fitting:
            for attached, one in self._live[candidate].values():
                if one.share:
                    shared[one.share, candidate].append((attached.client, attached, one.qos, one.options))
                else:
                    live[attached] = _joined(live.get(attached), one)
        for client, one in stored:
            if one.share:
                shared[one.share, one.topic_filter].append((client, None, one.qos, one.options))
            else:
                kept[client] = _joined(kept.get(client), one)
        if not live and not kept and not shared:
            return NOWHERE
        return Route(
            tuple([(attached, qos, options) for attached, (qos, options) in live.items()]),
            tuple([(client, qos, options) for client, (qos, options) in kept.items()]),
            tuple([Share(members) for members in shared.values()]),
            owners or {},
        )


def _joined(known: tuple[int, int] | None, one: Subscription) -> tuple[int, int]:
    """Several filters of one client fit: it gets the message once, by the best of what they ask (section 3.3.5)."""
    if known is None:
        return one.qos, one.options
    options = (known[1] | one.options) & RETAIN_AS_PUBLISHED | known[1] & one.options & NO_LOCAL
    return max(known[0], one.qos), options
