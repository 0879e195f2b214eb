"""Files of a directory, including symlinks, such as secrets on a separate mount."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from birthmark.ownership_and_sudo_commands import acting_for
from birthmark.untrusted_json_and_text import reason_of


def files_below(
    folder: Path, is_wanted: Callable[[Path], bool], *, is_linked: bool = False, above: tuple[Path, ...] = ()
) -> Iterator[tuple[Path, bool]]:
    """Yield the files and whether each is symlinked. Folder symlinks are followed, but not back to a parent.

    Raise `OSError` for a broken symlink: a copy without that file would be incomplete.
    """
    if (real := folder.resolve()) in above:
        return
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:  # removed concurrently
        return
    for path in filter(is_wanted, found):
        mode = _mode_of(path)
        by_link = is_linked or path.is_symlink()
        if stat.S_ISDIR(mode):
            yield from files_below(path, is_wanted, is_linked=by_link, above=(*above, real))
        elif stat.S_ISREG(mode):
            yield path, by_link


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            reason = f"it is a link that cannot be followed: {reason_of(error)}"
            raise OSError(error.errno, reason, str(path)) from error
        if isinstance(error, FileNotFoundError):  # removed concurrently
            return 0
        raise


def open_below(folder: Path, path: Path) -> IO[bytes]:
    """Open a file below a folder without following symlinks. Raise `OSError`.

    The folder's owner may create symlinks at any time. Each path component is therefore opened relative to the open
    folder, and root opens only what that owner may.
    """
    with acting_for(folder):
        return _open_below(folder, path)


def _open_below(folder: Path, path: Path) -> IO[bytes]:
    *folders, name = path.relative_to(folder).parts
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for step in folders:
            below = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at), "rb")
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no longer a file", str(path))
    return file


def check_readable(path: Path, folder: Path) -> None:
    """Raise `PermissionError` if root would read a file that the folder's owner names but cannot read.

    A file in the folder itself counts as the owner's.
    """
    is_inside = not path.is_symlink() and path.parent.resolve() == folder.resolve()
    if os.geteuid() == 0 and not is_inside and not _may_read(path, path.stat(), folder.stat().st_uid):
        raise PermissionError(errno.EACCES, "it does not belong to the data directory's owner", str(path))


def read_linked(path: Path, owner: int) -> bytes:
    """Return a file that a symlink of `owner` refers to. Raise `OSError`.

    Root reads through a symlink only what its owner can read. Otherwise a user with write access to a data directory
    could have root copy any file into a backup.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())  # of the open file, not of what the link meant before
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is a link to something other than a file", str(path))
        if os.geteuid() == 0 and not _may_read(path, status, owner):
            raise PermissionError(
                errno.EACCES, ("it is a link to a file that does not belong to the directory's owner"), str(path)
            )
        return file.read()


def _may_read(path: Path, status: os.stat_result, owner: int) -> bool:
    """Return whether a file is the owner's, or root's and world-readable."""
    if owner in {0, status.st_uid}:
        return True
    real = path.resolve()
    ways = [parent.stat() for parent in real.parents]
    return (
        status.st_uid == 0
        and bool(status.st_mode & stat.S_IROTH)
        and all(way.st_mode & stat.S_IXOTH for way in ways)
        and os.path.samestat(real.stat(), status)
    )
