"""Any chunking gives the same packets; sizes are bounded; work is linear."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt import codec
from birthmark.mqtt.engine import MqttEngine, MqttLimits, MqttRole
from birthmark.mqtt.errors import RemoteProtocolError
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect, Packet, Publish
from birthmark.mqtt.properties import Properties, PropertyId
from support.mqtt.mqtt_strategies import packets


class CodecOnly(MqttEngine):
    """An engine whose fast path finds nothing."""

    def next_burst(self) -> list[Publish]:
        return []


def an_open_server(limits: MqttLimits | None = None, level: int = 4, kind: type[MqttEngine] = MqttEngine) -> MqttEngine:
    server = kind(MqttRole.SERVER, limits or MqttLimits())
    server.receive_data(codec.encode(Connect("c", level=level), level), 0.0)
    assert isinstance(server.next_event(), Connect)
    server.send(ConnAck())
    server.data_to_send()
    return server


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.sampled_from([4, 5]).flatmap(lambda level: st.tuples(st.just(level), st.lists(packets(level), max_size=6))),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_chunking_gives_the_same_packets(given_: tuple[int, list[Packet]], cuts: list[int]) -> None:
    level, sent = given_
    framer, got = Framer(1 << 20), []
    for chunk in chunks_of(b"".join(codec.encode(packet, level) for packet in sent), cuts):
        framer.receive_data(chunk)
        while (frame := framer.next_frame()) is not None:
            got.append(codec.decode(*frame, level))
    assert got == sent


@given(
    level=st.sampled_from([4, 5]),
    messages=st.lists(
        st.builds(
            lambda topic, size, qos, retain, packet_id: Publish(
                topic, b"x" * size, qos, retain, packet_id=packet_id if qos else None
            ),
            st.sampled_from(["t", "devices/é/messages", "t/" * 70]),
            st.sampled_from([0, 1, 100, 130, 17000]),
            st.integers(0, 2),
            st.booleans(),
            st.integers(1, 0xFFFF),
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 70000), max_size=8),
)
def test_the_fast_path_reads_what_the_codec_wrote(level: int, messages: list[Publish], cuts: list[int]) -> None:
    server, got = an_open_server(level=level), []
    for chunk in chunks_of(b"".join(codec.encode(message, level) for message in messages), cuts):
        server.receive_data(chunk, 0.0)
        while (event := server.next_event()) is not None:
            got.append(event)
    assert got == messages


@pytest.mark.parametrize("level", [4, 5])
def test_a_packet_that_is_like_the_one_before_but_for_an_error_is_one(level: int) -> None:
    good = codec.encode(Publish("t", b"payload", 1, packet_id=1), level)
    place = good.index(b"\0\1", 4)
    server = an_open_server(level=level)
    server.receive_data(good + good[:place] + b"\0\0" + good[place + 2 :], 0.0)
    assert server.next_event() == Publish("t", b"payload", 1, packet_id=1)
    with pytest.raises(RemoteProtocolError, match="packet id is 0"):
        server.next_event()


def outcome(server: MqttEngine, data: bytes) -> tuple[list[Packet], int | None]:
    """Return what a server hears in `data`, and the reason code it ends with."""
    heard: list[Packet] = []
    try:
        server.receive_data(data, 0.0)
        while (event := server.next_event()) is not None:
            heard.append(event)
    except RemoteProtocolError as error:
        return heard, error.reason_code
    return heard, None


ALIASED = st.builds(
    lambda topic, qos, packet_id, alias, more: Publish(
        topic,
        b"p" * (1 + packet_id % 2),
        qos,
        packet_id=packet_id if qos else None,
        properties=(*(((PropertyId.TOPIC_ALIAS, alias),) if alias or not topic else ()), *more),
    ),
    st.sampled_from(["", "", "a", "b", "longer/topic"]),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from([0, 1, 1, 2, 3, 9]),
    st.sampled_from(
        [
            (),
            (),
            ((PropertyId.CONTENT_TYPE, "a"),),
            ((PropertyId.PAYLOAD_FORMAT, 1), (PropertyId.USER_PROPERTY, ("a", "b"))),
            ((PropertyId.SUBSCRIPTION_ID, 1),),
        ]
    ),
)


@given(st.lists(ALIASED.flatmap(lambda message: st.integers(1, 3).map(lambda n: [message] * n)), max_size=8))
def test_with_aliases_and_properties_the_fast_path_hears_what_the_codec_hears(runs: list[list[Publish]]) -> None:
    data = b"".join(codec.encode(message, LEVEL_5) for run in runs for message in run)
    offered: Properties = ((PropertyId.TOPIC_ALIAS_MAXIMUM, 3), (PropertyId.RECEIVE_MAXIMUM, 6))
    outcomes = []
    for kind in (MqttEngine, CodecOnly):
        server = kind(MqttRole.SERVER)
        server.receive_data(codec.encode(Connect("c", level=LEVEL_5)), 0.0)
        server.next_event()
        server.send(ConnAck(properties=offered))
        server.data_to_send()
        outcomes.append((outcome(server, data), server.data_to_send()))
    assert outcomes[0] == outcomes[1]


def test_messages_with_the_same_properties_come_in_one_burst() -> None:
    server = an_open_server(level=LEVEL_5)
    properties: Properties = ((PropertyId.CONTENT_TYPE, "a"), (PropertyId.USER_PROPERTY, ("a", "b")))
    messages = [Publish("t", b"%d" % n, 1, packet_id=n, properties=properties) for n in range(1, 8)]
    server.receive_data(b"".join(codec.encode(message, LEVEL_5) for message in messages), 0.0)
    assert server.next_burst() == messages


@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from([4, 5]))
def test_garbage_never_raises_anything_but_a_remote_error(chunks: list[bytes], level: int) -> None:
    server = an_open_server(level=level)
    try:
        for chunk in chunks:
            server.receive_data(chunk, 0.0)
            while server.next_event() is not None:
                pass
    except RemoteProtocolError:
        pass


@given(st.binary(min_size=1, max_size=12), st.binary(max_size=30))
def test_both_paths_judge_a_publish_alike(head: bytes, rest: bytes) -> None:
    """A PUBLISH of any content is read or refused by the burst exactly as the codec reads or refuses it."""
    body = head + rest
    for level in (4, 5):
        for first in (0x30, 0x31, 0x32, 0x33):
            data = bytes((first, len(body))) + body
            assert outcome(an_open_server(level=level), data) == outcome(
                an_open_server(level=level, kind=CodecOnly), data
            )


def test_a_packet_too_large_is_refused_at_its_header() -> None:
    server = an_open_server(MqttLimits(max_packet_bytes=100))
    server.receive_data(bytes((0x30, 98)) + b"\0\1t" + bytes(95), 0.0)
    assert server.next_event() is not None
    server.receive_data(bytes((0x30, 99)), 0.0)
    with pytest.raises(RemoteProtocolError, match="larger"):
        server.next_event()


def test_a_topic_too_long_is_refused() -> None:
    server = an_open_server(MqttLimits(max_topic_bytes=4))
    server.receive_data(codec.encode(Publish("éé", b"")) + codec.encode(Publish("ééa", b"")), 0.0)
    assert server.next_event() == Publish("éé", b"")
    with pytest.raises(RemoteProtocolError, match="too long"):
        server.next_event()


def test_a_large_packet_in_single_bytes_takes_linear_work() -> None:
    framer = Framer(1 << 20)
    packet = codec.encode(Publish("t", bytes(200_000)))
    frames = []
    for at in range(len(packet)):
        framer.receive_data(packet[at : at + 1])
        if (frame := framer.next_frame()) is not None:
            frames.append(frame)
    assert [len(body) for _first, body in frames] == [200_003]


def test_a_remaining_length_of_five_bytes_is_malformed() -> None:
    framer = Framer(1 << 20)
    framer.receive_data(b"\x30\x80\x80\x80\x80")
    with pytest.raises(RemoteProtocolError, match="four bytes"):
        framer.next_frame()
