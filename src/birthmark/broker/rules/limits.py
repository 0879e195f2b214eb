"""What a cloud allows in one space, and how a share of it that is used up is told."""

import msgspec

from birthmark.broker.rules.shares import share_of
from birthmark.net.limits import Limits

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
