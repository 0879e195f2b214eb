"""The process may hold so many descriptors; connections get what the rest does not need.

Without this a server would accept until accept itself fails, and then nobody is served.
"""

import dataclasses
import logging
import resource

from birthmark.errors import PolicyError
from birthmark.net.limits import Limits

log = logging.getLogger(__name__)

RESERVE = 256  # the health port's connections, the database, files, and those who are being turned away
HEALTH_CONNECTIONS = 64
CONSOLE_PART = 16
"""For each so many connections of devices the console has one: a browser has up to six."""
_FEWEST = 16
_LEAST = 64
"""With half as many a server starts, and fails at the first file."""


class DescriptorsShortError(PolicyError):
    """The limit of open files is too low for a server."""

    code = "server.descriptors_short"
    cause = "This process can have {allowed} open files, and a server needs at least {least}."
    fix = "Run it as root with a higher limit: `prlimit --nofile=1024:1024 {again}`"
    again: str = "birthmark serve"
    allowed: int
    least: int


def check_descriptors() -> None:
    """Raise `DescriptorsShortError` where no server can start."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _LEAST:
        raise DescriptorsShortError(allowed=hard, least=_LEAST)


def fit_to_descriptors(limits: Limits) -> Limits:
    """Raise this process's soft limit as far as is needed and allowed; return limits that fit under what there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + limits.max_connections // CONSOLE_PART + RESERVE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return balanced(limits)
    fitting = max(_FEWEST, (soft - RESERVE) * CONSOLE_PART // (CONSOLE_PART + 1))
    log.log(
        logging.INFO if fitting >= limits.max_connections // 2 else logging.WARNING,
        "server.max_connections_lowered",
        extra={"descriptors": soft, "wanted": limits.max_connections, "max_connections": fitting},
    )
    return balanced(dataclasses.replace(limits, max_connections=fitting))


def shared_by(limits: Limits, workers: int) -> Limits:
    """Return what one of so many workers may take, so that together they take what one alone would.

    What one peer may take stays: the kernel gives its connections to whichever worker.
    """
    if workers == 1:
        return limits
    whole = ("max_connections", "max_strangers", "max_stranger_bytes", "max_pending_handshakes", "max_unread_bytes")
    return dataclasses.replace(limits, **{name: -(-getattr(limits, name) // workers) for name in whole})


def balanced(limits: Limits) -> Limits:
    """Keep half of the connections for those who authenticate, and half of the strangers' for other addresses."""
    strangers = min(limits.max_strangers, max(1, limits.max_connections // 2))
    each = min(limits.max_strangers_per_peer, max(1, strangers // 2))
    return dataclasses.replace(limits, max_strangers=strangers, max_strangers_per_peer=each)


def for_console(limits: Limits) -> Limits:
    """The port of the console has connections of its own: who is signed in by them is no stranger."""
    most = max(2 * HEALTH_CONNECTIONS, limits.max_connections // CONSOLE_PART)
    strangers = min(limits.max_strangers, most // 2)
    each = strangers * 3 // 4
    few = dataclasses.replace(limits, max_connections=most, max_connections_per_peer=most * 3 // 4)
    return dataclasses.replace(few, max_strangers=strangers, max_strangers_per_peer=each)


def for_health(limits: Limits) -> Limits:
    """The health port has few connections, of its own: who fills the others cannot hide that the server lives."""
    few = dataclasses.replace(limits, max_connections=2 * HEALTH_CONNECTIONS, max_strangers=HEALTH_CONNECTIONS)
    each = HEALTH_CONNECTIONS * 3 // 4
    return dataclasses.replace(few, max_strangers_per_peer=each, max_connections_per_peer=2 * each)
