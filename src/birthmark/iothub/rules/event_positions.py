"""Start of a reader in a partition, from the filter of its link (Azure SDKs, `EventPosition`). Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

from birthmark.errors import InvalidRequestError

MAX_FILTER_CHARS = 512
_FILTER = re.compile(
    r"\s*amqp\.annotation\.(x-opt-offset|x-opt-sequence-number|x-opt-enqueued-time|x-opt-enqueuedtimeutc)"
    r"\s*(>=?)\s*'?([^'\s]*)'?\s*"
)
_LATEST, _FIRST = "@latest", "-1"


class PositionKind(StrEnum):
    """What a start position counts in."""

    POSITION = "position"
    NUMBER = "number"
    TIME = "time"
    LATEST = "latest"


class EventFilterError(InvalidRequestError):
    """The filter of a reader is not valid."""

    code = "iothub.event_filter_invalid"
    message = "The start position of the reader is not valid: {text}"
    cause = "The start position of an Event Hubs reader is not valid: {text}."
    fix = (
        "Use a start position that the SDK supports: an offset, a sequence number, an enqueued time, or @latest. If "
        "the server was reset, clear the checkpoint store. To read the telemetry of the last ten minutes: `birthmark "
        "hub monitor --since 10m`"
    )
    text: str


@dataclass(frozen=True, slots=True)
class EventPosition:
    """A start position. `value` is a position, a sequence number, or a time in milliseconds since 1970.

    Without `is_inclusive`, the message at the position is not read.
    """

    kind: PositionKind = PositionKind.POSITION
    value: int = -1
    is_inclusive: bool = False


def parse_filter(text: str | None) -> EventPosition:
    """Return the start position of a selector filter; without one, the beginning. Raise `EventFilterError`."""
    if text is None:
        return EventPosition()
    found = _FILTER.fullmatch(text) if len(text) <= MAX_FILTER_CHARS else None
    if found is None:
        raise EventFilterError(text=text[:100])
    name, comparison, value = found.groups()
    if name == "x-opt-offset" and value in {_LATEST, _FIRST}:
        return EventPosition(PositionKind.LATEST) if value == _LATEST else EventPosition()
    if re.fullmatch(r"-?[0-9]{1,19}", value) is None:
        raise EventFilterError(text=text[:100])
    kind = {"x-opt-offset": PositionKind.POSITION, "x-opt-sequence-number": PositionKind.NUMBER}.get(
        name, PositionKind.TIME
    )
    return EventPosition(kind, int(value), comparison == ">=")
