"""Commands of a test server: each input line is a command, and each output line its result.

A command is JSON, `{"do": "azure-device", "name": "pump-1", "auth": "key"}`, or short, `azure-device pump-1 auth=key`.
A refusal returns `{"error": CODE, "message", "cause", "fix"}`, and the server does not change.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, get_args

import msgspec

from birthmark.durations import duration_of
from birthmark.errors import BirthmarkError
from birthmark.server.fault_proxy import LineState
from birthmark.testing.errors import WordInvalidError
from birthmark.untrusted_json_and_text import decode_json, printable

_SHOWN = 64
_MEMBER = re.compile(r"[a-z_]+")
_PLACE = re.compile(r"`\$\.(\w+)`")
MOST = 10_000
"""Maximum number of messages per result; a test server keeps as many AWS messages."""
FARTHEST = timedelta(days=50 * 365)
"""Maximum clock shift, within which certificate dates are valid."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class KitCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    """A command; parameters without a default are required."""


class Reset(KitCommand, frozen=True, tag="reset"):
    """Remove connections, devices, messages and faults. Returns the endpoints."""


class Help(KitCommand, frozen=True, tag="help"):
    """List the commands, their parameters, and the refusals that can be provoked."""


class Environment(KitCommand, frozen=True, tag="environment"):
    """Return the environment variables of the vendors' programs."""


class MakeAzureDevice(KitCommand, frozen=True, tag="azure-device"):
    """Create a device at the provisioning service or the hub, optionally with an existing certificate."""

    name: Name
    auth: Literal["x509", "key"] = "x509"
    at: Literal["dps", "hub"] = "dps"
    lasts: str = "1d"
    certificate_file: str = ""
    key_file: str = ""


class MakeAwsThing(KitCommand, frozen=True, tag="aws-thing"):
    """Create a thing, its certificate, and a policy: `action` on all resources, or the JSON of `policy`.

    The certificate may exist already.
    """

    name: Name
    action: str = "iot:*"
    policy: str = ""
    lasts: str = "1d"
    certificate_file: str = ""
    key_file: str = ""


class MakeEstIdentity(KitCommand, frozen=True, tag="est-identity"):
    """Issue a certificate of the server's CA over EST."""

    name: Name


class MakeChip(KitCommand, frozen=True, tag="chip"):
    """Create a simulated secure element: se050 or atecc608 with the manufacturer's content, or an empty generic one."""

    name: Name = "chip"
    kind: Literal["se050", "atecc608", "generic"] = "se050"


class Refuse(KitCommand, frozen=True, tag="refuse"):
    """Refuse the next connection or request of a device with a code; see `help`."""

    name: Name
    code: Name


class Expire(KitCommand, frozen=True, tag="expire"):
    """Give a device a certificate that expired an hour ago, and store it in the device's record."""

    name: Name


class Revoke(KitCommand, frozen=True, tag="revoke"):
    """Revoke all credentials of a device."""

    name: Name


class ClockWord(KitCommand, frozen=True, tag="clock"):
    """Shift the server's clock: `+90d`, `-1h`, `0`."""

    by: Name


class LineWord(KitCommand, frozen=True, tag="line"):
    """Cut, break or stall the connection to the server, or restore it with `through`."""

    state: LineState
    after_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class ThrottleTier(KitCommand, frozen=True, tag="throttle"):
    """Set a tier for hub and provisioning service, and consume its quota for a duration.

    With `day`, consume the daily quota as well.
    """

    lasts: str = "30s"
    day: bool = False
    tier: Literal["F1", "S1", "S2", "S3"] = "F1"


class RollOver(KitCommand, frozen=True, tag="rollover"):
    """Perform a root rollover: `start`, then `next` steps, or one `back`."""

    step: Literal["start", "next", "back"] = "start"


class ListMessages(KitCommand, frozen=True, tag="messages"):
    """List messages at the hub, or with `at` aws at AWS since the first thing was created; of one device or all.

    Above `limit`, the latest are returned. `topic` applies to AWS.
    """

    name: str = ""
    at: Literal["hub", "aws"] = "hub"
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 1000
    topic: str = ""


class ListRefusals(KitCommand, frozen=True, tag="why"):
    """List refusals of a device or all, latest first.

    The command waits for them, as they are recorded with a short delay.
    """

    name: str = ""
    code: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    within_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0


class IsKnown(KitCommand, frozen=True, tag="known"):
    """Check whether the server has a device of that name, enrolled or registered."""

    name: str


WORDS: Sequence[type[KitCommand]] = (
    Reset,
    Help,
    Environment,
    MakeAzureDevice,
    MakeAwsThing,
    MakeEstIdentity,
    MakeChip,
    Refuse,
    Expire,
    Revoke,
    ClockWord,
    LineWord,
    ThrottleTier,
    RollOver,
    ListMessages,
    ListRefusals,
    IsKnown,
)
_BY_TAG: Mapping[str, type[KitCommand]] = {str(kind.__struct_config__.tag): kind for kind in WORDS}


def tag_of(word: KitCommand) -> str:
    """Return the name of a command."""
    return str(word.__struct_config__.tag)


def parse_word(line: bytes) -> KitCommand:
    """Return the command of a line. Raise `WordInvalidError`."""
    text = line.decode(errors="replace").strip()
    word = printable(text[:_SHOWN])
    try:
        asked = _members(text)
        kind = _BY_TAG.get(str(asked.get("do")))
        if kind is None:
            raise WordInvalidError(word=word, detail=f"the commands are {', '.join(_BY_TAG)}")
        return _converted(asked, kind, word)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise WordInvalidError(word=word, detail="it is not a JSON object") from error


def _converted(asked: Mapping[str, Any], kind: type[KitCommand], word: str) -> KitCommand:
    try:
        return msgspec.convert(asked, kind, strict=False)
    except msgspec.ValidationError as error:
        detail = f"{error}{_taken(kind, str(error))}"
        raise WordInvalidError(word=word, detail=detail) from error


def _taken(kind: type[KitCommand], refused: str) -> str:
    """Return the accepted values or parameters for a rejected one."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if "unknown field" in refused:
        return f"; members are {', '.join(fields)}" if fields else "; it has no members"
    where = _PLACE.search(refused)
    if where is None or "Invalid enum value" not in refused:
        return ""
    of = fields[where[1]]
    values = [one.value for one in of] if isinstance(of, type) and issubclass(of, Enum) else get_args(of)
    return f"; {where[1]} must be one of {', '.join(values)}"


def _members(text: str) -> dict[str, Any]:
    """Return the parameters of a command in either notation. Raise `ValueError`."""
    if text.startswith("{"):
        found = decode_json(text)
        if not isinstance(found, dict):
            raise ValueError(text)
        return found
    first, *rest = text.split()
    names = [field.name for field in msgspec.structs.fields(_BY_TAG.get(first, KitCommand))]
    asked: dict[str, Any] = {"do": first}
    places = iter(names)
    for part in rest:
        name, equals, value = part.partition("=")
        if not (equals and _MEMBER.fullmatch(name)):  # an invalid member is rejected as one, and never a device ID
            name, value = next(places, part), part
        asked[name] = value
    return asked


def offset_of(text: str) -> timedelta:
    """Return the clock shift of a text: `+90d`, `-1h`, `0`. Raise `ValueError`."""
    if text == "0":
        return timedelta()
    if text[:1] not in {"+", "-"}:
        raise ValueError("start with + or -")
    if (found := duration_of(text[1:])) > FARTHEST:
        raise ValueError(f"at most {FARTHEST.days}d")
    return found * (-1 if text[0] == "-" else 1)


def told(error: BirthmarkError) -> dict[str, Any]:
    """Return the JSON of a refusal."""
    return {
        "error": error.code,
        "message": str(error),
        "cause": error.explain_cause(),
        "fix": error.explain_fix(),
    }


def help_of(possible: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the commands with their parameters, and the supported refusals by kind of device."""
    return {
        "words": {
            tag: {
                "does": " ".join((kind.__doc__ or "").split()),
                "members": {
                    field.name: None if field.default is msgspec.NODEFAULT else field.default
                    for field in msgspec.structs.fields(kind)
                },
            }
            for tag, kind in _BY_TAG.items()
        },
        "refusals": {kind: list(codes) for kind, codes in possible.items()},
    }
