"""Fixes that depend on this machine and user.

Examples are directory ownership, and a secure element that the shell does not select.
"""

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice, product
from pathlib import Path

from birthmark.cli import simulated_chip_list
from birthmark.errors import BirthmarkError
from birthmark.flock import directory_of, open_files, parent_of
from birthmark.ownership_and_sudo_commands import OWN_DATA, SERVICE_DATA, as_owner, other_owner, starting
from birthmark.untrusted_json_and_text import visible_lines

_LISTENING = "0A"
_LOCK = "server.lock"
_PROC = Path("/proc")
_MOST_COMMANDS = 5


@dataclass(frozen=True, slots=True)
class PortHolder:
    """A server's process and its data directory."""

    pid: int
    data: Path


def find_port_holder(address: str, port: int) -> PortHolder | None:
    """Return the server that listens on a port; None without one, or if its process belongs to another user."""
    sockets = {f"socket:[{inode}]" for inode in _listening(address, port)}
    for process in sorted(_PROC.glob("[0-9]*"), key=lambda path: int(path.name)) if sockets else ():
        if sockets & {str(target) for target in open_files(process)}:
            for pid in (int(process.name), parent_of(process)):  # a worker's parent holds the lock
                if (data := directory_of(_PROC / str(pid), _LOCK)) is not None:
                    return PortHolder(pid, data)
    return None


def _listening(address: str, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port of an address, or of all addresses."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *more = line.split()
                host, _, number = local.partition(":")
                if state == _LISTENING and int(number, 16) == port and _host(host) in {address, "0.0.0.0", "::"}:  # noqa: S104 - compared
                    yield more[5]


def _host(text: str) -> str:
    """Return an address that the kernel prints as words in the machine's (little-endian) byte order."""
    words = bytes.fromhex(text)
    found = ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


_OF_ANOTHER = {
    "ca.secret_foreign",
    "ca.secret_unreadable",
    "operator.data_directory_closed",
    "server.data_directory_foreign",
}
_NO_CHIP = {"keys.token_not_found", "keys.module_missing"}
_LIBRARY = "BIRTHMARK_PKCS11_MODULE"


_HOST = re.compile(r"(?<![\w.-])([\w.-]+\.[\w-]+|localhost)(?=[:/ ]|$)")


def hint(error: BirthmarkError) -> str | None:
    """Return a more specific fix for an error, or None."""
    place = error.facts.get("path") or error.facts.get("data")
    if error.code in _OF_ANOTHER and place and (owner := other_owner(Path(place))) is not None:
        return f"Run it as {owner}, who owns that directory: `{as_owner(owner)}`"
    if error.code == "operator.server_not_running" and (owner := _owner_of_the_service(place)) is not None:
        there = f"The service of this machine has its data in {SERVICE_DATA}"
        own = f"To create your own: `{starting(Path(str(place)))}`"
        return f"{there}. To connect to it, run as {owner}: `{as_owner(owner, data=SERVICE_DATA)}`. {own}"
    if error.code == "server.data_directory_not_writable" and not _has_home():
        again = error.facts["again"]
        return (
            f"This user has no HOME to write to. To use a directory that is deleted at reboot: `{again} --data "
            '"$(mktemp -d)"`'
        )
    if (
        error.code in _NO_CHIP
        and not os.environ.get(_LIBRARY)
        and (command := simulated_chip_list.find_setup_command()) is not None
    ):
        return f"No chip is configured in a new terminal. To use the last simulated chip: `{command}`"
    if error.code == "pki.certificate_key_swapped" and place and place != os.environ.get("X509_CERT_FILE"):
        return f"Give the certificate's file in the place of {shlex.quote(place)}."
    return _OF_ONE[error.code](error) if error.code in _OF_ONE else None


def _unseen_hint(_error: BirthmarkError) -> str:
    each = islice(product(*map(_names_in, sys.argv[1:])), _MOST_COMMANDS + 1)
    commands = [shlex.join(["birthmark", *words]) for words in each]
    if len(commands) > _MOST_COMMANDS:
        return "These are several names. Run the command once for each."
    return "Without them: " + "; ".join(f"`{command}`" for command in commands)


def _names_in(word: str) -> list[str]:
    """Return the lines of a word without surrounding white space and invisible characters."""
    return visible_lines(word) or [""]


def _port_hint(error: BirthmarkError) -> str | None:
    facts = error.facts
    if (holder := find_port_holder(facts["address"], int(facts["port"]))) is None:
        return None
    own = f"The Birthmark server of {shlex.quote(str(holder.data))} has the port."
    other = f"{facts['without']} --listen 127.0.0.2"
    return f"{own} Listen on another address: `{other}`. Or stop that server: `kill {holder.pid}`"


def _proxy_hint(error: BirthmarkError) -> str | None:
    if "proxy" not in error.facts.get("reason", "").lower():
        return None
    host = _HOST.search(error.facts["target"])
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    past = ",".join(one for one in (others, host and host[1]) if one)
    without = f" To go there without it: `export no_proxy={shlex.quote(past)}`" if host else ""
    return f"The proxy set in https_proxy or all_proxy prevents the connection. Check it: `birthmark doctor`.{without}"


_OF_ONE: Mapping[str, Callable[[BirthmarkError], str | None]] = {
    "device.name_unseen": _unseen_hint,
    "fleet.target_unreachable": _proxy_hint,
    "net.port_taken": _port_hint,
}


def _owner_of_the_service(directory: str | None) -> str | None:
    """Return the owner of the service's data if the user gave no directory and has no data directory."""
    data = Path(OWN_DATA).expanduser()
    if directory != str(data) or data.exists() or not SERVICE_DATA.is_dir():
        return None
    return other_owner(SERVICE_DATA)


def _has_home() -> bool:
    return os.access(os.environ.get("HOME") or "/nonexistent", os.W_OK | os.X_OK)
