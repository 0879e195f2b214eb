"""Checks of the owners and permissions of configuration files, the PKCS#11 library and files with secrets."""

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from birthmark.agent.config import model
from birthmark.agent.config.toml_tables import ConfigMissingError
from birthmark.ownership_and_sudo_commands import restrict_command

_MOST_LINKS = 40  # same as the kernel
_GROUP_READS, _ALL_READ, _ALL_WRITE = 0o040, 0o004, 0o002
_SECRETS = "password|connection_string|symmetric_key|device_id_pk|endorsement|owner|hierarchy_authorization"
_SECRET = re.compile(rf"(?m)^[ \t]*({_SECRETS})[ \t]*=(?!.*uri *=)")


def check_owner(path: Path, status: os.stat_result, of_file: os.stat_result) -> None:
    """Raise `ConfigMissingError` if root would apply a drop-in file that another user wrote."""
    if _is_writable_by_others(status, of_file):
        error = ConfigMissingError(file=path, reason="other users than root can write to it")
        quoted = shlex.quote(str(path))
        error.quote(fix=f"Read it. If all of it is right: `chown root {quoted} && chmod o-w {quoted}`")
        raise error


def check_library(library: Path, of_file: os.stat_result) -> None:
    """Raise `ConfigMissingError` if root would load a PKCS#11 library that another user can replace.

    Bare names are resolved by the system, which searches directories owned by root.
    """
    if os.geteuid() != 0 or len(library.parts) == 1:
        return
    for path in _iterate_path_components(library):
        seen = path.lstat() if os.path.lexists(path) else None
        if seen is None and path.parent.stat().st_mode & _ALL_WRITE:  # also a sticky directory
            raise _unsafe_library(library, path.parent)
        if seen is not None and _is_writable_by_others(seen, of_file):
            raise _unsafe_library(library, path)
        if seen is None:
            return


def _iterate_path_components(library: Path) -> Iterator[Path]:
    """Yield every directory, link, and file on the path to a library.

    Raise `ConfigMissingError` for link loops.
    """
    path, left, links = Path("/"), list(library.absolute().parts[1:]), 0
    yield path
    while left:
        here = path / left.pop(0)
        yield here
        if here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise ConfigMissingError(file=library, reason="its symbolic links form a loop")
            target = here.readlink()
            left = [*target.parts[target.is_absolute() :], *left]
            here = Path("/") if target.is_absolute() else path
        path = path.parent if here.name == ".." else here


def _unsafe_library(library: Path, path: Path) -> ConfigMissingError:
    error = ConfigMissingError(file=library, reason="another user can write to it")
    own = Path("/usr/local/lib/birthmark") / library.name
    copy = f"install -D -m 644 {shlex.quote(str(library))} {shlex.quote(str(own))}"
    error.quote(
        message="The PKCS#11 library is not safe to load.",
        cause=f"root does not load the PKCS#11 library {library}: another user can write to {path}.",
        fix=f"If it is the right library: `{copy}`. Then in [aziot_keys]: `pkcs11_lib_path = {json.dumps(str(own))}`",
    )
    return error


def _is_writable_by_others(status: os.stat_result, of_file: os.stat_result) -> bool:
    """Return whether this process is root and another user than root or the configuration's owner may write there.

    In a sticky directory, other users cannot rename or remove root's files. A link's own mode is irrelevant.
    """
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    is_open = status.st_mode & _ALL_WRITE and not (is_sticky or stat.S_ISLNK(status.st_mode))
    return os.geteuid() == 0 and (status.st_uid not in {0, of_file.st_uid} or bool(is_open))


def find_exposed_secrets(file: Path, text: str, status: os.stat_result) -> list[model.ConfigWarning]:
    """Return a warning for the first secret in a file that other users can read.

    A file owned by root that one group may read is accepted: the agent's service does not run as root.
    """
    is_open = status.st_mode & _ALL_READ or (status.st_mode & _GROUP_READS and (status.st_uid or not status.st_gid))
    if not is_open or (secret := _SECRET.search(text)) is None:
        return []
    mode = f"{status.st_mode & 0o777:04o}"
    detail = f"is in a file that other users can read (mode {mode}): {restrict_command(file, status.st_uid)}"
    line = text[: secret.start()].count("\n") + 1
    return [model.ConfigWarning(line, secret[1], detail, file)]
