"""Reading the configuration: the file, and over it the files of the directory beside it, by name.

`config.toml` has `config.d` beside it: each `config.d/*.toml` is put over what was read before, tables merged.
"""

import json
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from birthmark.agent.config import model
from birthmark.agent.config.parse import parse_config
from birthmark.agent.config.toml_tables import ConfigInvalidError, ConfigMisnamedError, ConfigMissingError
from birthmark.file_ownership import as_root, as_root_with, closing
from birthmark.text_files import decode_text, foreign_line, in_utf_8, not_utf_8
from birthmark.untrusted_text import reason_of

MAX_CONFIG_BYTES = 1024 * 1024
MAX_FILES = 100
_MOST_LINKS = 40  # as the kernel follows
_GROUP_READS, _ALL_READ, _ALL_WRITE = 0o040, 0o004, 0o002
_SECRETS = "password|connection_string|symmetric_key|device_id_pk|endorsement|owner|hierarchy_authorization"
_SECRET = re.compile(rf"(?m)^[ \t]*({_SECRETS})[ \t]*=(?!.*uri *=)")


def read_config(file: Path) -> model.AgentConfig:
    """Read and understand a configuration. Raise `ConfigMissingError` or one of the config errors."""
    text, seen = _read(file)
    files = [(file, text, seen)]
    files += [(path, *_read(path)) for path in files_over(file)]
    for path, _, seen_too in files[1:]:
        _check_owner(path, seen_too, seen)
    if sum(len(one) for _, one, _ in files) > MAX_CONFIG_BYTES:
        raise ConfigMissingError(file=file, reason=f"{file.stem}.d and it are larger than 1 MiB")
    found = parse_config(file, text, [(path, one) for path, one, _ in files[1:]])
    if found.keys is not None:
        _check_library(found.keys.module, seen)
    exposed = [warning for one in files for warning in _exposed(*one)]
    return replace(found, warnings=(*found.warnings, *exposed, *_misnamed(file)))


def files_over(file: Path) -> list[Path]:
    """Return the files that are put over `file`, in order. Raise `ConfigMissingError` for too many."""
    directory = file.with_suffix(".d")
    found = sorted(path for path in directory.glob("*.toml") if path.is_file())
    if len(found) > MAX_FILES:
        raise ConfigMissingError(file=directory, reason=f"there are more than {MAX_FILES} files in it")
    return found


def _check_owner(path: Path, seen: os.stat_result, of_file: os.stat_result) -> None:
    """Raise `ConfigMissingError` where root would do what another user wrote beside the configuration."""
    if _may_be_anothers(seen, of_file):
        error = ConfigMissingError(file=path, reason="other users than root can write to it")
        quoted = shlex.quote(str(path))
        error.quote(fix=f"Read it. If all of it is right: `chown root {quoted} && chmod o-w {quoted}`")
        raise error


def _check_library(library: Path, of_file: os.stat_result) -> None:
    """Raise `ConfigMissingError` where root would load a PKCS#11 library that another user can put there.

    Bare names are left to the system, which looks for them in directories of root.
    """
    if os.geteuid() != 0 or len(library.parts) == 1:
        return
    for path in _way_to(library):
        seen = path.lstat() if os.path.lexists(path) else None
        if seen is None and path.parent.stat().st_mode & _ALL_WRITE:  # in a sticky directory, too
            raise _unsafe_library(library, path.parent)
        if seen is not None and _may_be_anothers(seen, of_file):
            raise _unsafe_library(library, path)
        if seen is None:
            return


def _way_to(library: Path) -> Iterator[Path]:
    """Yield every directory, link and file on the way to a library. Raise `ConfigMissingError` for circles."""
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


def _may_be_anothers(seen: os.stat_result, of_file: os.stat_result) -> bool:
    """Say whether this process is root's, and a user other than root and the configuration's owner may write there.

    In a sticky directory others rename and remove nothing of root's. A link's own mode says nothing.
    """
    is_sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
    is_open = seen.st_mode & _ALL_WRITE and not (is_sticky or stat.S_ISLNK(seen.st_mode))
    return os.geteuid() == 0 and (seen.st_uid not in {0, of_file.st_uid} or bool(is_open))


def _named_text(file: Path) -> Path:
    """Return the name that editors of Windows give it."""
    return file.with_name(f"{file.name}.txt")


def _misnamed(file: Path) -> list[model.ConfigWarning]:
    """Warn of files beside the configuration that are not read for their name."""
    beside = sorted(file.with_suffix(".d").glob("*.[Tt][Oo][Mm][Ll]*"))
    found = [one for one in beside if one.suffix != ".toml" and one.name.lower().endswith((".toml", ".toml.txt"))]
    return [
        model.ConfigWarning(1, "(name)", "does not end in .toml and is not read: rename it", one)
        for one in found[:MAX_FILES]
    ]


def _read(file: Path) -> tuple[str, os.stat_result]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_BYTES + 1)
            seen = os.fstat(opened.fileno())
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _named_text(file).is_file():
            raise ConfigMisnamedError(file=file, reason=reason_of(error)) from error
        missing = ConfigMissingError(file=file, reason=reason_of(error))
        if (fix := _fix_for(file, error)) is not None:
            missing.quote(fix=fix)
        raise missing from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigMissingError(file=file, reason="it is larger than 1 MiB")
    try:
        return decode_text(raw), seen
    except UnicodeDecodeError as error:
        told = {"line": str(foreign_line(raw)), "detail": not_utf_8(raw, is_shown=False)}
        told["accepted"] = in_utf_8(file, raw, is_shown=False)
        raise ConfigInvalidError(file=file, key="(text)", **told) from error


def _fix_for(file: Path, error: OSError) -> str | None:
    """Return what to do about a directory, or where root alone may read or write the file; else None."""
    if isinstance(error, IsADirectoryError):
        return f"Name the file in that directory, such as {shlex.quote(str(file / 'config.toml'))}."
    if isinstance(error, PermissionError):
        return f"Do it as root: `{as_root(shlex.join([shutil.which(sys.argv[0]) or sys.argv[0], *sys.argv[1:]]))}`"
    above = next((one for one in file.absolute().parents if one.is_dir()), None)
    if not isinstance(error, FileNotFoundError) or above is None or os.access(above, os.W_OK | os.X_OK):
        return None
    quoted = shlex.quote(str(file.absolute()))
    made = 'made=$(mktemp) && birthmark env --format aziot --registration-id "$(hostname)" > "$made"'
    command = f"[ ! -e {quoted} ] && {made} && {as_root_with('made', f'install -D -m 0600 $made {quoted}')}"
    return f'For a Birthmark server, where no file is yet: `{command} && rm -f "$made"`'


def _exposed(file: Path, text: str, seen: os.stat_result) -> list[model.ConfigWarning]:
    """Warn of the first secret that stands in a file which others can read.

    A file of root's that one group may read was given to that group: the agent's service is none of root's.
    """
    is_open = seen.st_mode & _ALL_READ or (seen.st_mode & _GROUP_READS and (seen.st_uid or not seen.st_gid))
    if not is_open or (secret := _SECRET.search(text)) is None:
        return []
    mode = f"{seen.st_mode & 0o777:04o}"
    detail = f"stands in a file that others can read (mode {mode}): {closing(file, seen.st_uid)}"
    line = text[: secret.start()].count("\n") + 1
    return [model.ConfigWarning(line, secret[1], detail, file)]
