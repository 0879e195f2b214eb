"""Which worker of an installation a process is, and what its parent gave it."""

import errno
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from birthmark.store.database_lock import MAIN

_OWN = re.compile(r"w[0-9]+")


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a parent hands to a worker: its name, how to reach the others, and sockets that are bound."""

    name: str
    bus: str
    """The URL of NATS."""
    of: int
    """How many workers there are on this machine."""
    sockets: Mapping[str, Sequence[int]]
    """Descriptors by address and port, as `at` writes them."""
    prefix: str = ""
    """What the names of this machine's workers begin with."""


class WorkerContext:
    """One process among others. Alone it binds its ports by itself and needs no bus."""

    def __init__(self, given: WorkerConfig | None = None) -> None:
        self._given = given
        self.name = MAIN if given is None else given.name

    @property
    def is_alone(self) -> bool:
        return self._given is None

    @property
    def bus(self) -> str:
        return "" if self._given is None else self._given.bus

    @property
    def of(self) -> int:
        """How many share this machine."""
        return 1 if self._given is None else self._given.of

    @property
    def names(self) -> Sequence[str]:
        """What all of this machine are called."""
        return (MAIN,) if self._given is None else names_of(self._given.of, self._given.prefix)

    def is_no_more(self, name: str) -> bool:
        """Say whether nobody has this name of a worker any more; other machines' are theirs to know."""
        if name in self.names:
            return False
        prefix = "" if self._given is None else self._given.prefix
        own = name.removeprefix(prefix) if name.startswith(prefix) else ""
        return self.is_alone or name == MAIN or _OWN.fullmatch(own) is not None

    @property
    def is_first(self) -> bool:
        """Say whether this one starts before all others."""
        return self.name == self.names[0]

    def door(self, directory: Path) -> Path:
        """Return the directory of this worker's own door."""
        return directory if self._given is None else door_of(directory, self.name)

    async def bind(self, address: str, port: int) -> list[socket.socket]:
        """Return the sockets that the parent bound. Raise `OSError` where it could not."""
        assert self._given is not None  # noqa: S101 - asked of workers alone
        descriptors = self._given.sockets.get(at(address, port))
        if descriptors is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return [socket.socket(fileno=os.dup(one)) for one in descriptors]


def names_of(count: int, prefix: str = "") -> Sequence[str]:
    """Return what so many workers of a machine are called, for good."""
    return [f"{prefix}w{number + 1}" for number in range(count)]


def door_of(directory: Path, worker: str) -> Path:
    """Return the directory of a worker's own door."""
    return directory / "workers" / worker


def at(address: str, port: int) -> str:
    """Return the key of an address and a port."""
    return f"{address} {port}"
