"""Base class of domain events, in the `domain_events.py` of each package, and their codec for the outbox.

An event has a subject (`entity`) and the version of its state (`version`). Forwarders drop events older than one that
they have forwarded, so that a late event undoes nothing. The version is 0 if no order is known, or if an entity may be
created again under its old name; such events are never dropped.
"""

from typing import ClassVar, TypeVar

import msgspec

from birthmark.untrusted_json_and_text import decode_json

E = TypeVar("E", bound="Event")


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """An event. Subclasses have a tag, `room.what_happened`."""

    is_remembered: ClassVar[bool] = True
    """Whether workers may cache the previous state.

    If so, the commit returns after every worker has received the event.
    """
    version: int = 0

    @property
    def entity(self) -> str:
        """Identifier of the subject among events of this kind."""
        raise NotImplementedError


def kind_of(kind: type[Event]) -> str:
    """Return the tag of an event class."""
    return str(kind.__struct_config__.tag)


def kinds() -> dict[str, type[Event]]:
    """Return all known event classes by tag."""
    found, left = {}, Event.__subclasses__()
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found[kind_of(kind)] = kind
    return found


def encode_event(event: Event) -> str:
    """Return the JSON text of an event for the outbox."""
    return msgspec.json.encode(event).decode()


def decode_event(body: str | bytes, kind: type[E]) -> E:
    """Return the event of a class from its JSON text. Raise `msgspec.MsgspecError`."""
    return decode_json(body, kind)
