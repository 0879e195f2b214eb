"""Connection limits within the process's limit of open file descriptors.

Connections get the descriptors that the rest of the process does not need. Otherwise a server accepts connections until
`accept` itself fails, and then serves no client.
"""

import dataclasses
import logging
import resource

from birthmark.errors import PolicyError
from birthmark.net.listener_limits import Limits

log = logging.getLogger(__name__)

RESERVE = 256  # health port connections, database, files, and clients being rejected
HEALTH_CONNECTIONS = 64
CONSOLE_PART = 16
"""Device connections per console connection; a browser opens up to six."""
_FEWEST = 16
_LEAST = 64
"""Minimum number of descriptors. With half of it a server starts, but fails on the first file."""


class DescriptorsShortError(PolicyError):
    """The limit of open files is too low for a server."""

    code = "server.descriptors_short"
    cause = "This process can open at most {allowed} files, but the server needs at least {least}."
    fix = "Run the server as root with a higher limit: `prlimit --nofile=1024:1024 {again}`"
    again: str = "birthmark serve"
    allowed: int
    least: int


def check_descriptors() -> None:
    """Raise `DescriptorsShortError` if the limit is too low to start a server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _LEAST:
        raise DescriptorsShortError(allowed=hard, least=_LEAST)


def fit_limits_to_descriptors(limits: Limits) -> Limits:
    """Raise the soft limit of this process as far as needed and allowed; return connection limits that fit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + limits.max_connections // CONSOLE_PART + RESERVE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return balance_limits(limits)
    fitting = max(_FEWEST, (soft - RESERVE) * CONSOLE_PART // (CONSOLE_PART + 1))
    log.log(
        logging.INFO if fitting >= limits.max_connections // 2 else logging.WARNING,
        "server.max_connections_lowered",
        extra={"descriptors": soft, "wanted": limits.max_connections, "max_connections": fitting},
    )
    return balance_limits(dataclasses.replace(limits, max_connections=fitting))


def shared_by(limits: Limits, workers: int) -> Limits:
    """Return the limits of one of several workers, so that all workers together stay within those of one.

    The limit per peer is unchanged, because the kernel distributes a peer's connections over any worker.
    """
    if workers == 1:
        return limits
    whole = (
        "max_connections",
        "max_unauthenticated",
        "max_unauthenticated_bytes",
        "max_pending_handshakes",
        "max_unread_bytes",
    )
    return dataclasses.replace(limits, **{name: -(-getattr(limits, name) // workers) for name in whole})


def balance_limits(limits: Limits) -> Limits:
    """Reserve half of the connections for authenticated clients.

    Half of the unauthenticated connections are reserved for other addresses.
    """
    unauthenticated = min(limits.max_unauthenticated, max(1, limits.max_connections // 2))
    each = min(limits.max_unauthenticated_per_peer, max(1, unauthenticated // 2))
    return dataclasses.replace(limits, max_unauthenticated=unauthenticated, max_unauthenticated_per_peer=each)


def for_console(limits: Limits) -> Limits:
    """Return the limits of the console port, which has separate connections; signed-in users count as authenticated."""
    most = max(2 * HEALTH_CONNECTIONS, limits.max_connections // CONSOLE_PART)
    unauthenticated = min(limits.max_unauthenticated, most // 2)
    each = unauthenticated * 3 // 4
    few = dataclasses.replace(limits, max_connections=most, max_connections_per_peer=most * 3 // 4)
    return dataclasses.replace(few, max_unauthenticated=unauthenticated, max_unauthenticated_per_peer=each)


def for_health(limits: Limits) -> Limits:
    """Return the limits of the health port.

    It has few, separate connections, so that load on other ports cannot hide the server's status.
    """
    few = dataclasses.replace(limits, max_connections=2 * HEALTH_CONNECTIONS, max_unauthenticated=HEALTH_CONNECTIONS)
    each = HEALTH_CONNECTIONS * 3 // 4
    return dataclasses.replace(few, max_unauthenticated_per_peer=each, max_connections_per_peer=2 * each)
