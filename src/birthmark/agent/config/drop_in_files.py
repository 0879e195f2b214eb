"""Configuration loader: the file, then the files of the drop-in directory, in order of their names.

`config.toml` has the drop-in directory `config.d`. Each `config.d/*.toml` overrides what was read before; tables are
merged.
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
from birthmark.agent.config.parser import parse_config
from birthmark.agent.config.toml_tables import ConfigInvalidError, ConfigMisnamedError, ConfigMissingError
from birthmark.ownership_and_sudo_commands import as_root, as_root_with, restrict_command
from birthmark.text_file_encodings import decode_text, foreign_line, format_conversion_fix, not_utf_8
from birthmark.untrusted_json_and_text import reason_of

MAX_CONFIG_BYTES = 1024 * 1024
MAX_FILES = 100
_MOST_LINKS = 40  # same as the kernel
_GROUP_READS, _ALL_READ, _ALL_WRITE = 0o040, 0o004, 0o002
_SECRETS = "password|connection_string|symmetric_key|device_id_pk|endorsement|owner|hierarchy_authorization"
_SECRET = re.compile(rf"(?m)^[ \t]*({_SECRETS})[ \t]*=(?!.*uri *=)")


def read_config(file: Path) -> model.AgentConfig:
    """Load and parse a configuration. Raise `ConfigMissingError` or one of the config errors."""
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
    exposed = [warning for one in files for warning in _find_exposed_secrets(*one)]
    return replace(found, warnings=(*found.warnings, *exposed, *_find_misnamed_files(file)))


def files_over(file: Path) -> list[Path]:
    """Return the drop-in files of `file`, in order. Raise `ConfigMissingError` for too many."""
    directory = file.with_suffix(".d")
    found = sorted(path for path in directory.glob("*.toml") if path.is_file())
    if len(found) > MAX_FILES:
        raise ConfigMissingError(file=directory, reason=f"it contains more than {MAX_FILES} files")
    return found


def _check_owner(path: Path, status: os.stat_result, of_file: os.stat_result) -> None:
    """Raise `ConfigMissingError` if root would apply a drop-in file that another user wrote."""
    if _is_writable_by_others(status, of_file):
        error = ConfigMissingError(file=path, reason="other users than root can write to it")
        quoted = shlex.quote(str(path))
        error.quote(fix=f"Read it. If all of it is right: `chown root {quoted} && chmod o-w {quoted}`")
        raise error


def _check_library(library: Path, of_file: os.stat_result) -> None:
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


def _path_with_txt_suffix(file: Path) -> Path:
    """Return the file name with the `.txt` extension that Windows editors append."""
    return file.with_name(f"{file.name}.txt")


def _find_misnamed_files(file: Path) -> list[model.ConfigWarning]:
    """Return warnings for drop-in files that are ignored because of their names."""
    beside = sorted(file.with_suffix(".d").glob("*.[Tt][Oo][Mm][Ll]*"))
    found = [one for one in beside if one.suffix != ".toml" and one.name.lower().endswith((".toml", ".toml.txt"))]
    return [
        model.ConfigWarning(1, "(name)", "does not end in .toml and is ignored: rename it", one)
        for one in found[:MAX_FILES]
    ]


def _read(file: Path) -> tuple[str, os.stat_result]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_BYTES + 1)
            seen = os.fstat(opened.fileno())
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _path_with_txt_suffix(file).is_file():
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
        told["accepted"] = format_conversion_fix(file, raw, is_shown=False)
        raise ConfigInvalidError(file=file, key="(text)", **told) from error


def _fix_for(file: Path, error: OSError) -> str | None:
    """Return the fix for a directory, or for a file that only root can read or write; otherwise None."""
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
    return f'For a Birthmark server, create the missing file: `{command} && rm -f "$made"`'


def _find_exposed_secrets(file: Path, text: str, status: os.stat_result) -> list[model.ConfigWarning]:
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
