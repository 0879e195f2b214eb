"""The words that a server for tests understands: a line of its input is one, a line of its output its answer.

A word is written as JSON, `{"do": "azure-device", "name": "pump-1", "auth": "key"}`, or in short,
`azure-device pump-1 auth=key`. What is refused is answered `{"error": CODE, "message", "cause", "fix"}`, and the
server stays as it was.
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
from birthmark.untrusted_text import decode_json, printable

_SHOWN = 64
_MEMBER = re.compile(r"[a-z_]+")
_PLACE = re.compile(r"`\$\.(\w+)`")
MOST = 10_000
"""So many messages are told at once: what a server for tests remembers of AWS."""
FARTHEST = timedelta(days=50 * 365)
"""How far a clock may be off: certificates have dates there, too."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class KitCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    """What may be asked; a member without a default has to be named."""


class Reset(KitCommand, frozen=True, tag="reset"):
    """As new again: connections, devices, messages and faults are gone. Answers the endpoints."""


class Help(KitCommand, frozen=True, tag="help"):
    """The words, their members, and the refusals that can be provoked."""


class Environment(KitCommand, frozen=True, tag="environment"):
    """The variables that the vendors' programs read."""


class MakeAzureDevice(KitCommand, frozen=True, tag="azure-device"):
    """A device on record at the provisioning service, or at the hub; by a certificate that is there already, too."""

    name: Name
    auth: Literal["x509", "key"] = "x509"
    at: Literal["dps", "hub"] = "dps"
    lasts: str = "1d"
    certificate_file: str = ""
    key_file: str = ""


class MakeAwsThing(KitCommand, frozen=True, tag="aws-thing"):
    """A thing, its certificate, and a policy: one that allows `action` on everything, or the JSON of `policy`.

    The certificate may be there already.
    """

    name: Name
    action: str = "iot:*"
    policy: str = ""
    lasts: str = "1d"
    certificate_file: str = ""
    key_file: str = ""


class MakeEstIdentity(KitCommand, frozen=True, tag="est-identity"):
    """A certificate of the server's CA, by EST."""

    name: Name


class MakeChip(KitCommand, frozen=True, tag="chip"):
    """A software chip: se050 or atecc608 as its maker sells it, or generic, which has nothing on it."""

    name: Name = "chip"
    kind: Literal["se050", "atecc608", "generic"] = "se050"


class Refuse(KitCommand, frozen=True, tag="refuse"):
    """Have the next connection or request of a device refused with a code; see `help`."""

    name: Name
    code: Name


class Expire(KitCommand, frozen=True, tag="expire"):
    """Give a device a certificate that ended an hour ago; its place on record knows that one."""

    name: Name


class Revoke(KitCommand, frozen=True, tag="revoke"):
    """Take everything of a device back."""

    name: Name


class ClockWord(KitCommand, frozen=True, tag="clock"):
    """Put the server's clock off by so much: `+90d`, `-1h`, `0`."""

    by: Name


class LineWord(KitCommand, frozen=True, tag="line"):
    """Cut, break, stall the line to the server, or let all `through`."""

    state: LineState
    after_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class ThrottleTier(KitCommand, frozen=True, tag="throttle"):
    """Give hub and provisioning service a tier, and use up what it takes for so long; with `day` the day's, too."""

    lasts: str = "30s"
    day: bool = False
    tier: Literal["F1", "S1", "S2", "S3"] = "F1"


class RollOver(KitCommand, frozen=True, tag="rollover"):
    """Exchange the root of the CA: `start`, then `next` steps, or one `back`."""

    step: Literal["start", "next", "back"] = "start"


class ListMessages(KitCommand, frozen=True, tag="messages"):
    """What arrived at the hub, or with `at` aws at AWS since the first thing was made; of one device, or of all.

    Where it is more than `limit`, the latest. `topic` is for AWS.
    """

    name: str = ""
    at: Literal["hub", "aws"] = "hub"
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 1000
    topic: str = ""


class ListRefusals(KitCommand, frozen=True, tag="why"):
    """What was refused, the latest first: of a device, or all. It is waited for, as it is written a moment later."""

    name: str = ""
    code: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    within_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 5.0


class IsKnown(KitCommand, frozen=True, tag="known"):
    """Whether the server has a device of that name, enrolled or registered."""

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
    """Return how a word is called."""
    return str(word.__struct_config__.tag)


def parse_word(line: bytes) -> KitCommand:
    """Return what a line asks. Raise `WordInvalidError`."""
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
    """Return which values or members are taken, where one that is not was given."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if "unknown field" in refused:
        return f"; members are {', '.join(fields)}" if fields else "; it has no members"
    where = _PLACE.search(refused)
    if where is None or "Invalid enum value" not in refused:
        return ""
    of = fields[where[1]]
    values = [one.value for one in of] if isinstance(of, type) and issubclass(of, Enum) else get_args(of)
    return f"; {where[1]} is one of {', '.join(values)}"


def _members(text: str) -> dict[str, Any]:
    """Return the members of a word that is written in either form. Raise `ValueError`."""
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
        if not (equals and _MEMBER.fullmatch(name)):  # a member that is none is refused as one, and is no device's name
            name, value = next(places, part), part
        asked[name] = value
    return asked


def offset_of(text: str) -> timedelta:
    """Return by how much a clock is off: `+90d`, `-1h`, `0`. Raise `ValueError`."""
    if text == "0":
        return timedelta()
    if text[:1] not in {"+", "-"}:
        raise ValueError("start with + or -")
    if (found := duration_of(text[1:])) > FARTHEST:
        raise ValueError(f"at most {FARTHEST.days}d")
    return found * (-1 if text[0] == "-" else 1)


def told(error: BirthmarkError) -> dict[str, Any]:
    """Return a refusal as it is answered."""
    return {
        "error": error.code,
        "message": str(error),
        "cause": error.explain_cause(),
        "fix": error.explain_fix(),
    }


def help_of(possible: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the words with their members, and what can be refused, by kind of device."""
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
