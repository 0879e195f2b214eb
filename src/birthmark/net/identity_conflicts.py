"""Notices that two use one identity: their connections end each other by turns."""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

from birthmark.clock import Clock
from birthmark.errors import PolicyError

WITHIN_S = 600.0
RETURNS, MOST = 2, 8
"""How often within that time it goes back to an address that it was at before another; and how often a connection is
ended by the next at all. A device that lost its network ends its own once, and one that moves does not go back."""
MAX_NAMES = 10_000


class IdentityContestedError(PolicyError):
    """Two clients use the same identity."""

    code = "mqtt.identity_contested"
    cause = (
        "Connections of {device_id} ended each other {count} times within 10 minutes. Two devices or two "
        "programs use the same identity, or its key was copied."
    )
    fix = (
        "Find both by their addresses: `birthmark why {device_id}`. If one is not yours, revoke the "
        "device: `birthmark device revoke {device_id}`"
    )
    for_a_person = "the administrator has to identify the genuine device"
    count: int
    device_id: str


class TakeoverHistory:
    """What was seen of each name, of those that were ended last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended: OrderedDict[str, deque[tuple[float, str]]] = OrderedDict()
        self._untold: dict[str, None] = {}
        """Names of which something is new that other workers may want to know."""

    def ended(self, name: str, address: str) -> IdentityContestedError | None:
        """Note that the connection of `name` from `address` was ended by the next; return why somebody has to look."""
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
        if len(seen) < MOST and returns([where for _, where in seen]) < RETURNS:
            return None
        count = len(seen)
        del self._ended[name]
        return IdentityContestedError(device_id=name, count=count)

    def news(self, most: int) -> Mapping[str, Sequence[tuple[float, str]]]:
        """Return, once, of which names several connections were ended here: how many seconds ago, and at which address.

        Without any where two were noticed here, and all is said.
        """
        now, names = self._clock.monotonic(), list(self._untold)[:most]
        for name in names:
            del self._untold[name]
        return {name: [(now - at, address) for at, address in self._ended.get(name, ())] for name in names}


def returns(places: Sequence[str]) -> int:
    """Return how often somebody came back to a place after having been at another."""
    before = [set(places[:number]) for number in range(len(places))]
    return sum(1 for number in range(1, len(places)) if places[number] in before[number] - {places[number - 1]})
