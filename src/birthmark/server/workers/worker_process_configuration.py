"""The place of a process among an installation's workers, and the configuration from its parent."""

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
    """Configuration from the parent: the worker's name, the bus, and bound sockets."""

    name: str
    bus: str
    """URL of NATS."""
    of: int
    """Number of workers on this machine."""
    sockets: Mapping[str, Sequence[int]]
    """Socket descriptors by address and port, in the notation of `at`."""
    prefix: str = ""
    """Prefix of the worker names of this machine."""


class WorkerContext:
    """A worker's place among the others. A single process binds its own ports and needs no bus."""

    def __init__(self, config: WorkerConfig | None = None) -> None:
        self._given = config
        self.name = MAIN if config is None else config.name

    @property
    def is_alone(self) -> bool:
        return self._given is None

    @property
    def bus(self) -> str:
        return "" if self._given is None else self._given.bus

    @property
    def of(self) -> int:
        """Number of workers on this machine."""
        return 1 if self._given is None else self._given.of

    @property
    def names(self) -> Sequence[str]:
        """Names of all workers of this machine."""
        return (MAIN,) if self._given is None else names_of(self._given.of, self._given.prefix)

    def is_name_unused(self, name: str) -> bool:
        """Return whether a worker name is no longer in use; names of other machines are not judged."""
        if name in self.names:
            return False
        prefix = "" if self._given is None else self._given.prefix
        own = name.removeprefix(prefix) if name.startswith(prefix) else ""
        return self.is_alone or name == MAIN or _OWN.fullmatch(own) is not None

    @property
    def is_first(self) -> bool:
        """Return whether this worker starts before all others."""
        return self.name == self.names[0]

    def door(self, directory: Path) -> Path:
        """Return the directory of this worker's Unix domain socket."""
        return directory if self._given is None else door_of(directory, self.name)

    async def bind(self, address: str, port: int) -> list[socket.socket]:
        """Return the sockets that the parent bound. Raise `OSError` if it could not bind them."""
        assert self._given is not None  # noqa: S101 - only for workers
        descriptors = self._given.sockets.get(at(address, port))
        if descriptors is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return [socket.socket(fileno=os.dup(one)) for one in descriptors]


def names_of(count: int, prefix: str = "") -> Sequence[str]:
    """Return the permanent names of `count` workers of a machine."""
    return [f"{prefix}w{number + 1}" for number in range(count)]


def door_of(directory: Path, worker: str) -> Path:
    """Return the directory of a worker's Unix domain socket."""
    return directory / "workers" / worker


def at(address: str, port: int) -> str:
    """Return the key of an address and a port."""
    return f"{address} {port}"
