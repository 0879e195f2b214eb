"""Messages to sections and back, as each client writes them."""

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.message import (
    AmqpMessage,
    DataBody,
    MessageHeader,
    MessageProperties,
    ValueBody,
    read_message,
    split_batch,
    write_batch,
    write_message,
)
from birthmark.amqp.values import Symbol, Timestamp, ULong
from support.amqp.amqp_strategies import messages, typed


@given(messages)
def test_a_message_comes_back_as_it_was(message: AmqpMessage) -> None:
    assert read_message(write_message(message)) == message


@given(st.binary(max_size=80), messages)
def test_any_payload_is_a_message_or_an_error_of_its_delivery(data: bytes, message: AmqpMessage) -> None:
    for payload in (data, b"\x00\x53" + data, write_message(message) + data):
        try:
            read_message(payload)
        except AmqpError as error:
            assert error.scope is AmqpErrorScope.DELIVERY


@pytest.mark.parametrize("encoded", ["44", "53 01", "98" + "11" * 16, "a0 01 78", "a1 01 78"])
def test_a_message_id_keeps_its_type_in_the_response(encoded: str) -> None:
    id_bytes = bytes.fromhex(encoded)
    request = b"\x00\x53\x73\xc0" + bytes((len(id_bytes) + 1, 1)) + id_bytes
    message_id = read_message(request).properties.message_id
    response = write_message(AmqpMessage(properties=MessageProperties(correlation_id=message_id)))
    assert response == b"\x00\x53\x73\xc0" + bytes((len(id_bytes) + 6, 6)) + b"\x40" * 5 + id_bytes
    assert typed(read_message(response).properties.correlation_id) == typed(message_id)


def test_a_telemetry_message_has_golden_bytes() -> None:
    message = AmqpMessage(
        DataBody((b"hi",)),
        MessageProperties(message_id="m", content_type="text/plain"),
        {"a": "b"},
        {Symbol("x-opt-sequence-number"): 1, Symbol("x-opt-enqueued-time"): Timestamp(2)},
    )
    assert write_message(message).hex(" ", 1) == (
        "00 53 72 c1 38 04 a3 15 78 2d 6f 70 74 2d 73 65 71 75 65 6e 63 65 2d 6e 75 6d 62 65 72 55 01"
        " a3 13 78 2d 6f 70 74 2d 65 6e 71 75 65 75 65 64 2d 74 69 6d 65 83 00 00 00 00 00 00 00 02"
        " 00 53 73 c0 15 07 a1 01 6d 40 40 40 40 40 a3 0a 74 65 78 74 2f 70 6c 61 69 6e"
        " 00 53 74 c1 07 02 a1 01 61 a1 01 62"
        " 00 53 75 a0 02 68 69"
    )


def test_a_request_without_a_body_is_read() -> None:
    request = AmqpMessage(message_annotations={Symbol("operation"): "GET"})
    assert read_message(write_message(request)).body is None
    assert read_message(b"") == AmqpMessage()


def test_a_content_type_that_is_a_string_is_read() -> None:
    payload = bytes.fromhex("005373 c00b07 40 40 40 40 40 40 a10161")
    payload = payload[:4] + bytes((len(payload) - 5,)) + payload[5:]
    assert read_message(payload).properties.content_type == "a"


def test_data_sections_are_one_payload() -> None:
    assert DataBody((b"a", b"b")).payload == b"ab"
    assert DataBody((b"a",)).payload == b"a"


def test_a_token_is_a_value_body() -> None:
    payload = bytes.fromhex("005377 a10161")
    assert read_message(payload).body == ValueBody("a")
    assert write_message(AmqpMessage(ValueBody("a"))) == payload


def test_sections_with_symbolic_descriptors_are_read() -> None:
    payload = b"\x00\xa3\x10amqp:data:binary\xa0\x01x"
    assert read_message(payload).body == DataBody((b"x",))


def test_a_header_has_the_defaults_of_the_standard() -> None:
    assert read_message(bytes.fromhex("005370 c00100")).header == MessageHeader(
        durable=False, priority=4, first_acquirer=False, delivery_count=0
    )


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("40", "not a section"),
        ("005379 c10100", "unknown type"),
        ("005375 a10161", "unknown type"),
        ("005374 c00100", "unknown type"),
        ("005374 c10302 4440", "not text"),
        ("005375 a000 005374 c10100", "order"),
        ("005374 c10100 005374 c10100", "order"),
        ("005375 a000 005377 40", "order"),
        ("005375 a005", "too early"),
        ("005373 c0020141", "message_id"),
        ("005370 c00706 40 40 40 40 40 40", "6 fields"),
    ],
)
def test_malformed_messages_are_errors_of_their_delivery(payload: str, reason: str) -> None:
    with pytest.raises(AmqpError, match=reason) as refused:
        read_message(bytes.fromhex(payload))
    assert refused.value.scope is AmqpErrorScope.DELIVERY


def test_sections_are_bounded() -> None:
    with pytest.raises(AmqpError, match="more than 64 sections") as refused:
        read_message(b"\x00\x53\x75\xa0\x00" * 65)
    assert refused.value.condition == AmqpCondition.RESOURCE_LIMIT_EXCEEDED


def test_elements_are_bounded_over_all_sections() -> None:
    nulls = b"\x00\x53\x76\xd0" + struct.pack(">II", 4 + 1000, 1000) + b"\x40" * 1000
    with pytest.raises(AmqpError, match="elements") as refused:
        read_message(nulls * 5)
    assert refused.value.scope is AmqpErrorScope.DELIVERY


def test_a_batch_is_split_into_its_messages() -> None:
    batch = tuple(write_message(AmqpMessage(DataBody((b"%d" % n,)))) for n in range(3))
    assert split_batch(write_batch(batch)) == batch


def test_messages_of_a_batch_are_bounded() -> None:
    payload = write_batch((b"",) * 3)
    with pytest.raises(AmqpError, match="more than 2") as refused:
        split_batch(payload, AmqpLimits(max_batch_messages=2))
    assert refused.value.scope is AmqpErrorScope.DELIVERY


def test_ids_of_different_types_are_different_bytes() -> None:
    ids = (ULong(0), 0, "0", b"0", UUID(int=0))
    written = {write_message(AmqpMessage(properties=MessageProperties(message_id=one))) for one in ids}
    assert len(written) == len(ids)
