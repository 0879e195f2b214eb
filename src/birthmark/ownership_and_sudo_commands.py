"""Ownership of directories, and commands that run as another user, so that a fix works for its reader."""

import contextlib
import errno
import grp
import os
import pwd
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

OWN_DATA = "~/.local/share/birthmark"
"""Default data directory of a server, also for lookups."""
SERVICE_DATA = Path("/var/lib/birthmark")
"""Data directory of the service that `birthmark server install` creates."""
SERVICE = "birthmark-server"
AGENT = "birthmark-agent"
"""User that owns the files of the agent service, and group that reads its configuration."""
_KEPT = "BIRTHMARK_DATA"  # not preserved by sudo


def other_owner(path: Path) -> str | None:
    """Return the name of another user as the owner of the directory `path`, or of its nearest existing directory.

    None if this user owns it, or if the owner has no name, because no user can then act as the owner.
    """
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):  # missing, or in a closed directory
            if place.is_dir():
                return None if place.stat().st_uid == os.geteuid() else _name(place)
    return None


def as_owner(owner: str, words: Sequence[str] | None = None, data: Path | None = None) -> str:
    """Return the command that runs `birthmark` with `words` as `owner`; default: the current command.

    `data` names a directory other than the one in this user's environment.
    """
    asked = sys.argv[1:] if words is None else words
    program = shutil.which(sys.argv[0]) or sys.argv[0]  # sudo has its own search path
    named = ["env", f"{_KEPT}={data}"] if data is not None else []
    if os.geteuid() == 0:
        return shlex.join(["runuser", "-u", owner, "--", *named, program, *asked])
    if shutil.which("sudo") is None:
        return as_root(shlex.join(["runuser", "-u", owner, "--", *named, program, *asked]))
    kept = ["env", f"{_KEPT}={os.environ[_KEPT]}"] if _KEPT in os.environ else []
    return shlex.join(["sudo", "-u", owner, *(named or kept), program, *asked])


def as_root(command: str) -> str:
    """Return the command that runs a command as root: by sudo, or by su if sudo is not installed."""
    return f"sudo {command}" if shutil.which("sudo") else shlex.join(["su", "-c", command])


def as_root_with(variable: str, command: str) -> str:
    """Return the command that runs a command as root with a variable of this shell, which holds a file name."""
    before, _, after = command.partition(f"${variable}")
    if shutil.which("sudo"):
        return f'sudo {before}"${variable}"{after}'
    return f'su -c {shlex.quote(before)}"${variable}"{shlex.quote(after)}'


def starting(data: Path, database: str | None = None) -> str:
    """Return the command that starts the server of a data directory from this user's shell.

    `database` is set if it is not the directory's own.
    """
    if data == SERVICE_DATA:
        command = f"systemctl start {SERVICE}"
        return command if os.geteuid() == 0 else as_root(command)
    words = ["serve", "--data", str(data), *(["--database", database] if database is not None else [])]
    owner = other_owner(data)
    return f"{shlex.join(['birthmark', *words]) if owner is None else as_owner(owner, words)} &"


def transfer_ownership(path: Path, whose: Path) -> None:
    """Transfer a path that root wrote, and everything below it, to the owner of the directory `whose`.

    The owner could not read it otherwise. Nothing changes for a user other than root, or for a path that root does not
    own. That owner may have placed a symbolic or hard link there.
    """
    if os.geteuid() != 0:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # missing, or a link
        return
    try:
        hand_over_open(descriptor, whose)
    finally:
        os.close(descriptor)


def hand_over_open(descriptor: int, whose: Path) -> None:
    """Transfer an open file to the owner of the directory `whose`."""
    owner = whose.stat()
    if os.geteuid() != 0 or not owner.st_uid:
        return
    seen = os.fstat(descriptor)
    if stat.S_ISDIR(seen.st_mode):
        for _, folders, files, at in os.fwalk(dir_fd=descriptor):
            for name in (*folders, *files):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=at, follow_symlinks=False)
    elif not stat.S_ISREG(seen.st_mode) or seen.st_uid or seen.st_nlink != 1:
        return
    os.fchown(descriptor, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def acting_for(path: Path) -> Iterator[None]:
    """Run as the owner of a step of the path instead of root, because that user may place a link in any step.

    Raise `PermissionError` if that user cannot read this program, which loads parts on demand.
    """
    if os.geteuid() != 0 or (whose := _find_foreign_step(path)) is None:
        yield
        return
    group, groups, home = os.getegid(), os.getgroups(), os.environ.get("HOME")
    try:
        os.environ["HOME"] = _home_of(whose.st_uid)  # library settings: not from root's home
        os.setgroups([whose.st_gid])
        os.setegid(whose.st_gid)
        os.seteuid(whose.st_uid)
        if not os.access(__file__, os.R_OK, effective_ids=True):
            detail = f"user {whose.st_uid}, the owner of {path}, cannot read this file"
            raise PermissionError(errno.EACCES, detail, __file__)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
        os.environ.pop("HOME", None)
        os.environ |= {} if home is None else {"HOME": home}


def _home_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_dir
    except KeyError:  # a uid without a name
        return "/nonexistent"


@contextlib.contextmanager
def as_who_asked() -> Iterator[None]:
    """Act as root again within `acting_for`, for a file that root named."""
    acting = os.geteuid()
    if acting == 0 or os.getuid() != 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(acting)


def _find_foreign_step(place: Path) -> os.stat_result | None:
    """Return the nearest step of a path that a user other than root owns; None if root owns all."""
    for path in (place.absolute(), Path(os.path.realpath(place))):  # also handles a loop of links
        for step in (path, *path.parents):
            with contextlib.suppress(OSError):  # not yet there
                if (seen := step.lstat()).st_uid:
                    return seen
    return None


def restrict_command(file: Path, owner: int) -> str:
    """Return the command that restricts a file to its readers; for root's files, these include the agent service."""
    quoted = shlex.quote(str(file))
    if owner == 0:
        with contextlib.suppress(KeyError):
            grp.getgrnam(AGENT)
            return f"chgrp {AGENT} {quoted} && chmod 0640 {quoted}"
    return f"chmod 0600 {quoted}"


def _name(path: Path) -> str | None:
    try:
        return path.owner()
    except KeyError:
        return None
