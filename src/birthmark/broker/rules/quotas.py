"""How many of what all share each principal has made: nobody uses up what is there for all."""

from collections import Counter

import msgspec

from birthmark.net.limits import Limits

_PART, _LEAST = 4, 4


def share_of(whole: int, most: int | None = None) -> int:
    """Return how many of the whole one principal may have: a fourth, and four where there are few; `most` at most."""
    share = max(_LEAST, whole // _PART)
    return share if most is None else min(share, most)


class Portions:
    """Things by their names, each with the principal that made it, since this process began.

    Who is not known is one principal, and has one's share.
    """

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, int | None, int]] = {}
        self._counts: Counter[str] = Counter()

    def has_room(self, principal: str, whole: int, most: int | None = None) -> bool:
        """Say whether a principal may make one more of something of which there may be `whole`."""
        return self._counts[principal] < share_of(whole, most)

    def owner(self, name: str) -> str:
        """Return who made a thing; nothing where that is not known."""
        return self._owners.get(name, ("", None, 0))[0]

    def add(self, name: str, principal: str, expires_at: int | None = None, at: int = 0) -> None:
        """Note who made a thing, when, and when it goes by itself; one that is there stays its maker's."""
        maker = principal
        if name in self._owners:
            maker, _, _ = self._owners[name]
        else:
            self._counts[principal] += 1
        self._owners[name] = maker, expires_at, at

    def forget_expired(self, now: int, since: int = 0) -> None:
        """Note that what had its time is gone, but for what was made before `since`."""
        for name, (_, expires_at, at) in tuple(self._owners.items()):
            if expires_at is not None and expires_at <= now and at >= since:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Note that a thing is gone."""
        if name in self._owners:
            owner, _, _ = self._owners.pop(name)
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]


MAX_SESSIONS = 500_000
MAX_RETAINED = 100_000
MAX_WAITING = 1000


class SpaceRules(msgspec.Struct, frozen=True):
    """What a cloud allows in one space."""

    max_sessions: int = MAX_SESSIONS
    max_sessions_per_key: int = Limits().max_sessions_per_key
    max_waiting: int = MAX_WAITING
    max_retained: int = MAX_RETAINED
    hash_matches_parent: bool = True
    routes: bool = True
    """Messages go by topic to whoever subscribed; without, a session keeps its subscriptions and nothing else."""


def bounds_of_sessions(whole: int, most: int) -> dict[str, str]:
    """Return the facts of a share of the stored sessions that is used up, with the setting that makes it larger."""
    share = share_of(whole, most)
    if share == most:
        return {"share": str(share), "setting": "limits.max_sessions_per_key", "value": str(2 * most)}
    return {"share": str(share), "setting": "aws.max_sessions", "value": str(2 * whole)}
