"""Saved login in a file of the user, written by `birthmark login`."""

import errno
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from birthmark import atomic_files
from birthmark.errors import InvalidRequestError, NotFoundError, PolicyError
from birthmark.operator_api.client.vendor_tool_environment import system_roots
from birthmark.text_file_encodings import decode_text, plain_text
from birthmark.untrusted_json_and_text import decode_json

FILE = "~/.config/birthmark/login.json"
_VARIABLE = "BIRTHMARK_LOGIN"
_MAX_BYTES = 1024 * 1024


class Login(msgspec.Struct, frozen=True):
    """Server URL, its roots as PEM, and the user's access token."""

    url: str
    roots: str
    user: str
    token_id: str
    token: str
    ends: str


class InvitationFile(msgspec.Struct, frozen=True):
    """Content of an invitation file."""

    url: str
    roots: str
    user: str
    code: str
    ends: str


class LoginDamagedError(InvalidRequestError):
    """The sign-in file cannot be read."""

    code = "login.damaged"
    cause = "{path} is not a sign-in file created by `birthmark login`."
    fix = "Move the file: `mv -nT {path} {path}.damaged`. Then sign in again with an invitation."
    for_a_person = "you need an invitation to sign in again"
    path: Path


class LoginForeignError(PolicyError):
    """The sign-in file belongs to another user."""

    code = "login.foreign"
    cause = "{path} belongs to another user and could send your commands to that user's server."
    fix = "Set the server's data directory with --data or BIRTHMARK_DATA, or sign in as your own user."
    for_a_person = "the file belongs to another user"
    path: Path


class InvitationInvalidError(InvalidRequestError):
    """The file is not an invitation."""

    code = "login.invitation_invalid"
    cause = "{path} is not an invitation file created by `birthmark user invite`{detail}."
    fix = "Ask the inviting user for the complete file."
    for_a_person = "only the inviting user has the complete file"
    detail: str = ""
    path: Path


class TokenFileError(InvalidRequestError):
    """The file contains no token."""

    code = "login.token_file"
    cause = "{path} contains no token for that server; `birthmark token create` prints a token (bmt_…)."
    fix = (
        "In a signed-in session, create a token: `birthmark token create laptop`. Write the token to the first line "
        "of the file."
    )
    for_a_person = "a signed-in user must create the token"
    path: Path


class NotSignedInError(NotFoundError):
    """Not signed in."""

    code = "login.nobody"
    cause = "You are not signed in: {path} does not exist."
    fix = "To sign in with an invitation: `birthmark login FILE`. To sign in with a browser: `birthmark login URL`"
    for_a_person = "you need an invitation or a password"
    path: Path


def place(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the saved login."""
    return Path(environment.get(_VARIABLE) or FILE).expanduser()


def signed_in(environment: Mapping[str, str] = os.environ) -> Login | None:
    """Return the saved login, or None. Raise `LoginDamagedError`."""
    path = place(environment)
    try:
        text = _read(path, is_own=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if not os.access(path.parent, os.X_OK):  # an inaccessible HOME
            return None
        damaged = LoginDamagedError(path=path)
        damaged.quote(fix="Set BIRTHMARK_LOGIN to the path of a login file, or unset it: `env | grep BIRTHMARK_LOGIN`.")
        raise damaged from error
    try:
        found = decode_json(plain_text(text), Login)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LoginDamagedError(path=path) from error
    check(found)
    return found


def read_invitation(path: Path) -> InvitationFile:
    """Return the content of an invitation file. Raise `InvitationInvalidError`, `OSError`."""
    try:
        return decode_json(plain_text(_read(path)), InvitationFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _, sign, seen = str(error).partition("; ")
        raise InvitationInvalidError(path=path, detail=sign + seen) from error


def check_place() -> None:
    """Raise `OSError` if a login could not be saved, before an invitation is used up."""
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    probe = path.with_name(f".{path.name}.{os.getpid()}")
    atomic_files.create(probe, b"")
    atomic_files.remove(probe)


def check(login: Login) -> None:
    """Raise `LoginDamagedError` if the URL, the roots or the token is invalid."""
    try:
        ssl.create_default_context(cadata=login.roots)
    except (TypeError, ValueError, ssl.SSLError) as error:  # TypeError: text that is not ASCII
        raise LoginDamagedError(path=place()) from error
    if not login.token.isascii() or not is_url(login.url) or "BEGIN CERTIFICATE" not in login.roots:
        raise LoginDamagedError(path=place())


def is_url(text: str) -> bool:
    """Return whether the text is a valid server URL."""
    try:
        parts, _ = urlsplit(text), urlsplit(text).port
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def save_login(login: Login) -> tuple[Path, Path | None]:
    """Save a login, readable only by its owner; return its path, and the new path of a replaced invalid file."""
    path, aside = place(), None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and not _is_login(path):
        aside = atomic_files.link_backup(path)
    atomic_files.replace(path, msgspec.json.format(msgspec.json.encode(login)) + b"\n", 0o600)
    return path, aside


def _is_login(path: Path) -> bool:
    try:
        decode_json(decode_text(path.read_bytes()[:_MAX_BYTES]), Login)
    except (ValueError, RecursionError):
        return False
    return True


def roots_file(login: Login) -> Path:
    """Return a file with the server's roots; a bundle with the system's roots is in the same directory."""
    directory = place().with_suffix(".trust")
    directory.mkdir(exist_ok=True, mode=0o700)
    ours = login.roots.encode()
    for name, text in (("bundle.pem", system_roots() + ours), ("trust.pem", ours)):
        if not atomic_files.has_content(directory / name, text, 0o600):
            atomic_files.replace(directory / name, text, 0o600)
    return directory / "trust.pem"


def _read(path: Path, *, is_own: bool = False) -> bytes:
    with path.open("rb") as file:
        if is_own and os.fstat(file.fileno()).st_uid not in {os.geteuid(), 0}:
            raise LoginForeignError(path=path)
        return file.read(_MAX_BYTES)
