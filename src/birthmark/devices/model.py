"""Devices as lists and pages show them, and the outcomes of a revocation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from birthmark.errors import NotFoundError
from birthmark.iam.model import SERVER
from birthmark.untrusted_json_and_text import visible_lines


class DeviceNotOnRecordError(NotFoundError):
    """No record of the device exists."""

    code = "device.not_on_record"
    cause = "This server has no certificate, credential, enrollment, hub device or thing with the name '{name}'."
    fix = (
        "To check the spelling, list the devices: `birthmark device ls`. To block the name before a device uses it: "
        "`birthmark device revoke {name} --block --yes`."
    )
    name: str


class DeviceNameUnseenError(DeviceNotOnRecordError):
    """No record of the name exists, and it has invisible characters."""

    code = "device.name_unseen"
    cause = (
        "This server has no record with the name '{name}', which contains invisible characters or surrounding spaces."
    )
    fix = (
        "To check the spelling, list the devices: `birthmark device ls`. Without these characters, the name is {seen}."
    )

    @property
    def seen(self) -> str:
        return ", ".join(visible_lines(self.name))


class RevocationOutcome(StrEnum):
    """Outcome of a revocation for one part of a device."""

    REVOKED = "taken back"
    WOULD_REVOKE = "would be taken back"
    WAS_REVOKED = "was taken back"
    LEFT = "left"
    """Other devices share it, or this server cannot reach it: an operator decides."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RevokedPart:
    """A row of the response. Its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    became: RevocationOutcome
    note: str = ""
    command: str = ""
    """Next command for the operator, if action remains."""


class DeviceState(StrEnum):
    """State of a device at a place, as far as it is known there."""

    REVOKED = "revoked"
    """Revoked with its name: no certificate is issued for it."""
    CONNECTED = "connected"
    AWAY = "away"
    """Known at a hub or an account, but not connected."""
    DISABLED = "disabled"
    """Disabled at a hub, where it may not connect."""
    UNASSIGNED = "unassigned"
    """Enrolled individually, but never registered."""
    ENDING = "ending"
    """Its last valid certificate expires soon."""
    REFUSED = "refused"
    """A request of the device was rejected within the retention period of refusals."""


class DeviceOrder(StrEnum):
    """Sort order of devices."""

    NAME = "name"
    ENDS = "ends"
    """Only devices with certificates of this server's CAs, earliest expiry first."""


IsVisible: TypeAlias = Callable[[str], bool]
"""Predicate: whether the caller may read a scope: `aws`, `server`, `hub/NAME` or `dps/NAME`."""


@dataclass(frozen=True, slots=True)
class DevicePart:
    """A device's record at one service. Its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A device in a list: the scopes that have it and its states, most severe first.

    `after` is the continuation marker behind it. `ends` is the expiry of its last certificate of this server's CAs.
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
    """A page of devices, which may be empty, and the marker of the next page."""

    items: Sequence[ListedDevice]
    next: str | None


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Filter of a device list: by prefix of a word in the name, by scope, by state."""

    begin: str = ""
    scope: str = ""
    state: DeviceState | None = None
    ending: timedelta = timedelta(days=30)
    """A certificate that expires within this time expires soon."""
    order: DeviceOrder = DeviceOrder.NAME


@dataclass(frozen=True, slots=True)
class DeviceTotal:
    """Number of devices in a list; with `is_more`, a lower bound."""

    count: int
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """Number of devices in a scope. Its fields are the stable JSON form, None where nothing counts them."""

    at: str
    on_record: int | None = None
    connected: int | None = None
    disabled: int | None = None
    unassigned: int | None = None


def scope_of(location: str) -> str:
    """Return the role assignment scope of a part's location, such as `hub/main` for `hub main`."""
    kind, _, name = location.partition(" ")
    if kind in {"hub", "dps"} and name:
        return f"{kind}/{name}"
    return "aws" if kind == "aws" else SERVER
