"""Detection of two clients with one identity: their connections end each other alternately."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from birthmark.clock_and_entropy import Clock
from birthmark.errors import PolicyError

WITHIN_S = 600.0
RETURNS, MOST = 2, 8
"""Thresholds within that time: returns to an earlier address, and connections ended by the next one.

A device that lost its network ends its own connection once. A device that moves does not return.
"""
MAX_NAMES = 10_000


class IdentityContestedError(PolicyError):
    """Two clients use the same identity."""

    code = "mqtt.identity_contested"
    cause = (
        "Connections of {device_id} disconnected each other {count} times within 10 minutes. Two devices or two "
        "programs use the same identity, or its key was copied."
    )
    fix = (
        "To find the addresses of both clients: `birthmark why {device_id}`. If one client is not yours, revoke the "
        "device: `birthmark device revoke {device_id}`"
    )
    for_a_person = "the administrator has to identify the genuine device"
    count: int
    device_id: str


class TakeoverHistory:
    """Takeover history of the most recently affected names."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended: OrderedDict[str, deque[tuple[float, str]]] = OrderedDict()
        self._untold: dict[str, None] = {}
        """Names with new takeovers that other workers may need."""

    def record_takeover(self, name: str, address: str) -> IdentityContestedError | None:
        """Record that a newer connection ended the one of `name` from `address`; return the error of a conflict."""
        now = self._clock.monotonic()
        seen = self._ended.setdefault(name, deque(maxlen=MOST))
        self._ended.move_to_end(name)
        if len(self._ended) > MAX_NAMES:
            self._untold.pop(self._ended.popitem(last=False)[0], None)
        seen.append((now, address))
        while now - seen[0][0] > WITHIN_S:
            seen.popleft()
        if len(seen) > 1:
            self._untold[name] = None
        if len(seen) < MOST and count_returns([where for _, where in seen]) < RETURNS:
            return None
        count = len(seen)
        del self._ended[name]
        return IdentityContestedError(device_id=name, count=count)

    def take_updates(self, limit: int) -> Mapping[str, Sequence[tuple[float, str]]]:
        """Return, once, the names with several ended connections here: seconds ago and address of each.

        Empty if no name has at least two.
        """
        now, names = self._clock.monotonic(), list(self._untold)[:limit]
        for name in names:
            del self._untold[name]
        return {name: [(now - at, address) for at, address in self._ended.get(name, ())] for name in names}


def count_returns(places: Sequence[str]) -> int:
    """Return how often a client returned to an address after having used another."""
    before = [set(places[:number]) for number in range(len(places))]
    return sum(1 for number in range(1, len(places)) if places[number] in before[number] - {places[number - 1]})
