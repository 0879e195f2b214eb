"""MQTT 5.0, statement by statement, of the server unless a name says client. Numbers as in its appendix B."""

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.engine import DISCARDED, MqttEngine, MqttRole, MqttState, SessionState
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import (
    LEVEL_5,
    NEVER,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.mqtt.properties import MAX_PROPERTIES, Properties, PropertyId, PropertyValue
from birthmark.mqtt.reason_codes import ReasonCode

P = PropertyId
CONNECT_HEAD = "0004 4d515454 05"
OFFERED: Properties = (
    (P.RECEIVE_MAXIMUM, 3),
    (P.MAXIMUM_QOS, 1),
    (P.RETAIN_AVAILABLE, 1),
    (P.MAXIMUM_PACKET_SIZE, 1000),
    (P.TOPIC_ALIAS_MAXIMUM, 2),
    (P.SUBSCRIPTION_IDS_AVAILABLE, 0),
)


def with_property(key: PropertyId, value: PropertyValue) -> Properties:
    return (*(pair for pair in OFFERED if pair[0] is not key), (key, value))


def a_server(
    said: Properties = (), offered: Properties = OFFERED, *, session: SessionState | None = None, keep_alive_s: int = 60
) -> MqttEngine:
    server = MqttEngine(MqttRole.SERVER, session=session)
    connect = Connect("c", keep_alive_s=keep_alive_s, level=LEVEL_5, properties=said)
    server.receive_data(codec.encode(connect), 0.0)
    assert server.next_event() == connect
    server.send(ConnAck(session_present=session is not None, properties=offered))
    return server


def a_client(offered: Properties = (), said: Properties = (), session: SessionState | None = None) -> MqttEngine:
    client = MqttEngine(MqttRole.CLIENT, session=session)
    client.send(Connect("c", level=LEVEL_5, properties=said))
    client.data_to_send()
    client.receive_data(codec.encode(ConnAck(session is not None, properties=offered), LEVEL_5), 0.0)
    client.next_event()
    return client


def an_open_server(said: Properties = (), offered: Properties = OFFERED) -> MqttEngine:
    server = a_server(said, offered)
    server.data_to_send()
    return server


def sent(engine: MqttEngine) -> list[Packet]:
    framer, packets = Framer(1 << 20), []
    framer.receive_data(engine.data_to_send())
    while (frame := framer.next_frame()) is not None:
        packets.append(codec.decode(*frame, LEVEL_5))
    return packets


def says(engine: MqttEngine, *what: str | Packet) -> Packet | None:
    for part in what:
        engine.receive_data(bytes.fromhex(part) if isinstance(part, str) else codec.encode(part, LEVEL_5), 0.0)
    return engine.next_event()


def refused(engine: MqttEngine, *what: str | Packet) -> int:
    """Say it, see the connection fail, and return what the last packet of the server says."""
    engine.data_to_send()
    with pytest.raises(RemoteProtocolError):
        says(engine, *what)
    assert engine.state is MqttState.FAILED
    last = sent(engine)[-1]
    assert isinstance(last, Disconnect | ConnAck)
    return last.code


def connecting(text: str) -> str:
    """Return the CONNECT of a body that begins after the level."""
    body = bytes.fromhex(CONNECT_HEAD + text)
    return bytes((0x10, len(body), *body)).hex()


def test_the_names_of_all_reason_codes_are_unique() -> None:
    assert len({code.value for code in ReasonCode}) == len(ReasonCode)


# ---- 1.5 data


@pytest.mark.parametrize("text", ["ff", "c080", "eda080", "f4908080"])
def test_mqtt5_1_5_4_1_ill_formed_utf8_is_a_malformed_packet(text: str) -> None:
    raw = bytes.fromhex(text)
    assert refused(an_open_server(), bytes((0x30, len(raw) + 3, 0, len(raw), *raw, 0)).hex()) == 0x81


def test_mqtt5_1_5_4_2_u0000_is_a_malformed_packet() -> None:
    assert refused(an_open_server(), "30 06 0003 610062 00") == 0x81


def test_mqtt5_1_5_4_3_a_byte_order_mark_is_kept() -> None:
    assert says(an_open_server(), "30 07 0004 efbbbf61 00") == Publish("\ufeffa", b"")


def test_mqtt5_1_5_5_1_a_variable_byte_integer_is_as_short_as_possible() -> None:
    assert refused(an_open_server(), "30 05 0001 74 8000") == 0x81


def test_mqtt5_1_5_7_1_both_halves_of_a_pair_are_strings() -> None:
    assert refused(an_open_server(), "30 0b 0001 74 07 26 0001 61 0001 ff") == 0x81


def test_a_packet_has_a_bounded_number_of_properties() -> None:
    pair: tuple[PropertyId, PropertyValue] = (P.USER_PROPERTY, ("", ""))
    most = Publish("t", b"", properties=(pair,) * MAX_PROPERTIES)
    server = an_open_server(offered=with_property(P.MAXIMUM_PACKET_SIZE, 100_000))
    assert says(server, most) == most
    assert refused(server, Publish("t", b"", properties=(pair,) * (MAX_PROPERTIES + 1))) == 0x97


# ---- 2 packets


@pytest.mark.parametrize("first", ["00", "11", "41", "60", "80", "a0", "c1", "e1", "f1"])
def test_mqtt5_2_1_3_1_reserved_flags_are_malformed(first: str) -> None:
    assert refused(an_open_server(), f"{first} 02 0001") == 0x81


def test_mqtt5_2_2_1_2_qos_0_has_no_packet_id() -> None:
    assert codec.encode(Publish("t", b"x"), LEVEL_5) == bytes.fromhex("30 05 0001 74 00 78")


@pytest.mark.parametrize("packet", ["32 06 0001 74 0000 00", "82 07 0000 00 0001 74 00", "a2 06 0000 00 0001 74"])
def test_mqtt5_2_2_1_3_a_packet_id_is_not_zero(packet: str) -> None:
    assert refused(an_open_server(), packet) == 0x81


def test_mqtt5_2_2_1_4_a_new_message_takes_an_unused_id() -> None:
    server = an_open_server()
    ids = [server.publish("t", b"", 1) for _ in range(3)]
    assert says(server, PubAck(2)) == PubAck(2)
    server.session._last_id = 0
    assert (ids, server.publish("t", b"", 1)) == ([1, 2, 3], 2)


def test_mqtt5_2_2_1_5_puback_has_the_id_of_its_publish() -> None:
    server = an_open_server()
    says(server, Publish("t", b"", 1, packet_id=0x1234))
    server.ack([0x1234])
    assert sent(server) == [PubAck(0x1234)]


def test_mqtt5_2_2_1_6_suback_and_unsuback_have_the_id_of_their_request() -> None:
    assert refused(a_client(), SubAck(7, (0,))) == 0x82
    assert refused(a_client(), UnsubAck(7, (0,))) == 0x82


def test_mqtt5_2_2_2_1_no_properties_are_a_length_of_zero() -> None:
    assert codec.encode(Subscribe(1, (("t", 0),)), LEVEL_5) == bytes.fromhex("82 07 0001 00 0001 74 00")
    assert refused(an_open_server(), "82 02 0001") == 0x81


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("02 7f00", 0x81),  # there is none of that number
        ("05 11 00000001", 0x81),  # a session expiry, which belongs into CONNECT
        ("06 230001 230001", 0x82),  # a topic alias twice
        ("04 0100 0100", 0x82),
        ("02 0102", 0x82),  # a flag that is 2
        ("03 030001", 0x81),  # a string beyond the end
    ],
)
def test_mqtt5_2_2_2_2_a_property_is_where_it_belongs_once_and_of_its_type(block: str, code: int) -> None:
    raw = bytes.fromhex("0001 74" + block)
    assert refused(an_open_server(), bytes((0x30, len(raw), *raw)).hex()) == code


# ---- 3.1 CONNECT


def test_mqtt5_3_1_0_1_before_connect_nothing_is_answered() -> None:
    server = MqttEngine(MqttRole.SERVER)
    with pytest.raises(RemoteProtocolError):
        says(server, "c000")
    assert server.data_to_send() == b""


def test_mqtt5_3_1_0_2_a_second_connect_is_a_protocol_error() -> None:
    assert refused(an_open_server(), Connect("c", level=LEVEL_5)) == 0x82


def test_mqtt5_3_1_2_2_an_unknown_level_is_told_so() -> None:
    server = MqttEngine(MqttRole.SERVER)
    with pytest.raises(RemoteProtocolError) as refusal:
        says(server, "10 0e 0004 4d515454 06 02 003c 00 0001 63")
    assert (refusal.value.reason_code, server.data_to_send()) == (0x84, bytes.fromhex("20020001"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("03 003c 00 0001 63", 0x81),  # [MQTT-3.1.2-3] the reserved flag
        ("0a 003c 00 0001 63", 0x81),  # [MQTT-3.1.2-11] will QoS without a will
        ("22 003c 00 0001 63", 0x81),  # [MQTT-3.1.2-13] will retain without a will
        ("1e 003c 00 0001 63 00 0001 77 0001 6d", 0x81),  # [MQTT-3.1.2-12] will QoS 3
        ("06 003c 00 0001 63", 0x81),  # [MQTT-3.1.2-9] no will
        ("06 003c 00 0001 63 00 0001 23 0001 6d", 0x90),  # a will topic with a wildcard
        ("82 003c 00 0001 63", 0x81),  # [MQTT-3.1.2-17] no user name
        ("02 003c 03 210000 0001 63", 0x82),  # Receive Maximum 0
        ("02 003c 05 2700000000 0001 63", 0x82),  # Maximum Packet Size 0
        ("02 003c 02 1702 0001 63", 0x82),  # Request Problem Information 2
        ("02 003c 04 1501 0001 63", 0x81),
        ("02 003c 00 0001 63 00", 0x81),  # more than its content
        ("06 003c 00 0001 63 02 0101 0001 77 0001 ff", 0x99),  # a will that says it is UTF-8
    ],
)
def test_mqtt5_3_1_4_1_a_connect_that_is_not_valid_is_told_so_in_connack(text: str, code: int) -> None:
    assert refused(MqttEngine(MqttRole.SERVER), connecting(text)) == code


def test_mqtt5_3_1_2_19_a_password_needs_no_user_name() -> None:
    event = says(MqttEngine(MqttRole.SERVER), connecting("42 003c 00 0001 63 0001 70"))
    assert isinstance(event, Connect)
    assert (event.username, event.password) == (None, b"p")


def test_mqtt5_3_1_2_11_4_the_session_expiry_is_0_when_nothing_is_said() -> None:
    assert Connect("c", clean_start=False, level=LEVEL_5).session_expiry_s == 0
    assert Connect("c", level=LEVEL_5, properties=((P.SESSION_EXPIRY, 9),)).session_expiry_s == 9
    assert [Connect("c", clean_start=clean).session_expiry_s for clean in (True, False)] == [0, NEVER]


def test_mqtt5_3_1_2_21_the_client_uses_the_keep_alive_of_the_server() -> None:
    client = a_client(((P.SERVER_KEEP_ALIVE, 7),))
    client.on_deadline(7.0)
    assert client.data_to_send() == codec.encode(PingReq())


def test_mqtt5_3_1_2_22_silence_of_one_and_a_half_keep_alives_is_told_and_closed() -> None:
    server = a_server(keep_alive_s=60)
    server.data_to_send()
    server.on_deadline(89.9)
    with pytest.raises(RemoteProtocolError):
        server.on_deadline(90.0)
    assert sent(server) == [Disconnect(0x8D)]


def test_mqtt5_3_1_2_22_the_keep_alive_of_connack_counts() -> None:
    server = a_server(offered=((P.SERVER_KEEP_ALIVE, 10),))
    assert server.deadline == 15.0


def test_mqtt5_3_1_2_24_nothing_is_larger_than_the_client_takes() -> None:
    server = an_open_server(((P.MAXIMUM_PACKET_SIZE, 100),))
    assert server.publish("t", b"x" * 93, 0) is None
    assert len(server.data_to_send()) == 99
    server.publish("t", b"x" * 95, 0)
    assert server.data_to_send() == b""
    assert refused(MqttEngine(MqttRole.SERVER), Connect("c", level=LEVEL_5, properties=((P.AUTH_METHOD, "x"),))) == 0x8C


def test_mqtt5_3_1_2_24_who_takes_no_connack_is_closed() -> None:
    server = MqttEngine(MqttRole.SERVER)
    says(server, Connect("c", level=LEVEL_5, properties=((P.MAXIMUM_PACKET_SIZE, 10),)))
    with pytest.raises(RemoteProtocolError):
        server.send(ConnAck(properties=OFFERED))
    assert sent(server) == [ConnAck(code=0x95)]


def test_mqtt5_3_1_2_25_what_is_too_large_counts_as_delivered() -> None:
    server = an_open_server(((P.MAXIMUM_PACKET_SIZE, 100),))
    assert server.publish("t", b"x" * 200, 1) == DISCARDED
    assert (server.session.in_flight, server.data_to_send()) == ((), b"")
    assert server.publish("t", b"x", 1) is not None


def test_mqtt5_3_1_2_25_also_of_an_earlier_connection() -> None:
    session = SessionState()
    wide = MqttEngine(MqttRole.SERVER, session=session)
    wide.receive_data(codec.encode(Connect("c", level=LEVEL_5)), 0.0)
    wide.next_event()
    wide.send(ConnAck())
    ids = [wide.publish("t", b"x" * size, 1) for size in (200, 1)]
    narrow = a_server(((P.MAXIMUM_PACKET_SIZE, 100),), session=session)
    assert [packet for packet in sent(narrow) if isinstance(packet, Publish)] == [
        Publish("t", b"x", 1, dup=True, packet_id=ids[1])
    ]
    assert narrow.next_event() == PubAck(ids[0] or 0, 0x95)  # whoever keeps books learns that it is over


def test_mqtt5_3_1_2_26_and_27_a_client_gets_no_alias_above_its_maximum_and_without_one_none() -> None:
    for maximum in (0, 1, 5):
        server = an_open_server(((P.TOPIC_ALIAS_MAXIMUM, maximum),) if maximum else ())
        for _ in range(3):
            for number in range(8):
                server.publish(f"topic/{number}", b"")
        aliases = [value for packet in sent(server) if isinstance(packet, Publish) for _, value in packet.properties]
        assert set(aliases) == set(range(1, maximum + 1))


def test_mqtt5_3_1_2_29_who_wants_no_explanations_gets_none() -> None:
    why: Properties = ((P.REASON_STRING, "no"), (P.USER_PROPERTY, ("a", "b")))
    for said, kept in (((P.REQUEST_PROBLEM_INFO, 0),), ()), ((), why):
        server = an_open_server(said)
        for answer in (SubAck(1, (0,), why), UnsubAck(1, (0,), why), PubAck(1, 0x80, why)):
            server.send(answer)
        assert [packet.properties for packet in sent(server)] == [kept] * 3  # type: ignore[union-attr]  # all have them


# ---- 3.2 CONNACK


def test_mqtt5_3_2_0_1_the_client_takes_connack_first_only() -> None:
    client = MqttEngine(MqttRole.CLIENT)
    client.send(Connect("c", level=LEVEL_5))
    with pytest.raises(RemoteProtocolError):
        says(client, Publish("t", b""))


def test_mqtt5_3_2_0_2_connack_comes_once() -> None:
    assert refused(a_client(), ConnAck()) == 0x82
    with pytest.raises(LocalProtocolError):
        a_server().send(ConnAck())


def test_mqtt5_3_2_2_6_and_7_a_refusal_has_no_session_and_ends_the_connection() -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(ConnAck(session_present=True, code=0x87), LEVEL_5)
    server = MqttEngine(MqttRole.SERVER)
    says(server, Connect("c", level=LEVEL_5))
    server.send(ConnAck(code=0x87))
    assert server.state is MqttState.CLOSED


def test_mqtt5_3_2_2_11_the_client_keeps_to_the_qos_of_the_server() -> None:
    client = a_client(((P.MAXIMUM_QOS, 0),))
    with pytest.raises(LocalProtocolError, match="QoS 1"):
        client.publish("t", b"", 1)
    client.publish("t", b"")


def test_mqtt5_3_2_2_14_the_client_retains_nothing_where_that_is_not_available() -> None:
    with pytest.raises(LocalProtocolError, match="retained"):
        a_client(((P.RETAIN_AVAILABLE, 0),)).publish("t", b"", 0, True)


def test_mqtt5_3_2_2_15_the_client_sends_nothing_larger_than_the_server_takes() -> None:
    client = a_client(((P.MAXIMUM_PACKET_SIZE, 50),))
    with pytest.raises(LocalProtocolError, match="bytes"):
        client.publish("t", b"x" * 60, 1)
    with pytest.raises(LocalProtocolError, match="bytes"):
        client.subscribe([("t" * 60, 1)])
    assert client.publish("t", b"x", 1) is not None


def test_mqtt5_3_2_2_17_the_client_sends_no_alias_above_the_maximum_of_the_server() -> None:
    client = a_client(((P.TOPIC_ALIAS_MAXIMUM, 1),))
    for _ in range(3):
        client.publish("topic", b"")
        client.publish("other", b"")
    published = [packet for packet in sent(client) if isinstance(packet, Publish)]
    assert [packet.topic for packet in published] == ["topic", "other", "topic", "other", "", "other"]


def test_mqtt5_3_2_2_19_an_explanation_that_does_not_fit_is_left_out() -> None:
    server = an_open_server(((P.MAXIMUM_PACKET_SIZE, 40),))
    server.send(SubAck(1, (0x87,), ((P.REASON_STRING, "x" * 100),)))
    server.send(Disconnect(0x87, ((P.REASON_STRING, "x" * 100),)))
    assert sent(server) == [SubAck(1, (0x87,)), Disconnect(0x87)]


def test_mqtt5_3_2_2_3_2_what_is_too_large_for_the_server_is_refused_at_its_header() -> None:
    assert refused(an_open_server(), "30 e607") == 0x95  # 998 bytes and a header of three
    server = an_open_server()
    assert says(server, "30 e507") is None


@pytest.mark.parametrize(
    ("key", "packet", "code"),
    [
        (P.RETAIN_AVAILABLE, Publish("t", b"", retain=True), 0x9A),  # [MQTT-3.2.2-14]
        (P.WILDCARD_SUBSCRIPTION_AVAILABLE, Subscribe(1, (("a/+", 0),)), 0xA2),
        (P.SHARED_SUBSCRIPTION_AVAILABLE, Subscribe(1, (("$share/g/a", 0),)), 0x9E),
        (P.SUBSCRIPTION_IDS_AVAILABLE, Subscribe(1, (("a", 0),), ((P.SUBSCRIPTION_ID, 5),)), 0xA1),
    ],
)
def test_mqtt5_3_2_2_3_what_connack_says_is_not_there_is_refused(key: PropertyId, packet: Packet, code: int) -> None:
    assert refused(an_open_server(offered=with_property(key, 0)), packet) == code
    assert says(an_open_server(offered=with_property(key, 1)), packet) == packet


# ---- 3.3 PUBLISH


def test_mqtt5_3_3_1_1_redelivery_is_marked_and_the_first_attempt_is_not() -> None:
    server = a_server()
    server.publish("t", b"", 1)
    again = a_server(session=server.session)
    assert [packet.dup for packet in sent(server) + sent(again) if isinstance(packet, Publish)] == [False, True]


def test_mqtt5_3_3_1_2_qos_0_has_no_dup() -> None:
    assert refused(an_open_server(), "38 04 0001 74 00") == 0x81


def test_mqtt5_3_3_1_4_there_is_no_qos_3() -> None:
    assert refused(an_open_server(), "36 06 0001 74 0001 00") == 0x81


def test_mqtt5_3_2_2_10_qos_2_is_not_supported() -> None:
    assert refused(an_open_server(), Publish("t", b"", 2, packet_id=1)) == 0x9B


@pytest.mark.parametrize("topic", ["2b", "23"])
def test_mqtt5_3_3_2_2_a_topic_name_has_no_wildcard(topic: str) -> None:
    assert refused(an_open_server(), f"30 04 0001 {topic} 00") == 0x90


def test_mqtt5_3_3_2_1_without_a_topic_there_is_an_alias() -> None:
    assert refused(an_open_server(), "30 03 0000 00") == 0x82


def test_mqtt5_3_3_2_3_2_a_payload_that_says_it_is_text_is_text() -> None:
    text: Properties = ((P.PAYLOAD_FORMAT, 1),)
    server = an_open_server()
    assert says(server, Publish("t", "é".encode(), 1, packet_id=1, properties=text)) is not None
    assert says(server, Publish("t", b"\xff", 1, packet_id=2, properties=text)) is None
    assert says(server, Publish("t", b"\xff", 1, packet_id=3)) is not None
    server.ack([3])
    server.ack([1])
    assert sent(server) == [PubAck(1), PubAck(2, 0x99), PubAck(3)]
    assert refused(an_open_server(), Publish("t", b"\xff", properties=text)) == 0x99


def aliased(topic: str, alias: int, **more: int) -> Publish:
    return Publish(
        topic, b"", more.get("qos", 0), packet_id=more.get("packet_id"), properties=((P.TOPIC_ALIAS, alias),)
    )


def test_mqtt5_3_3_2_3_4_an_alias_stands_for_its_topic_until_it_gets_another() -> None:
    server = an_open_server()
    assert says(server, aliased("a", 1)) == Publish("a", b"")
    assert says(server, aliased("b", 2)) == Publish("b", b"")
    assert says(server, aliased("", 1)) == Publish("a", b"")
    assert says(server, aliased("c", 1)) == Publish("c", b"")
    assert says(server, aliased("", 1, qos=1, packet_id=5)) == Publish("c", b"", 1, packet_id=5)
    assert says(server, aliased("", 2)) == Publish("b", b"")


def test_mqtt5_3_3_2_3_4_an_alias_that_stands_for_nothing_is_a_protocol_error() -> None:
    assert refused(an_open_server(), aliased("", 1)) == 0x82


def test_mqtt5_3_3_2_7_an_alias_ends_with_its_connection() -> None:
    first = an_open_server()
    says(first, aliased("a", 1))
    second = a_server(session=first.session)
    assert refused(second, aliased("", 1)) == 0x82


def test_mqtt5_3_3_2_8_an_alias_is_not_zero() -> None:
    assert refused(an_open_server(), "30 07 0001 74 03 23 0000") == 0x94


def test_mqtt5_3_3_2_9_an_alias_is_not_above_what_we_announced() -> None:
    assert refused(an_open_server(), aliased("a", 3)) == 0x94
    assert refused(an_open_server(offered=()), aliased("a", 1)) == 0x94


def test_mqtt5_3_3_2_11_every_alias_up_to_the_maximum_is_taken() -> None:
    server = an_open_server(offered=with_property(P.TOPIC_ALIAS_MAXIMUM, 0xFFFF))
    assert says(server, aliased("a", 0xFFFF)) == Publish("a", b"")


def test_mqtt5_3_3_2_12_the_client_takes_every_alias_it_announced() -> None:
    client = a_client(said=((P.TOPIC_ALIAS_MAXIMUM, 2),))
    assert says(client, aliased("a", 2)) == Publish("a", b"")
    assert says(client, aliased("", 2)) == Publish("a", b"")
    assert refused(client, aliased("a", 3)) == 0x94


def test_mqtt5_3_3_2_14_a_response_topic_has_no_wildcard() -> None:
    raw = bytes.fromhex("0001 74 06 08 0003 612f23")
    assert refused(an_open_server(), bytes((0x30, len(raw), *raw)).hex()) == 0x82


def test_mqtt5_3_3_2_17_and_18_user_properties_come_through_as_they_are_in_their_order() -> None:
    properties: Properties = (
        (P.USER_PROPERTY, ("b", "1")),
        (P.CORRELATION_DATA, b"\0\xff"),
        (P.USER_PROPERTY, ("a", "2")),
        (P.USER_PROPERTY, ("b", "1")),
        (P.RESPONSE_TOPIC, "r"),
        (P.CONTENT_TYPE, "text/plain"),
        (P.MESSAGE_EXPIRY, 5),
    )
    server, client = an_open_server(), a_client()
    message = says(server, Publish("t", b"", properties=properties))
    assert isinstance(message, Publish)
    server.publish(message.topic, message.payload, properties=message.properties)
    client.receive_data(server.data_to_send(), 0.0)
    assert client.next_event() == Publish("t", b"", properties=properties)


def test_mqtt5_3_3_4_6_a_client_sends_no_subscription_id() -> None:
    packet = Publish("t", b"", properties=((P.SUBSCRIPTION_ID, 1),))
    assert refused(an_open_server(), packet) == 0x82
    assert says(a_client(), packet) == packet


@pytest.mark.parametrize("extra", [(), ((P.CONTENT_TYPE, "a"),), ((P.PAYLOAD_FORMAT, 1),)])
def test_mqtt5_3_3_4_9_more_messages_than_the_receive_maximum_end_the_connection(extra: Properties) -> None:
    server = an_open_server()
    messages = [Publish("t", b"", 1, packet_id=number, properties=extra) for number in (1, 2, 3, 4)]
    server.receive_data(b"".join(codec.encode(message, LEVEL_5) for message in messages), 0.0)
    assert [server.next_event() for _ in range(3)] == messages[:3]
    assert refused(server) == 0x93


def test_mqtt5_3_3_4_9_an_acknowledgement_makes_room_for_one_more() -> None:
    server = an_open_server()
    for number in range(1, 10):
        assert says(server, Publish("t", b"", 1, packet_id=number)) is not None
        server.ack([number])


def test_mqtt5_3_3_4_7_the_client_says_so_when_the_server_sends_too_much() -> None:
    client = a_client(said=((P.RECEIVE_MAXIMUM, 1),))
    assert says(client, Publish("t", b"", 1, packet_id=1)) is not None
    assert refused(client, Publish("t", b"", 1, packet_id=2)) == 0x93


def test_mqtt5_3_3_4_9_no_more_messages_go_out_than_the_client_takes() -> None:
    server = an_open_server(((P.RECEIVE_MAXIMUM, 2),))
    ids = [server.publish("t", bytes((number,)), 1) for number in range(4)]
    assert [packet.packet_id for packet in sent(server) if isinstance(packet, Publish)] == ids[:2]
    says(server, PubAck(1))
    assert [packet.packet_id for packet in sent(server) if isinstance(packet, Publish)] == [ids[2]]
    server.publish("t", b"", 0)
    assert len(sent(server)) == 1  # [MQTT-3.3.4-8] is not of QoS 0


# ---- 3.4 to 3.7 acknowledgements


def test_mqtt5_3_4_2_1_puback_says_what_became_of_the_message() -> None:
    server = an_open_server()
    says(server, Publish("t", b"", 1, packet_id=1))
    server.ack([1], ReasonCode.NOT_AUTHORIZED)
    assert server.data_to_send() == bytes.fromhex("40 03 0001 87")


def test_mqtt5_3_4_2_1_a_puback_without_a_code_is_a_success() -> None:
    server = an_open_server()
    server.publish("t", b"", 1)
    assert says(server, "40 02 0001") == PubAck(1)
    assert server.session.in_flight == ()


def test_mqtt5_4_3_1_a_message_that_the_client_refuses_is_delivered_all_the_same() -> None:
    server = an_open_server()
    server.publish("t", b"", 1)
    assert says(server, PubAck(1, 0x83)) == PubAck(1, 0x83)
    assert server.session.in_flight == ()


@pytest.mark.parametrize("packet", [PubRec(1), PubRel(1), PubComp(1)])
def test_mqtt5_3_5_without_qos_2_its_packets_are_protocol_errors(packet: Packet) -> None:
    assert refused(an_open_server(), packet) == 0x82


# ---- 3.8 to 3.11 subscriptions


def test_mqtt5_3_8_1_1_subscribe_has_flags_2() -> None:
    assert refused(an_open_server(), "80 07 0001 00 0001 74 00") == 0x81


def test_mqtt5_3_8_3_1_a_filter_is_utf8() -> None:
    assert refused(an_open_server(), "82 07 0001 00 0001 ff 00") == 0x81


def test_mqtt5_3_8_3_2_subscribe_has_a_filter() -> None:
    assert refused(an_open_server(), "82 03 0001 00") == 0x82


def test_mqtt5_3_8_3_4_no_local_does_not_go_with_a_share() -> None:
    shared = "82 12 0001 00 000c 2473686172652f672f74"
    assert refused(an_open_server(), shared.replace("12", "10", 1).replace("000c", "000a") + "04") == 0x82
    assert says(an_open_server(), Subscribe(1, (("$share/g/t", 1),))) == Subscribe(1, (("$share/g/t", 1),))


@pytest.mark.parametrize(("options", "code"), [("40", 0x81), ("80", 0x81), ("03", 0x82), ("30", 0x82)])
def test_mqtt5_3_8_3_5_reserved_options_are_malformed_and_values_that_are_none_errors(options: str, code: int) -> None:
    assert refused(an_open_server(), f"82 07 0001 00 0001 74 {options}") == code


def test_mqtt5_3_8_3_1_options_come_through() -> None:
    assert says(an_open_server(), "82 07 0001 00 0001 74 2d") == Subscribe(1, (("t", 0x2D),))


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a#", "+a", ""])
def test_mqtt5_4_7_1_1_a_misplaced_wildcard_is_an_invalid_filter(topic_filter: str) -> None:
    raw = topic_filter.encode()
    subscribe = bytes((0x82, len(raw) + 6, 0, 1, 0, 0, len(raw), *raw, 0))
    assert refused(an_open_server(), subscribe.hex()) == 0x8F


def test_mqtt5_3_9_3_1_suback_has_a_code_for_each_filter_in_order() -> None:
    client = a_client()
    asked = client.subscribe([("a", 1), ("b", 1)])
    assert says(client, SubAck(asked, (1, 0x87))) == SubAck(asked, (1, 0x87))
    asked = client.subscribe([("a", 1), ("b", 1)])
    assert refused(client, SubAck(asked, (1,))) == 0x82


def test_mqtt5_3_10_1_1_unsubscribe_has_flags_2() -> None:
    assert refused(an_open_server(), "a0 06 0001 00 0001 74") == 0x81


def test_mqtt5_3_10_3_2_unsubscribe_has_a_filter() -> None:
    assert refused(an_open_server(), "a2 03 0001 00") == 0x82


def test_mqtt5_3_11_3_1_unsuback_has_a_code_for_each_filter() -> None:
    client = a_client()
    asked = client.unsubscribe(["a", "b"])
    assert refused(client, UnsubAck(asked, (0,))) == 0x82
    with pytest.raises(LocalProtocolError):
        an_open_server().send(UnsubAck(1))


# ---- 3.12 to 3.15


def test_mqtt5_3_12_4_1_pingreq_is_answered() -> None:
    server = an_open_server()
    assert says(server, "c000") is None
    assert server.data_to_send() == bytes.fromhex("d000")


def test_mqtt5_3_14_0_1_there_is_no_disconnect_before_connack() -> None:
    server = MqttEngine(MqttRole.SERVER)
    says(server, Connect("c", level=LEVEL_5))
    with pytest.raises(LocalProtocolError):
        server.send(Disconnect(0x8B))


def test_mqtt5_3_14_2_1_disconnect_carries_its_reason() -> None:
    server = an_open_server()
    server.send(Disconnect(0x8E))
    assert server.data_to_send() == bytes.fromhex("e0 01 8e")
    client = a_client()
    assert says(client, "e0 01 8e") == Disconnect(0x8E)
    assert client.state is MqttState.CLOSED


def test_mqtt5_3_14_2_2_a_session_that_was_to_end_cannot_be_prolonged() -> None:
    prolonging = Disconnect(0, ((P.SESSION_EXPIRY, 5),))
    assert refused(an_open_server(), prolonging) == 0x82
    assert says(an_open_server(((P.SESSION_EXPIRY, 1),)), prolonging) == prolonging
    ending = Disconnect(0, ((P.SESSION_EXPIRY, 0),))
    assert says(an_open_server(), ending) == ending


def test_mqtt5_3_14_4_1_and_2_after_disconnect_nothing_is_sent_or_heard() -> None:
    server = an_open_server()
    assert says(server, "e000", Publish("t", b"")) == Disconnect()
    assert server.next_event() is None
    with pytest.raises(LocalProtocolError):
        server.publish("t", b"")
    with pytest.raises(LocalProtocolError):
        server.send(Disconnect(0x8B))


@pytest.mark.parametrize("packet", [Auth(), Auth(0x18, ((P.AUTH_METHOD, "x"),))])
def test_mqtt5_4_12_0_6_without_a_method_in_connect_there_is_no_auth(packet: Auth) -> None:
    assert refused(an_open_server(), packet) == 0x82


def test_mqtt5_4_12_0_1_an_authentication_method_is_not_supported() -> None:
    method: Properties = ((P.AUTH_METHOD, "SCRAM"),)
    assert refused(MqttEngine(MqttRole.SERVER), Connect("c", level=LEVEL_5, properties=method)) == 0x8C
    data: Properties = ((P.AUTH_DATA, b"x"),)
    assert refused(MqttEngine(MqttRole.SERVER), Connect("c", level=LEVEL_5, properties=data)) == 0x82


# ---- 4 behaviour


def test_mqtt5_4_4_0_1_unacknowledged_messages_go_again_with_their_ids_in_order() -> None:
    first = a_server(((P.RECEIVE_MAXIMUM, 3),))
    ids = [first.publish("t", bytes((number,)), 1) for number in range(5)]
    says(first, PubAck(2))
    second = a_server(((P.RECEIVE_MAXIMUM, 2),), session=first.session)
    again = [(packet.packet_id, packet.dup) for packet in sent(second) if isinstance(packet, Publish)]
    assert again == [(ids[0], True), (ids[2], True)]  # no more than the client takes now
    says(second, PubAck(1), PubAck(3))
    late = [(packet.packet_id, packet.dup) for packet in sent(second) if isinstance(packet, Publish)]
    second.next_event()
    assert late == [(ids[3], True)]


def test_mqtt5_4_4_0_1_a_session_that_is_not_there_sends_nothing_again() -> None:
    first = a_server()
    first.publish("t", b"", 1)
    server = MqttEngine(MqttRole.SERVER, session=first.session)
    says(server, Connect("c", level=LEVEL_5))
    server.send(ConnAck(session_present=False))
    assert sent(server) == [ConnAck()]


def test_mqtt5_4_6_0_2_acknowledgements_leave_in_the_order_of_the_messages() -> None:
    server = an_open_server(offered=with_property(P.RECEIVE_MAXIMUM, 10))
    for number in (5, 3, 9, 4):
        says(server, Publish("t", b"", 1, packet_id=number))
    server.ack([3, 9])
    assert sent(server) == []
    server.ack([5], 0x87)
    assert sent(server) == [PubAck(5, 0x87), PubAck(3), PubAck(9)]
    server.ack([4])
    assert sent(server) == [PubAck(4)]


@pytest.mark.parametrize("topic_filter", ["$share//a", "$share/+/a", "$share/g#/a", "$share/g", "$share/g/", "$share/"])
def test_mqtt5_4_8_2_1_and_2_a_share_has_a_name_and_a_filter(topic_filter: str) -> None:
    raw = topic_filter.encode()
    subscribe = bytes((0x82, len(raw) + 6, 0, 1, 0, 0, len(raw), *raw, 0))
    assert refused(an_open_server(), subscribe.hex()) == 0x8F
    unsubscribe = bytes((0xA2, len(raw) + 5, 0, 1, 0, 0, len(raw), *raw))
    assert refused(an_open_server(), unsubscribe.hex()) == 0x8F


def test_mqtt5_4_8_2_2_a_share_is_of_mqtt_5_alone() -> None:
    raw = b"$share//a"
    server = MqttEngine(MqttRole.SERVER)
    says(server, codec.encode(Connect("c")).hex())
    server.send(ConnAck())
    assert says(server, bytes((0x82, len(raw) + 5, 0, 1, 0, len(raw), *raw, 0)).hex()) == Subscribe(
        1, (("$share//a", 0),)
    )


@pytest.mark.parametrize(
    "packet", [ConnAck(), SubAck(1, (0,)), UnsubAck(1, (0,))], ids=lambda packet: type(packet).__name__
)
def test_mqtt5_4_13_1_1_what_only_servers_send_ends_the_connection(packet: Packet) -> None:
    assert refused(an_open_server(), packet) == 0x82


@pytest.mark.parametrize(
    "packet", [Connect("c", level=LEVEL_5), Subscribe(1, (("a", 0),)), Unsubscribe(1, ("a",)), PingReq()]
)
def test_mqtt5_4_13_1_1_client_ends_the_connection_on_what_only_clients_send(packet: Packet) -> None:
    assert refused(a_client(), packet) == 0x82


def test_mqtt5_3_1_2_5_a_will_keeps_its_properties() -> None:
    will = WillMessage("w", b"m", 1, True, ((P.WILL_DELAY, 5), (P.CONTENT_TYPE, "a"), (P.USER_PROPERTY, ("a", "b"))))
    connect = Connect("c", will=will, level=LEVEL_5)
    assert says(MqttEngine(MqttRole.SERVER), connect) == connect
