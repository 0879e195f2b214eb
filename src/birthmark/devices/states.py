"""How devices stand, as lists of them are asked for."""

from enum import StrEnum


class State(StrEnum):
    """How a device stands at a place, as far as that is known there."""

    REVOKED = "revoked"
    """Revoked with its name: no certificate is issued for it."""
    CONNECTED = "connected"
    AWAY = "away"
    """At a hub or an account, and not connected."""
    DISABLED = "disabled"
    """At a hub, where it may not connect."""
    UNASSIGNED = "unassigned"
    """Enrolled by itself, and never registered."""
    ENDING = "ending"
    """The last of its certificates that are alive ends soon."""
    REFUSED = "refused"
    """Something was refused it within the time that refusals are kept."""


class Order(StrEnum):
    """In which order devices are listed."""

    NAME = "name"
    ENDS = "ends"
    """Those with certificates of this server's CAs alone, the first to end first."""
