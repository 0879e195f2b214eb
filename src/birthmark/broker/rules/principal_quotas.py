"""Quotas of shared resources per principal: no principal can exhaust the resources of all."""

from collections import Counter

import msgspec

from birthmark.net.listener_limits import Limits

_PART, _LEAST = 4, 4


def share_of(whole: int, limit: int | None = None) -> int:
    """Return one principal's share of `whole`: a fourth, at least four, at most `limit`."""
    share = max(_LEAST, whole // _PART)
    return share if limit is None else min(share, limit)


class Portions:
    """Resources by name, each with the principal that created it since this process started.

    All unknown principals share one quota.
    """

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, int | None, int]] = {}
        self._counts: Counter[str] = Counter()

    def has_room(self, principal: str, whole: int, limit: int | None = None) -> bool:
        """Return whether a principal may create one more resource of which `whole` may exist."""
        return self._counts[principal] < share_of(whole, limit)

    def owner(self, name: str) -> str:
        """Return the principal that created a resource, or an empty string if unknown."""
        return self._owners.get(name, ("", None, 0))[0]

    def add(self, name: str, principal: str, expires_at: int | None = None, timestamp: int = 0) -> None:
        """Record a resource with its principal, creation time and expiry.

        An existing one keeps its principal.
        """
        maker = principal
        if name in self._owners:
            maker, _, _ = self._owners[name]
        else:
            self._counts[principal] += 1
        self._owners[name] = maker, expires_at, timestamp

    def forget_expired(self, now: int, since: int = 0) -> None:
        """Remove the expired resources, except those created before `since`."""
        for name, (_, expires_at, at) in tuple(self._owners.items()):
            if expires_at is not None and expires_at <= now and at >= since:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a resource."""
        if name in self._owners:
            owner, _, _ = self._owners.pop(name)
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]


MAX_SESSIONS = 500_000
MAX_RETAINED = 100_000
MAX_WAITING = 1000


class SpaceRules(msgspec.Struct, frozen=True):
    """Limits of a namespace."""

    max_sessions: int = MAX_SESSIONS
    max_sessions_per_key: int = Limits().max_sessions_per_key
    max_waiting: int = MAX_WAITING
    max_retained: int = MAX_RETAINED
    hash_matches_parent: bool = True
    routes: bool = True
    """Whether messages are routed by topic; if not, a session only stores its subscriptions."""


def bounds_of_sessions(whole: int, limit: int) -> dict[str, str]:
    """Return the error facts of an exhausted session quota, with the setting that increases it."""
    share = share_of(whole, limit)
    if share == limit:
        return {"share": str(share), "setting": "limits.max_sessions_per_key", "value": str(2 * limit)}
    return {"share": str(share), "setting": "aws.max_sessions", "value": str(2 * whole)}
