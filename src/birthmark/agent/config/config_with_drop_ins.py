"""Configuration loader: the file, then the files of the drop-in directory, in order of their names.

`config.toml` has the drop-in directory `config.d`. Each `config.d/*.toml` overrides what was read before; tables are
merged.
"""

import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from birthmark.agent.config import model
from birthmark.agent.config.file_permission_checks import check_library, check_owner, find_exposed_secrets
from birthmark.agent.config.parser import parse_config
from birthmark.agent.config.toml_tables import ConfigInvalidError, ConfigMisnamedError, ConfigMissingError
from birthmark.ownership_and_sudo_commands import as_root, as_root_with
from birthmark.text_file_encodings import decode_text, foreign_line, format_conversion_fix, not_utf_8
from birthmark.untrusted_json_and_text import reason_of

MAX_CONFIG_BYTES = 1024 * 1024
MAX_FILES = 100


def read_config(file: Path) -> model.AgentConfig:
    """Load and parse a configuration. Raise `ConfigMissingError` or one of the config errors."""
    text, seen = _read(file)
    files = [(file, text, seen)]
    files += [(path, *_read(path)) for path in files_over(file)]
    for path, _, seen_too in files[1:]:
        check_owner(path, seen_too, seen)
    if sum(len(one) for _, one, _ in files) > MAX_CONFIG_BYTES:
        raise ConfigMissingError(file=file, reason=f"{file.stem}.d and it are larger than 1 MiB")
    found = parse_config(file, text, [(path, one) for path, one, _ in files[1:]])
    if found.keys is not None:
        check_library(found.keys.module, seen)
    exposed = [warning for one in files for warning in find_exposed_secrets(*one)]
    return replace(found, warnings=(*found.warnings, *exposed, *_find_misnamed_files(file)))


def files_over(file: Path) -> list[Path]:
    """Return the drop-in files of `file`, in order. Raise `ConfigMissingError` for too many."""
    directory = file.with_suffix(".d")
    found = sorted(path for path in directory.glob("*.toml") if path.is_file())
    if len(found) > MAX_FILES:
        raise ConfigMissingError(file=directory, reason=f"it contains more than {MAX_FILES} files")
    return found


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
