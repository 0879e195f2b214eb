"""Packets to bytes and back, for any packet and any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt import codec
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.mqtt.properties import PropertyId
from support.mqtt.mqtt_strategies import packets

LEVELS = st.sampled_from([4, 5])


@given(LEVELS.flatmap(lambda level: st.tuples(st.just(level), packets(level))))
def test_a_packet_comes_back_as_it_was(given_: tuple[int, Packet]) -> None:
    level, packet = given_
    framer = Framer(1 << 20)
    framer.receive_data(codec.encode(packet, level))
    frame = framer.next_frame()
    assert frame is not None
    assert codec.decode(*frame, level) == packet
    assert framer.buffered == 0


@given(first=st.integers(0, 255), body=st.binary(max_size=64), level=LEVELS)
def test_any_body_is_a_packet_or_a_remote_error(first: int, body: bytes, level: int) -> None:
    try:
        packet = codec.decode(first, body, level)
    except RemoteProtocolError:
        return
    assert codec.encode(packet, level)


@given(LEVELS.flatmap(lambda level: st.tuples(st.just(level), packets(level))), st.data())
def test_a_damaged_packet_is_a_packet_or_a_remote_error(given_: tuple[int, Packet], data: st.DataObject) -> None:
    level, packet = given_
    raw = bytearray(codec.encode(packet, level))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    framer = Framer(1 << 20)
    framer.receive_data(bytes(raw))
    try:
        while (frame := framer.next_frame()) is not None:
            codec.decode(*frame, level)
    except RemoteProtocolError:
        pass


def test_a_level_5_client_is_told_in_3_1_1_form_that_its_level_is_refused() -> None:
    assert codec.encode(ConnAck(code=1), level=5) == bytes.fromhex("20020001")
    assert codec.encode(ConnAck(code=0x84), level=5) == bytes.fromhex("2003008400")


def test_3_1_1_knows_one_refusal_of_a_subscription_only() -> None:
    assert codec.encode(SubAck(1, (0x87, 1)), level=4)[-2:] == b"\x80\x01"


def test_a_signed_user_name_does_not_show_in_repr() -> None:
    connect = Connect("c", username="bob?x-amz-customauthorizer-signature=c2VjcmV0&tokKey=v")
    assert "c2VjcmV0" not in repr(connect)
    assert "bob" in repr(connect)


@pytest.mark.parametrize(
    "packet",
    [
        Publish("", b""),
        Publish("a/#", b""),
        Publish("t", b"", 1),
        Publish("t", b"", 0, packet_id=1),
        Publish("t", b"", 3, packet_id=1),
        Publish("t" * 65536, b""),
        Publish("\ud800", b""),
        Connect("", clean_start=False),
        Connect("c", password=b"p"),
        Connect("c", keep_alive_s=65536),
        Connect("c", level=3),
        Connect("c", will=WillMessage("a/#", b"")),
        Connect("c", will=WillMessage("a", b"", qos=3)),
        ConnAck(session_present=True, code=5),
        ConnAck(code=256),
        Subscribe(1, ()),
        Subscribe(1, (("a/#/b", 0),)),
        Subscribe(1, (("a", 3),)),
        Subscribe(0, (("a", 0),)),
        SubAck(1, ()),
        SubAck(1, (3,)),
        Unsubscribe(1, ()),
        Unsubscribe(1, ("#/a",)),
        Auth(0x18),
    ],
)
def test_what_mqtt_forbids_is_never_written(packet: Packet) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(packet)


@pytest.mark.parametrize("packet", [UnsubAck(1), Disconnect(256), Auth(256), Subscribe(1, (("a", 0x30),))])
def test_what_mqtt5_forbids_is_never_written(packet: Packet) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(packet, level=5)


@pytest.mark.parametrize(
    ("raw", "level"),
    [
        ("10 0f 0004 4d515454 04 06 003c 0001 63 0000 0000", 4),
        ("20 02 02 00", 4),
        ("90 02 0001", 4),
        ("90 03 0001 03", 4),
        ("90 03 0001 81", 4),
        ("b0 03 0001 00", 5),
        ("10 0c 0004 4d515454 04 00 003c 0000", 4),
        ("10 0d 0004 4d515454 04 1e 003c 0001 63", 4),
        ("10 0d 0004 4d515454 04 08 003c 0001 63", 4),
        ("82 02 0001", 4),
        ("82 05 0001 0000 03", 4),
        ("a2 02 0001", 4),
    ],
    ids=[
        "a will without a topic",
        "reserved flags",
        "no code",
        "a reserved code",
        "a code of MQTT 5",
        "no code of 5",
        "an empty client id in a session that is kept",
        "will QoS 3",
        "will QoS without a will",
        "a subscription to nothing",
        "a subscription with QoS 3",
        "no filter to unsubscribe",
    ],
)
def test_what_mqtt_forbids_is_not_read(raw: str, level: int) -> None:
    data = bytes.fromhex(raw)
    with pytest.raises(RemoteProtocolError):
        codec.decode(data[0], data[2:], level)


def test_a_property_in_the_wrong_packet_is_never_written() -> None:
    with pytest.raises(LocalProtocolError, match="TOPIC_ALIAS does not belong"):
        codec.encode(ConnAck(properties=((PropertyId.TOPIC_ALIAS, 1),)), level=5)
    with pytest.raises(LocalProtocolError, match="cannot hold"):
        codec.encode(Publish("t", b"", properties=((PropertyId.TOPIC_ALIAS, "one"),)), level=5)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("03 23 0000", "is 0"),
        ("06 23 0001 23 0002", "twice"),
        ("02 01 02", "flag"),
        ("02 7f 00", "does not exist"),
        ("05 11 00000001", "belong"),
        ("04 03 0001 61", None),
        ("03 03 0001 61", "beyond"),
        ("7f 03", "inside its properties"),
    ],
)
def test_mqtt5_properties_are_read_strictly(block: str, reason: str | None) -> None:
    body = b"\0\1t" + bytes.fromhex(block)
    if reason is None:
        assert codec.decode(0x30, body, 5) == Publish("t", b"", properties=((PropertyId.CONTENT_TYPE, "a"),))
        return
    with pytest.raises(RemoteProtocolError, match=reason):
        codec.decode(0x30, body, 5)


@pytest.mark.parametrize(("first", "each"), [(0x82, b"\0\1a\0"), (0xA2, b"\0\1a")])
def test_filters_are_given_up_before_all_of_them_are_read(first: int, each: bytes) -> None:
    """Ninety thousand of one character each stopped everybody for 150 ms, and were refused then."""
    most = codec.decode(first, b"\0\1" + each * codec.MAX_FILTERS)
    assert isinstance(most, Subscribe | Unsubscribe)
    assert len(most.filters) == codec.MAX_FILTERS
    with pytest.raises(RemoteProtocolError, match="topic filters"):
        codec.decode(first, b"\0\1" + each * (codec.MAX_FILTERS + 1) + b"\xff")


def test_the_first_connect_of_a_mosquitto_bridge_is_refused_for_its_level_and_known_as_one() -> None:
    with pytest.raises(RemoteProtocolError, match="level 132, as a mosquitto bridge does first") as refused:
        codec.decode(0x10, b"\0\4MQTT\x84\2\0\x3c\0\1b")
    assert refused.value.return_code == 1
