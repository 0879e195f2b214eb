"""Devices as lists and pages show them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from birthmark.devices.states import Order, State
from birthmark.people.model import SERVER

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
    states: Sequence[State] = ()
    last_seen: datetime | None = None
    ends: datetime | None = None


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
    state: State | None = None
    ending: timedelta = timedelta(days=30)
    """A certificate that ends within this time ends soon."""
    order: Order = Order.NAME


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
