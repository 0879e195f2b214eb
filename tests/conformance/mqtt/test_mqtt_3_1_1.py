"""MQTT 3.1.1, statement by statement, of the server unless a name says client. Numbers as in its appendix B."""

from typing import cast

import pytest

from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import Subscription
from birthmark.broker.topic_router import TopicRouter
from birthmark.mqtt import codec
from birthmark.mqtt.engine import MqttEngine, MqttRole, MqttState
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.mqtt.topics import is_valid_filter, matches

CONNECT = "10 0d 0004 4d515454 04 02 003c 0001 63"


class _Client:
    client = "c"


CLIENT = cast("ConnectedSession", _Client())


def subscribed(*filters: tuple[str, int]) -> TopicRouter:
    router = TopicRouter(hash_matches_parent=True)
    for topic_filter, qos in filters:
        router.add(CLIENT, Subscription(topic_filter, qos))
    return router


def routed(router: TopicRouter, topic: str) -> list[tuple[str, int]]:
    route = router.find(topic)
    assert route is not None
    return [(attached.client, qos) for attached, qos, _ in route.live]


def bytes_of(text: str) -> bytes:
    return bytes.fromhex(text)


def a_server() -> MqttEngine:
    server = MqttEngine(MqttRole.SERVER)
    server.receive_data(bytes_of(CONNECT), 0.0)
    server.next_event()
    server.send(ConnAck())
    server.data_to_send()
    return server


def a_client(connack: str = "20020000") -> MqttEngine:
    client = MqttEngine(MqttRole.CLIENT)
    client.send(Connect("c"))
    client.data_to_send()
    client.receive_data(bytes_of(connack), 0.0)
    client.next_event()
    return client


def says(engine: MqttEngine, text: str) -> Packet | None:
    engine.receive_data(bytes_of(text), 0.0)
    return engine.next_event()


def refuses(engine: MqttEngine, text: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as refusal:
        says(engine, text)
    assert engine.state is MqttState.FAILED
    return refusal.value


# ---- 1.5 and 2: strings, flags, packet ids


def test_mqtt_1_5_3_1_ill_formed_utf8_closes_the_connection() -> None:
    for text in ("ff", "c080", "eda080", "f4908080"):  # stray byte, overlong, surrogate, above U+10FFFF
        raw = bytes_of(text)
        refuses(a_server(), bytes((0x30, len(raw) + 2, 0, len(raw), *raw)).hex())


def test_mqtt_1_5_3_2_u0000_closes_the_connection() -> None:
    refuses(a_server(), "30 05 0003 610062")


def test_mqtt_1_5_3_3_a_byte_order_mark_is_kept() -> None:
    assert says(a_server(), "30 06 0004 efbbbf61") == Publish("\ufeffa", b"")


@pytest.mark.parametrize("first", ["00", "11", "41", "60", "80", "a0", "c1", "e1", "f0"])
def test_mqtt_2_2_2_2_reserved_flags_close_the_connection(first: str) -> None:
    refuses(a_server(), f"{first} 02 0001")


@pytest.mark.parametrize("packet", ["32 05 0001 74 0000", "82 06 0000 0001 74 00", "a2 05 0000 0001 74", "40 02 0000"])
def test_mqtt_2_3_1_1_a_packet_id_is_not_zero(packet: str) -> None:
    refuses(a_server(), packet)


def test_mqtt_2_3_1_2_a_new_packet_takes_an_unused_id() -> None:
    client = a_client()
    ids = [client.publish("t", b"", qos=1), client.subscribe([("t", 0)]), client.publish("t", b"", qos=1)]
    assert len(set(ids)) == 3


def test_mqtt_2_3_1_an_id_is_free_after_its_acknowledgement() -> None:
    client = a_client()
    first = client.publish("t", b"", qos=1)
    assert first == 1
    says(client, "40 02 0001")
    client.session._last_id = 0
    assert client.publish("t", b"", qos=1) == 1


def test_mqtt_2_3_1_5_qos_0_has_no_packet_id() -> None:
    assert codec.encode(Publish("t", b"x")) == bytes_of("30 04 0001 74 78")


# ---- 3.1 CONNECT


def test_mqtt_3_1_0_1_the_first_packet_is_connect() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "c000")


def test_mqtt_3_1_0_2_a_second_connect_closes_the_connection() -> None:
    refuses(a_server(), CONNECT)


def test_mqtt_3_1_2_1_another_protocol_name_is_closed_without_connack() -> None:
    server = MqttEngine(MqttRole.SERVER)
    assert refuses(server, "10 0d 0004 4d515458 04 02 003c 0001 63").return_code is None
    assert server.data_to_send() == b""


@pytest.mark.parametrize("level", ["03", "06"])
def test_mqtt_3_1_2_2_another_level_gets_return_code_1(level: str) -> None:
    server = MqttEngine(MqttRole.SERVER)
    assert refuses(server, f"10 0d 0004 4d515454 {level} 02 003c 0001 63").return_code == 1
    assert server.data_to_send() == bytes_of("20 02 00 01")


def test_mqtt_3_1_2_2_the_name_of_3_1_gets_return_code_1() -> None:
    server = MqttEngine(MqttRole.SERVER)
    refuses(server, "10 0f 0006 4d5149736470 03 02 003c 0001 63")
    assert server.data_to_send() == bytes_of("20 02 00 01")


def test_mqtt_3_1_2_3_the_reserved_connect_flag_is_zero() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 0d 0004 4d515454 04 03 003c 0001 63")


def test_mqtt_3_1_2_9_a_will_has_topic_and_message() -> None:
    event = says(MqttEngine(MqttRole.SERVER), "10 13 0004 4d515454 04 2e 003c 0001 63 0001 77 0001 6d")
    assert isinstance(event, Connect)
    assert event.will == WillMessage("w", b"m", qos=1, retain=True)
    refuses(MqttEngine(MqttRole.SERVER), "10 0d 0004 4d515454 04 06 003c 0001 63")


def test_mqtt_3_1_2_13_without_a_will_its_qos_is_zero() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 0d 0004 4d515454 04 0a 003c 0001 63")


def test_mqtt_3_1_2_14_will_qos_is_not_3() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 13 0004 4d515454 04 1e 003c 0001 63 0001 77 0001 6d")


def test_mqtt_3_1_2_15_without_a_will_retain_is_zero() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 0d 0004 4d515454 04 22 003c 0001 63")


def test_mqtt_3_1_2_19_a_user_name_that_is_announced_is_there() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 0d 0004 4d515454 04 82 003c 0001 63")


def test_mqtt_3_1_2_22_no_password_without_a_user_name() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 10 0004 4d515454 04 42 003c 0001 63 0001 70")


def test_mqtt_3_1_2_23_a_client_pings_within_its_keep_alive() -> None:
    client = a_client()
    assert client.deadline == 60
    client.on_deadline(60.0)
    assert client.data_to_send() == codec.encode(PingReq())


def test_mqtt_3_1_2_24_silence_of_one_and_a_half_keep_alives_closes() -> None:
    server = a_server()
    server.on_deadline(89.9)
    with pytest.raises(RemoteProtocolError):
        server.on_deadline(90.0)


def test_mqtt_3_1_3_5_long_and_unusual_client_ids_are_taken() -> None:
    connect = Connect("é" * 300, keep_alive_s=0)
    server = MqttEngine(MqttRole.SERVER)
    assert says(server, codec.encode(connect).hex()) == connect
    server.send(ConnAck())
    assert server.deadline is None


def test_mqtt_3_1_3_8_an_empty_client_id_needs_a_clean_session() -> None:
    server = MqttEngine(MqttRole.SERVER)
    assert refuses(server, "10 0c 0004 4d515454 04 00 003c 0000").return_code == 2
    assert server.data_to_send() == bytes_of("20 02 00 02")
    assert says(MqttEngine(MqttRole.SERVER), "10 0c 0004 4d515454 04 02 003c 0000") == Connect("")


def test_mqtt_3_1_4_1_a_connect_with_more_than_its_content_is_closed() -> None:
    refuses(MqttEngine(MqttRole.SERVER), "10 0e 0004 4d515454 04 02 003c 0001 63 00")


# ---- 3.2 CONNACK


def test_mqtt_3_2_0_1_the_client_takes_connack_first_only() -> None:
    client = MqttEngine(MqttRole.CLIENT)
    client.send(Connect("c"))
    refuses(client, "30 03 0001 74")


def test_mqtt_3_2_0_1_connack_comes_once() -> None:
    refuses(a_client(), "20020000")
    with pytest.raises(LocalProtocolError):
        a_server().send(ConnAck())


def test_mqtt_3_2_2_4_a_refusal_has_no_session() -> None:
    client = MqttEngine(MqttRole.CLIENT)
    client.send(Connect("c"))
    refuses(client, "20020105")


def test_mqtt_3_2_2_5_after_a_refusal_nothing_is_sent() -> None:
    client = a_client("20020005")
    assert client.state is MqttState.CLOSED
    with pytest.raises(LocalProtocolError):
        client.publish("t", b"")


# ---- 3.3 PUBLISH


def test_mqtt_3_3_1_1_the_first_attempt_has_no_dup_and_the_second_has() -> None:
    client = a_client()
    client.publish("t", b"", qos=1)
    assert client.data_to_send()[0] == 0x32
    again = MqttEngine(MqttRole.CLIENT, session=client.session)
    again.send(Connect("c", clean_start=False))
    again.data_to_send()
    says(again, "20020100")
    assert again.data_to_send()[0] == 0x3A


def test_mqtt_3_3_1_2_qos_0_has_no_dup() -> None:
    refuses(a_server(), "38 03 0001 74")


def test_mqtt_3_3_1_4_there_is_no_qos_3() -> None:
    refuses(a_server(), "36 05 0001 74 0001")


@pytest.mark.parametrize("topic", ["2b", "23"])
def test_mqtt_3_3_2_2_a_topic_name_has_no_wildcard(topic: str) -> None:
    refuses(a_server(), f"30 03 0001 {topic}")


def test_mqtt_3_3_4_1_qos_1_is_answered_with_puback_of_the_same_id() -> None:
    server = a_server()
    assert says(server, "32 05 0001 74 1234") == Publish("t", b"", 1, packet_id=0x1234)
    server.send(PubAck(0x1234))
    assert server.data_to_send() == bytes_of("40 02 1234")


def test_mqtt_3_3_5_1_overlapping_subscriptions_deliver_with_their_highest_qos() -> None:
    router = subscribed(("a/+", 0), ("a/b", 1))
    assert routed(router, "a/b") == [("c", 1)]


# ---- 3.8 to 3.11 subscriptions


def test_mqtt_3_8_1_1_subscribe_has_flags_2() -> None:
    refuses(a_server(), "80 06 0001 0001 74 00")
    assert says(a_server(), "82 06 0001 0001 74 01") == Subscribe(1, (("t", 1),))


def test_mqtt_3_8_3_1_a_filter_is_utf8() -> None:
    refuses(a_server(), "82 06 0001 0001 ff 00")


def test_mqtt_3_8_3_3_subscribe_has_a_filter() -> None:
    refuses(a_server(), "82 02 0001")


@pytest.mark.parametrize("qos", ["03", "04", "80"])
def test_mqtt_3_8_3_4_the_requested_qos_exists(qos: str) -> None:
    refuses(a_server(), f"82 06 0001 0001 74 {qos}")


def test_mqtt_3_8_4_3_a_repeated_subscription_replaces_the_first() -> None:
    router = subscribed(("t", 1), ("t", 0))
    assert routed(router, "t") == [("c", 0)]


def test_mqtt_3_8_4_5_the_client_gets_one_code_per_filter() -> None:
    client = a_client()
    client.subscribe([("a", 1), ("b", 1)])
    assert says(client, "90 04 0001 00 80") == SubAck(1, (0, 0x80))
    client.subscribe([("a", 1), ("b", 1)])
    refuses(client, "90 03 0002 00")


def test_mqtt_3_9_3_2_there_is_no_other_code_in_suback() -> None:
    client = a_client()
    client.subscribe([("a", 1)])
    refuses(client, "90 03 0001 03")


def test_mqtt_3_10_1_1_unsubscribe_has_flags_2() -> None:
    refuses(a_server(), "a0 05 0001 0001 74")
    assert says(a_server(), "a2 05 0001 0001 74") == Unsubscribe(1, ("t",))


def test_mqtt_3_10_3_2_unsubscribe_has_a_filter() -> None:
    refuses(a_server(), "a2 02 0001")


def test_mqtt_3_10_4_1_filters_are_compared_as_they_are() -> None:
    router = subscribed(("a/+", 0))
    router.remove(CLIENT, Subscription("a/b", 0))
    assert routed(router, "a/b") == [("c", 0)]
    router.remove(CLIENT, Subscription("a/+", 0))
    assert routed(router, "a/b") == []


def test_mqtt_3_10_4_4_unsuback_has_the_same_id() -> None:
    server = a_server()
    server.send(UnsubAck(0x1234))
    assert server.data_to_send() == bytes_of("b0 02 1234")
    refuses(a_client(), "b0 02 1234")


# ---- 3.12 to 3.14


def test_mqtt_3_12_4_1_pingreq_is_answered() -> None:
    server = a_server()
    assert says(server, "c000") is None
    assert server.data_to_send() == bytes_of("d000")


def test_mqtt_3_14_4_2_after_disconnect_the_client_sends_nothing() -> None:
    client = a_client()
    client.send(Disconnect())
    assert client.data_to_send() == bytes_of("e000")
    with pytest.raises(LocalProtocolError):
        client.publish("t", b"")


def test_mqtt_3_14_4_after_disconnect_the_server_hears_nothing() -> None:
    server = a_server()
    assert says(server, "e000 3003000174") == Disconnect()
    assert server.next_event() is None
    assert server.deadline is None


# ---- 4 behaviour


def test_mqtt_4_4_0_1_unacknowledged_messages_go_again_with_their_ids_in_order() -> None:
    client = a_client()
    ids = [client.publish("t", bytes([n]), qos=1) for n in range(3)]
    says(client, "40 02 0002")
    assert [packet_id for packet_id, _, _ in client.session.resend(as_duplicates=True)] == [ids[0], ids[2]]


@pytest.mark.parametrize("topic_filter", ["sport/tennis#", "sport/tennis/#/ranking", "#/a", "##", "a#/#"])
def test_mqtt_4_7_1_2_hash_stands_alone_and_last(topic_filter: str) -> None:
    assert not is_valid_filter(topic_filter)
    raw = topic_filter.encode()
    refuses(a_server(), bytes((0x82, len(raw) + 5, 0, 1, 0, len(raw), *raw, 0)).hex())


@pytest.mark.parametrize("topic_filter", ["sport+", "+a/b", "a/b+"])
def test_mqtt_4_7_1_3_plus_fills_its_level(topic_filter: str) -> None:
    assert not is_valid_filter(topic_filter)
    assert is_valid_filter("+/tennis/#")
    assert is_valid_filter("sport/+/player1")


@pytest.mark.parametrize(
    ("topic_filter", "name", "is_match"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
    ],
)
def test_mqtt_4_7_1_the_examples_of_the_specification(topic_filter: str, name: str, is_match: bool) -> None:
    assert matches(topic_filter, name) is is_match


def test_mqtt_4_7_2_1_wildcards_in_front_do_not_match_dollar_topics() -> None:
    assert not matches("#", "$SYS/a")
    assert not matches("+/monitor/Clients", "$SYS/monitor/Clients")
    assert matches("$SYS/#", "$SYS/a")
    assert matches("$SYS/monitor/+", "$SYS/monitor/Clients")


def test_mqtt_4_7_3_1_a_topic_has_at_least_one_character() -> None:
    refuses(a_server(), "30 02 0000")
    refuses(a_server(), "82 05 0001 0000 00")


@pytest.mark.parametrize("packet", ["20020000", "90 03 0001 00", "b0 02 0001", "d000"])
def test_mqtt_4_8_0_1_what_only_servers_send_closes_a_client(packet: str) -> None:
    refuses(a_server(), packet)


@pytest.mark.parametrize("packet", [CONNECT, "82 06 0001 0001 74 00", "a2 05 0001 0001 74", "c000", "e000"])
def test_mqtt_4_8_0_1_client_closes_on_what_only_clients_send(packet: str) -> None:
    refuses(a_client(), packet)
