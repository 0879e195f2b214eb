"""Job document parser; rejects actions that the configuration does not name.

    {"birthmark": {"do": "run", "script": "NAME", "arguments": ["--full"]}}
    {"birthmark": {"do": "replace", "file": "NAME", "url": "https://…", "sha256": "…", "size": 1000}}
    {"birthmark": {"do": "restart"}}
    {"birthmark": {"do": "renew"}}

In:   at most 32 KiB of JSON. `arguments` and `size` are optional; unknown keys are rejected, as they may change
      the meaning.
Raises `JobRejectedError` with the reason, which reveals no configuration but names in the job itself.
"""

import re
from collections.abc import Mapping
from typing import Annotated, TypeAlias, TypeVar
from urllib.parse import unquote

import msgspec

from birthmark.agent.jobs.model import (
    JobRejectedError,
    JobSettings,
    RenewAction,
    ReplaceAction,
    RestartAction,
    RunAction,
    Wanted,
)
from birthmark.device_transports.urls import UrlInvalidError, parse_url
from birthmark.untrusted_json_and_text import decode_json

MAX_DOCUMENT_BYTES = 32 * 1024
MAX_URL_CHARS = 8 * 1024
_MAX_ARGUMENTS = 16
_MAX_REASON = 300
_MAX_SHOWN = 200
_T = TypeVar("_T")
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Run(msgspec.Struct, tag_field="do", tag="run", forbid_unknown_fields=True, frozen=True):
    script: _Name
    arguments: list[Annotated[str, msgspec.Meta(max_length=1024)]] = []


class _Replace(msgspec.Struct, tag_field="do", tag="replace", forbid_unknown_fields=True, frozen=True):
    file: _Name
    url: Annotated[str, msgspec.Meta(max_length=MAX_URL_CHARS)]
    sha256: str
    size: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


class _Restart(msgspec.Struct, tag_field="do", tag="restart", forbid_unknown_fields=True, frozen=True):
    pass


class _Renew(msgspec.Struct, tag_field="do", tag="renew", forbid_unknown_fields=True, frozen=True):
    pass


class _Document(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    birthmark: _Run | _Replace | _Restart | _Renew


def parse_document(document: bytes, allowed: JobSettings) -> Wanted:
    """Return the requested action within what is `allowed`. Raise `JobRejectedError`."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise JobRejectedError(f"the document has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        asked = decode_json(document, _Document).birthmark
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise JobRejectedError(f"the document is not valid for this agent: {error}"[:_MAX_REASON]) from error
    match asked:
        case _Run():
            return _run(asked, allowed)
        case _Replace():
            return _replace(asked, allowed)
        case _Restart():
            if allowed.restart is None:
                raise JobRejectedError("restart is not allowed by this device's configuration")
            return RestartAction(allowed.restart)
        case _Renew():
            if not allowed.may_renew:
                raise JobRejectedError("renew is not allowed by this device's configuration")
            return RenewAction()


def _run(step: _Run, allowed: JobSettings) -> RunAction:
    command = _named(step.script, allowed.run, "script")
    if len(step.arguments) > _MAX_ARGUMENTS:
        raise JobRejectedError(f"it has more than {_MAX_ARGUMENTS} arguments")
    for one in step.arguments:
        if one not in command.arguments:
            raise JobRejectedError(f"{one[:60]!r} is not an argument that this device's configuration permits")
    return RunAction(step.script, command, tuple(step.arguments))


def _replace(step: _Replace, allowed: JobSettings) -> ReplaceAction:
    place = _named(step.file, allowed.replace, "file")
    if _SHA256.fullmatch(step.sha256) is None:
        raise JobRejectedError("sha256 has to be 64 hexadecimal digits")
    if step.size is not None and step.size > place.max_bytes:
        raise JobRejectedError(f"a size of {step.size} bytes exceeds the permitted {place.max_bytes}")
    if not any(is_below(step.url, one) for one in place.urls):
        shown = step.url.partition("?")[0][:_MAX_SHOWN]  # the query may be a signature
        raise JobRejectedError(f"the URL {shown} is not permitted by this device's configuration")
    return ReplaceAction(step.file, place, step.url, step.sha256.lower(), step.size)


def _named(name: str, named: Mapping[str, _T], subject: str) -> _T:
    if (found := named.get(name)) is None:
        raise JobRejectedError(f"{name[:64]!r} is not a {subject} of this device's configuration")
    return found


def is_below(url: str, allowed: str) -> bool:
    """Return whether a URL has host and port of an `allowed` one and a path at or below its path.

    A path with parent references never matches, in any encoding, as the server may decode it once more.
    """
    try:
        asked, limit = parse_url(url), parse_url(allowed)
    except UrlInvalidError:
        return False
    path = asked.path.partition("?")[0]
    if (asked.host.lower(), asked.port) != (limit.host.lower(), limit.port) or not _is_plain(path):
        return False
    return path == limit.path or path.startswith(limit.path.rstrip("/") + "/")


def _is_plain(path: str) -> bool:
    once = unquote(path)
    return not any(set(one.replace("\\", "/").split("/")) & {".", ".."} for one in (path, once, unquote(once)))
