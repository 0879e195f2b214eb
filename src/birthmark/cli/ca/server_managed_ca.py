"""Ownership of a CA directory: these commands with their own inventory, or a server with its database.

A certificate issued or revoked outside the server is missing in its database. It could not be revoked there, and two
CRLs of one CA would have the same number.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from birthmark.ca.root_generation_directories import FIRST
from birthmark.errors import ConflictError
from birthmark.operator_api.data_directory_lock import is_served

_OF_A_SERVER = ("operator.token", "audit.seed")


class ServersCaError(ConflictError):
    """The CA of that directory belongs to a server."""

    code = "ca.of_a_server"
    cause = (
        "{path} belongs to the server with the data directory {data}. The server records its CA in its database, "
        "which would not contain changes made here. The server could not revoke the certificates, and the two CRLs "
        "would contradict each other."
    )
    fix = "{way}: `{command}`."
    command: str
    data: Path
    path: Path
    way: str


def server_of(directory: Path) -> Path | None:
    """Return the data directory of the server that owns this CA, running or not."""
    place = directory.resolve()
    if place.name != FIRST and not place.name.startswith(f"{FIRST}-"):
        return None
    data = place.parent
    is_one = any((data / name).exists() for name in _OF_A_SERVER) or is_served(data)
    return data if is_one else None


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """Equivalent command for the CA of a server."""

    way: str
    command: tuple[str, ...]
    asks_server: bool = True

    def check(self, directory: Path) -> None:
        """Raise `ServersCaError` if the CA belongs to a server."""
        if (data := server_of(directory)) is not None:
            place = ("--data", str(data)) if self.asks_server else ()
            command = shlex.join(["birthmark", *self.command, *place])
            raise ServersCaError(path=directory, data=data, way=self.way, command=command)


def by_est(name: str) -> ServerCommand:
    """Return the command for a device that enrolls at the server over EST."""
    way = "Enroll the device at the server over EST, with the configuration that this command prints"
    return ServerCommand(way, ("env", "--format", "aziot", "--registration-id", name))


def by_another(kind: str, *options: str, directory: str) -> ServerCommand:
    """Return the command that creates a separate CA for certificates that a server does not issue."""
    command = ("ca", "init", "--name", "My organization", *options, "--dir", directory)
    return ServerCommand(f"{kind} requires your own CA in a separate directory", command, asks_server=False)


def at_server(*command: str) -> ServerCommand:
    """Return the equivalent command on a server."""
    return ServerCommand("The server does it", command)
