"""Whose CA a directory holds: one that these commands keep the record of, or a server's, whose record is its database.

What is issued or revoked beside a server is on no record of it: nobody could take such a certificate back, and two
lists of one CA would have the same number.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from birthmark.ca.generations import FIRST
from birthmark.errors import ConflictError
from birthmark.operator_api.data_directory_lock import is_served

_OF_A_SERVER = ("operator.token", "audit.seed")


class ServersCaError(ConflictError):
    """The CA of that directory belongs to a server."""

    code = "ca.of_a_server"
    cause = (
        "{path} belongs to the server of {data}, which records its CA in its database. Changes here would"
        " not be in that database. The server could not revoke the certificates, and the two CRLs would "
        "contradict each other."
    )
    fix = "{way}: `{command}`."
    command: str
    data: Path
    path: Path
    way: str


def server_of(directory: Path) -> Path | None:
    """Return the data directory of the server whose CA this is, whether it runs now or not."""
    place = directory.resolve()
    if place.name != FIRST and not place.name.startswith(f"{FIRST}-"):
        return None
    data = place.parent
    is_one = any((data / name).exists() for name in _OF_A_SERVER) or is_served(data)
    return data if is_one else None


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What does it right where the CA is a server's."""

    way: str
    command: tuple[str, ...]
    asks_server: bool = True

    def check(self, directory: Path) -> None:
        """Raise `ServersCaError` where the CA is a server's."""
        if (data := server_of(directory)) is not None:
            place = ("--data", str(data)) if self.asks_server else ()
            command = shlex.join(["birthmark", *self.command, *place])
            raise ServersCaError(path=directory, data=data, way=self.way, command=command)


def by_est(name: str) -> ServerCommand:
    """A device asks the server itself."""
    way = "The device asks the server itself, by EST, with the configuration that this prints"
    return ServerCommand(way, ("env", "--format", "aziot", "--registration-id", name))


def by_another(kind: str, *options: str, directory: str) -> ServerCommand:
    """What the server gives nobody comes from a CA that is none of a server."""
    command = ("ca", "init", "--name", "My organization", *options, "--dir", directory)
    return ServerCommand(f"{kind} comes from your own CA, in its own directory", command, asks_server=False)


def at_server(*command: str) -> ServerCommand:
    """The server does the same."""
    return ServerCommand("The server does it", command)
