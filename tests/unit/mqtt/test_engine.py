"""Two engines back to back, and the bursts, resumptions and deadlines of one."""

from collections.abc import Callable

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.engine import MqttEngine, MqttLimits, MqttRole, MqttState, SessionState
from birthmark.mqtt.errors import LocalProtocolError, QueueFullError, RemoteProtocolError
from birthmark.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)

DEFAULTS = MqttLimits()
CONNECT = Connect("d1", clean_start=False, keep_alive_s=60, username="u", password=b"p")


def carry(sender: MqttEngine, receiver: MqttEngine, now: float = 0.0) -> list[Packet]:
    receiver.receive_data(sender.data_to_send(), now)
    return drain(receiver)


def drain(engine: MqttEngine) -> list[Packet]:
    events: list[Packet] = []
    while (event := engine.next_event()) is not None:
        events.append(event)
    return events


def a_pair(
    *, limits: MqttLimits = DEFAULTS, session: SessionState | None = None, session_present: bool = False
) -> tuple[MqttEngine, MqttEngine]:
    client, server = MqttEngine(MqttRole.CLIENT, limits, session), MqttEngine(MqttRole.SERVER, limits)
    client.send(CONNECT)
    assert carry(client, server) == [CONNECT]
    server.send(ConnAck(session_present=session_present))
    assert carry(server, client) == [ConnAck(session_present=session_present)]
    return client, server


def test_a_connection_publishes_subscribes_and_ends() -> None:
    client, server = a_pair()
    assert client.publish("t", b"zero") is None
    packet_id = client.publish("t", b"one", qos=1) or 0
    sub_id = client.subscribe([("a/+", 1)])
    unsub_id = client.unsubscribe(["a/+"])
    client.send(Disconnect())

    assert packet_id is not None
    assert carry(client, server) == [
        Publish("t", b"zero"),
        Publish("t", b"one", 1, packet_id=packet_id),
        Subscribe(sub_id, (("a/+", 1),)),
        Unsubscribe(unsub_id, ("a/+",)),
        Disconnect(),
    ]
    assert server.state is MqttState.CLOSED


def test_answers_reach_the_client() -> None:
    client, server = a_pair()
    packet_id = client.publish("t", b"one", qos=1) or 0
    sub_id, unsub_id = client.subscribe([("a/+", 1)]), client.unsubscribe(["a/+"])
    carry(client, server)
    server.ack([packet_id])
    server.send(SubAck(sub_id, (1,)))
    server.send(UnsubAck(unsub_id))
    server.publish("a/b", b"down", qos=1)

    assert carry(server, client) == [
        PubAck(packet_id),
        SubAck(sub_id, (1,)),
        UnsubAck(unsub_id),
        Publish("a/b", b"down", 1, packet_id=1),
    ]
    assert client.session.in_flight == ()


def test_many_acknowledgements_are_one_write() -> None:
    _client, server = a_pair()
    server.ack([1, 2, 0xFFFF])
    assert server.data_to_send() == bytes.fromhex("40020001 40020002 4002ffff")


def test_a_server_holds_packets_back_until_the_verdict() -> None:
    server = MqttEngine(MqttRole.SERVER)
    client = MqttEngine(MqttRole.CLIENT)
    client.send(CONNECT)
    server.receive_data(client.data_to_send() + bytes.fromhex("30 03 0001 74"), 0.0)

    assert drain(server) == [CONNECT]
    server.send(ConnAck())
    assert drain(server) == [Publish("t", b"")]


def test_a_refused_connection_gives_nothing_more() -> None:
    server = MqttEngine(MqttRole.SERVER)
    client = MqttEngine(MqttRole.CLIENT)
    client.send(CONNECT)
    server.receive_data(client.data_to_send() + bytes.fromhex("30 03 0001 74"), 0.0)
    drain(server)
    server.send(ConnAck(code=5))

    assert server.data_to_send() == bytes.fromhex("20 02 00 05")
    assert drain(server) == []
    assert server.state is MqttState.CLOSED


def test_a_flood_before_the_verdict_is_refused() -> None:
    server = MqttEngine(MqttRole.SERVER, MqttLimits(max_packet_bytes=100))
    client = MqttEngine(MqttRole.CLIENT)
    client.send(CONNECT)
    server.receive_data(client.data_to_send(), 0.0)
    drain(server)
    with pytest.raises(RemoteProtocolError, match="too much data before"):
        server.receive_data(bytes(500), 0.0)


def test_unacknowledged_messages_go_again_with_dup_when_the_session_lives() -> None:
    client, _server = a_pair()
    packet_id = client.publish("t", b"one", qos=1) or 0
    again, server = MqttEngine(MqttRole.CLIENT, session=client.session), MqttEngine(MqttRole.SERVER)
    again.send(CONNECT)
    carry(again, server)
    server.send(ConnAck(session_present=True))
    carry(server, again)

    assert carry(again, server) == [Publish("t", b"one", 1, dup=True, packet_id=packet_id)]


def test_a_server_that_forgot_the_session_gets_them_as_new() -> None:
    client, _server = a_pair()
    packet_id = client.publish("t", b"one", qos=1) or 0
    again, server = a_pair(session=client.session)
    assert carry(again, server) == [Publish("t", b"one", 1, packet_id=packet_id)]


def test_messages_published_while_offline_are_first_deliveries() -> None:
    session = SessionState()
    offline = MqttEngine(MqttRole.CLIENT, session=session)
    packet_id = offline.publish("t", b"early", qos=1)
    client, server = a_pair(session=session, session_present=True)
    assert carry(client, server) == [Publish("t", b"early", 1, packet_id=packet_id)]


def test_a_server_resends_to_a_client_that_resumes() -> None:
    _client, server = a_pair()
    server.publish("down", b"x", qos=1)
    server.data_to_send()
    resumed, client = MqttEngine(MqttRole.SERVER, session=server.session), MqttEngine(MqttRole.CLIENT)
    client.send(CONNECT)
    carry(client, resumed)
    resumed.send(ConnAck(session_present=True))
    assert carry(resumed, client) == [ConnAck(session_present=True), Publish("down", b"x", 1, dup=True, packet_id=1)]


def test_the_window_bounds_what_is_in_flight_and_the_queue_what_waits() -> None:
    client, server = a_pair(limits=MqttLimits(max_in_flight=2, max_queued=1))
    ids = [client.publish("t", bytes([n]), qos=1) or 0 for n in range(3)]
    with pytest.raises(QueueFullError):
        client.publish("t", b"too much", qos=1)
    assert [event.payload for event in carry(client, server) if isinstance(event, Publish)] == [b"\0", b"\1"]

    server.send(PubAck(ids[0]))
    carry(server, client)
    assert [event.payload for event in carry(client, server) if isinstance(event, Publish)] == [b"\2"]


def test_the_server_answers_pings_itself_and_watches_the_keep_alive() -> None:
    client, server = a_pair()
    assert client.deadline == 60
    client.on_deadline(59.9)
    assert client.data_to_send() == b""
    client.on_deadline(60.0)
    assert carry(client, server, 60.0) == []
    assert carry(server, client, 60.1) == [PingResp()]
    assert client.deadline == 120
    assert server.deadline == 60 + 90

    server.on_deadline(149.0)
    with pytest.raises(RemoteProtocolError, match="keep alive"):
        server.on_deadline(150.0)


def test_a_client_that_pings_without_waiting_for_answers_is_given_up() -> None:
    _client, server = a_pair()
    for _ in range(3):
        server.receive_data(b"\xc0\x00" * 100, 1.0)
        assert drain(server) == []
        assert server.data_to_send() == b"\xd0\x00" * 100
    server.receive_data(b"\xc0\x00" * 101, 1.0)
    with pytest.raises(RemoteProtocolError, match="PINGREQ"):
        drain(server)


def test_a_server_that_does_not_answer_a_ping_is_given_up() -> None:
    client, _server = a_pair()
    client.on_deadline(60.0)
    assert client.deadline == 90
    with pytest.raises(RemoteProtocolError, match="PINGREQ"):
        client.on_deadline(90.0)


def test_a_connect_that_never_ends_times_out() -> None:
    server = MqttEngine(MqttRole.SERVER)
    assert server.deadline is None
    server.receive_data(b"\x10", 5.0)
    server.receive_data(b"\x20", 25.0)
    assert drain(server) == []
    with pytest.raises(RemoteProtocolError, match="CONNECT"):
        server.on_deadline(35.0)


def test_an_engine_stays_failed() -> None:
    server = MqttEngine(MqttRole.SERVER)
    server.receive_data(b"\xc0\x00", 0.0)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="not CONNECT"):
            server.next_event()
    with pytest.raises(RemoteProtocolError):
        server.receive_data(b"", 0.0)
    with pytest.raises(LocalProtocolError):
        server.send(ConnAck())
    assert server.deadline is None


def test_a_packet_in_front_of_a_broken_one_is_still_delivered() -> None:
    client, server = a_pair()
    client.publish("t", b"good")
    server.receive_data(client.data_to_send() + b"\x36\x00", 0.0)
    assert server.next_event() == Publish("t", b"good")
    with pytest.raises(RemoteProtocolError, match="QoS 3"):
        server.next_event()


def test_a_password_does_not_show_in_repr() -> None:
    assert "b'p'" not in repr(CONNECT)


@pytest.mark.parametrize("role", list(MqttRole))
def test_nothing_but_a_greeting_is_sent_before_the_connection_is_open(role: MqttRole) -> None:
    for packet in (
        Publish("t", b""),
        Disconnect(),
        ConnAck() if role is MqttRole.SERVER else Subscribe(1, (("t", 0),)),
    ):
        with pytest.raises(LocalProtocolError):
            MqttEngine(role).send(packet)


def test_a_role_sends_nothing_of_the_other() -> None:
    client, server = a_pair()
    wrong: list[tuple[MqttEngine, Packet]] = [
        (client, SubAck(1, (0,))),
        (client, ConnAck()),
        (client, PingResp()),
        (server, CONNECT),
        (server, Subscribe(1, (("t", 0),))),
        (server, Disconnect()),  # in 3.1.1 a server just closes
    ]
    for engine, packet in wrong:
        with pytest.raises(LocalProtocolError):
            engine.send(packet)


@pytest.mark.parametrize("packet", [CONNECT, Subscribe(1, (("t", 0),)), Unsubscribe(1, ("t",)), Disconnect()])
def test_what_a_server_does_not_send_ends_the_connection(packet: Packet) -> None:
    client, _server = a_pair()
    client.receive_data(codec.encode(packet), 0.0)
    with pytest.raises(RemoteProtocolError):
        drain(client)


@pytest.mark.parametrize("packet", [ConnAck(), SubAck(1, (0,)), UnsubAck(1), PingResp()])
def test_what_a_client_does_not_send_ends_the_connection(packet: Packet) -> None:
    _client, server = a_pair()
    server.receive_data(codec.encode(packet), 0.0)
    with pytest.raises(RemoteProtocolError):
        drain(server)


def test_a_second_verdict_and_an_answer_before_the_first_end_the_connection() -> None:
    client, server = a_pair()
    client.receive_data(codec.encode(ConnAck()), 0.0)
    with pytest.raises(RemoteProtocolError):
        drain(client)
    early = MqttEngine(MqttRole.CLIENT)
    early.send(CONNECT)
    early.receive_data(codec.encode(PubAck(1)), 0.0)
    with pytest.raises(RemoteProtocolError):
        drain(early)
    del server


def test_more_codes_than_filters_end_the_connection() -> None:
    client, _server = a_pair()
    asked = client.subscribe([("a", 1)])
    client.receive_data(codec.encode(SubAck(asked, (1, 1))), 0.0)
    with pytest.raises(RemoteProtocolError):
        drain(client)


def test_what_cannot_be_asked_for_leaves_no_packet_id_in_use() -> None:
    client, _server = a_pair()
    impossible: tuple[Callable[[], object], ...] = (
        lambda: client.subscribe([("a/#/b", 0)]),
        lambda: client.unsubscribe(["#/a"]),
        lambda: client.publish("a/+", b"", qos=1),
        lambda: client.publish("a", b"", qos=2),
    )
    for ask in impossible:
        with pytest.raises(LocalProtocolError):
            ask()
    assert client.session.reserve() in {1, 2, 3, 4}
    assert len(client.session._reserved) == 1


def test_after_the_end_nothing_is_taken_or_read() -> None:
    client, server = a_pair()
    client.send(Disconnect())
    carry(client, server)
    assert server.state is MqttState.CLOSED
    server.receive_data(b"\xff" * 10, 0.0)
    assert drain(server) == []
    with pytest.raises(LocalProtocolError):
        client.publish("t", b"", qos=1)
    with pytest.raises(LocalProtocolError):
        server.ack([1])


def test_nothing_to_acknowledge_is_no_write() -> None:
    _client, server = a_pair()
    server.ack([])
    assert server.data_to_send() == b""
