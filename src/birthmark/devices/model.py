"""Devices as lists and pages show them, and what a revocation did."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from birthmark.errors import NotFoundError
from birthmark.iam.model import SERVER
from birthmark.untrusted_text import visible_lines


class DeviceNotOnRecordError(NotFoundError):
    """Nothing is on record of that device."""

    code = "device.not_on_record"
    cause = "Nothing here is of '{name}': no certificate, credential, enrollment, hub device or thing."
    fix = (
        "See how it is spelled: `birthmark device ls`. To shut the name out all the same, before a device comes by "
        "it: `birthmark device revoke {name} --block --yes`."
    )
    name: str


class DeviceNameUnseenError(DeviceNotOnRecordError):
    """Nothing is on record of a name with characters that are not seen."""

    code = "device.name_unseen"
    cause = "Nothing here is of '{name}', which has white space around it or characters that are not seen."
    fix = "See how it is spelled: `birthmark device ls`. Without them it is {seen}."

    @property
    def seen(self) -> str:
        return ", ".join(visible_lines(self.name))


class RevocationOutcome(StrEnum):
    """What happened to a part of a device."""

    REVOKED = "taken back"
    WOULD_REVOKE = "would be taken back"
    WAS_REVOKED = "was taken back"
    LEFT = "left"
    """Other devices use it too, or this server cannot reach it: an operator decides."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RevokedPart:
    """A row of the answer. Its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    became: RevocationOutcome
    note: str = ""
    command: str = ""
    """The command that an operator types next, where something is left to do."""


class DeviceState(StrEnum):
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


class DeviceOrder(StrEnum):
    """In which order devices are listed."""

    NAME = "name"
    ENDS = "ends"
    """Those with certificates of this server's CAs alone, the first to end first."""


IsVisible: TypeAlias = Callable[[str], bool]
"""Whether the caller may read a scope: `aws`, `server`, `hub/NAME` or `dps/NAME`."""


@dataclass(frozen=True, slots=True)
class DevicePart:
    """What one service has of a device. Its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A device of a list: the scopes that have it, and its states, the worst first.

    `after` is the marker of the page behind it. `ends` is the end of its last certificate of this server's CAs.
    """

    name: str
    scopes: Sequence[str]
    after: str
    states: Sequence[DeviceState] = ()
    last_seen: datetime | None = None
    ends: datetime | None = None
    tags: Sequence[str] = ()
    """Tags of its twins and attributes of its thing, as `site=oslo` or `line.number=3`."""


@dataclass(frozen=True, slots=True)
class DeviceListPage:
    """A page of devices, which may be empty, and the marker of the next one."""

    items: Sequence[ListedDevice]
    next: str | None


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices a list has: by the beginning of a word of the name, by scope, by state."""

    begin: str = ""
    scope: str = ""
    state: DeviceState | None = None
    ending: timedelta = timedelta(days=30)
    """A certificate that ends within this time ends soon."""
    order: DeviceOrder = DeviceOrder.NAME


@dataclass(frozen=True, slots=True)
class DeviceTotal:
    """How many devices a list has; with `is_more`, at least so many."""

    count: int
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """How many devices a scope has. Its fields are the stable JSON form, None where nothing counts them."""

    at: str
    on_record: int | None = None
    connected: int | None = None
    disabled: int | None = None
    unassigned: int | None = None


def scope_of(place: str) -> str:
    """Return the scope of a role assignment that covers a part's place, such as `hub/main` for `hub main`."""
    kind, _, name = place.partition(" ")
    if kind in {"hub", "dps"} and name:
        return f"{kind}/{name}"
    return "aws" if kind == "aws" else SERVER
