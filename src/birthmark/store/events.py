"""What rooms announce: frozen, tagged values, one class for each kind, in the `events.py` of their room.

An event says what it is about (`entity`) and which state of that it tells of (`version`). Whoever hands events on drops
one that is older than one it has handed on, so that what arrives late undoes nothing. The version is 0 where no order
is known, and where an entity may begin anew under its old name: such an event is never dropped.
"""

from typing import ClassVar, TypeVar

import msgspec

from birthmark.untrusted_text import decode_json

E = TypeVar("E", bound="Event")


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Something that happened. Subclasses have a tag of their own, `room.what_happened`."""

    is_remembered: ClassVar[bool] = True
    """Some worker may remember what it was: who commits it is answered when every worker has heard of it."""
    version: int = 0

    @property
    def entity(self) -> str:
        """Name what this is about, among events of its kind."""
        raise NotImplementedError


def kind_of(kind: type[Event]) -> str:
    """Return the tag of a kind of events."""
    return str(kind.__struct_config__.tag)


def kinds() -> dict[str, type[Event]]:
    """Return every kind of events that this program knows, by its tag."""
    found, left = {}, Event.__subclasses__()
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found[kind_of(kind)] = kind
    return found


def encode_event(event: Event) -> str:
    """Return the JSON text of an event, as the outbox keeps it."""
    return msgspec.json.encode(event).decode()


def decode_event(body: str | bytes, kind: type[E]) -> E:
    """Return the event of a kind from its JSON text. Raise `msgspec.MsgspecError`."""
    return decode_json(body, kind)
