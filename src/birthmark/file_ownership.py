"""Whose a directory is, and what another user's command looks like: a fix has to work for whoever reads it."""

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
"""Where a server keeps its data, and is looked for, when nobody says where."""
SERVICE_DATA = Path("/var/lib/birthmark")
"""Where `birthmark server install` has the service keep its data."""
SERVICE = "birthmark-server"
AGENT = "birthmark-agent"
"""Whose the agent's files are where it is a service, and which group reads its configuration."""
_KEPT = "BIRTHMARK_DATA"  # what sudo would not hand on


def other_owner(path: Path) -> str | None:
    """Return the name of the other user to whom the directory `path`, or the one it is in, belongs.

    None where it is this user's own, or a number's without a name: nobody here could act as that one.
    """
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):  # not there, or below what is closed
            if place.is_dir():
                return None if place.stat().st_uid == os.geteuid() else _name(place)
    return None


def as_owner(owner: str, words: Sequence[str] | None = None, data: Path | None = None) -> str:
    """Return the command line by which this user, as `owner`, runs `birthmark` with `words`; default: as it was run.

    `data` names another directory than this user's environment does.
    """
    asked = sys.argv[1:] if words is None else words
    program = shutil.which(sys.argv[0]) or sys.argv[0]  # sudo looks in directories of its own
    named = ["env", f"{_KEPT}={data}"] if data is not None else []
    if os.geteuid() == 0:
        return shlex.join(["runuser", "-u", owner, "--", *named, program, *asked])
    if shutil.which("sudo") is None:
        return as_root(shlex.join(["runuser", "-u", owner, "--", *named, program, *asked]))
    kept = ["env", f"{_KEPT}={os.environ[_KEPT]}"] if _KEPT in os.environ else []
    return shlex.join(["sudo", "-u", owner, *(named or kept), program, *asked])


def as_root(command: str) -> str:
    """Return the command line by which this user runs a command as root: by sudo, or, where it is not installed, su."""
    return f"sudo {command}" if shutil.which("sudo") else shlex.join(["su", "-c", command])


def as_root_with(variable: str, command: str) -> str:
    """Return the command line by which root runs a command with one of this shell's variables, a file's name."""
    before, _, after = command.partition(f"${variable}")
    if shutil.which("sudo"):
        return f'sudo {before}"${variable}"{after}'
    return f'su -c {shlex.quote(before)}"${variable}"{shlex.quote(after)}'


def starting(data: Path, database: str | None = None) -> str:
    """Return the command that starts the server of a data directory, from a shell of this user's.

    `database` is named where it is none of the directory's.
    """
    if data == SERVICE_DATA:
        command = f"systemctl start {SERVICE}"
        return command if os.geteuid() == 0 else as_root(command)
    words = ["serve", "--data", str(data), *(["--database", database] if database is not None else [])]
    owner = other_owner(data)
    return f"{shlex.join(['birthmark', *words]) if owner is None else as_owner(owner, words)} &"


def hand_over(path: Path, whose: Path) -> None:
    """Give what root wrote, and all below it, to the owner of the directory `whose`, who could not read it else.

    Nothing where another user runs this, or where it is not root's: a link, or a second name of another file, may have
    been put there by that owner.
    """
    if os.geteuid() != 0:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not there, or a link
        return
    try:
        hand_over_open(descriptor, whose)
    finally:
        os.close(descriptor)


def hand_over_open(descriptor: int, whose: Path) -> None:
    """Do the same with what is open."""
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
def acting_for(place: Path) -> Iterator[None]:
    """Let root be, meanwhile, the user whom a path leads through: that user may put a link in any of its steps.

    Raise `PermissionError` where that user cannot read this program, parts of which are loaded when they are needed.
    """
    if os.geteuid() != 0 or (whose := _who_may_move(place)) is None:
        yield
        return
    group, groups, home = os.getegid(), os.getgroups(), os.environ.get("HOME")
    try:
        os.environ["HOME"] = _home_of(whose.st_uid)  # where libraries look for settings: not in root's
        os.setgroups([whose.st_gid])
        os.setegid(whose.st_gid)
        os.seteuid(whose.st_uid)
        if not os.access(__file__, os.R_OK, effective_ids=True):
            detail = f"the user {whose.st_uid}, for whom root works in {place}, cannot read it"
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
    except KeyError:  # a number without a name
        return "/nonexistent"


@contextlib.contextmanager
def as_who_asked() -> Iterator[None]:
    """Within `acting_for` be root again, for a file that root named."""
    acting = os.geteuid()
    if acting == 0 or os.getuid() != 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(acting)


def _who_may_move(place: Path) -> os.stat_result | None:
    """Return a step of a path that belongs to another user than root, the nearest; None where all are root's."""
    for path in (place.absolute(), Path(os.path.realpath(place))):  # which takes a loop of links, too
        for step in (path, *path.parents):
            with contextlib.suppress(OSError):  # not there yet
                if (seen := step.lstat()).st_uid:
                    return seen
    return None


def closing(file: Path, owner: int) -> str:
    """Return the command that closes a file to all but whoever is to read it: of root's, the agent's service too."""
    quoted = shlex.quote(str(file))
    if owner == 0:
        with contextlib.suppress(KeyError):
            grp.getgrnam(AGENT)
            return f"chgrp {AGENT} {quoted} && chmod 0640 {quoted}"
    return f"chmod 0600 {quoted}"


def _name(place: Path) -> str | None:
    try:
        return place.owner()
    except KeyError:
        return None
