"""Start positions of Event Hubs readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.iothub.rules.event_positions import EventFilterError, EventPosition, PositionKind, parse_filter


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (None, EventPosition()),
        ("amqp.annotation.x-opt-offset > '-1'", EventPosition()),
        ("amqp.annotation.x-opt-offset > '@latest'", EventPosition(PositionKind.LATEST)),
        ("amqp.annotation.x-opt-offset > '4096'", EventPosition(PositionKind.POSITION, 4096)),
        ("amqp.annotation.x-opt-offset >= '4096'", EventPosition(PositionKind.POSITION, 4096, True)),
        ("amqp.annotation.x-opt-sequence-number > '7'", EventPosition(PositionKind.NUMBER, 7)),
        ("amqp.annotation.x-opt-sequence-number >= 7", EventPosition(PositionKind.NUMBER, 7, True)),
        (
            "amqp.annotation.x-opt-enqueued-time > '1795753000000'",
            EventPosition(PositionKind.TIME, 1_795_753_000_000),
        ),
        (
            "amqp.annotation.x-opt-enqueuedtimeutc > 1795753000000",
            EventPosition(PositionKind.TIME, 1_795_753_000_000),
        ),
    ],
)
def test_a_position_is_read_from_the_filter_of_each_client(text: str | None, position: EventPosition) -> None:
    assert parse_filter(text) == position


@pytest.mark.parametrize(
    "text",
    ["", "x-opt-offset > '1'", "amqp.annotation.x-opt-offset < '1'", "amqp.annotation.x-opt-offset > 'a'", "a" * 600],
)
def test_other_filters_are_rejected(text: str) -> None:
    with pytest.raises(EventFilterError):
        parse_filter(text)


@given(st.text(max_size=600))
def test_any_text_is_a_position_or_rejected(text: str) -> None:
    try:
        parse_filter(text)
    except EventFilterError:
        pass
