"""A message encoded once for many is the message that the codec writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt import codec
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import LEVEL_3_1_1, LEVEL_5, ConnAck, Connect, Publish
from birthmark.mqtt.properties import Properties, PropertyId, get_property, replace_property
from support.mqtt.mqtt_strategies import publishes


def a_receiver(level: int, properties: Properties = ()) -> MqttEngine:
    server = MqttEngine(MqttRole.SERVER)
    server.receive_data(codec.encode(Connect("c", level=level, properties=properties)), 0.0)
    server.next_event()
    server.send(ConnAck())
    server.data_to_send()
    return server


@given(publishes(LEVEL_5), st.integers(0, 1))
def test_it_is_what_the_codec_writes(message: Publish, qos: int) -> None:
    properties = replace_property(message.properties, PropertyId.TOPIC_ALIAS, None)
    parcel = EncodedMessage(message.topic, message.payload, properties, retain=message.retain)
    packet_id, number = (77, b"\0M") if qos else (None, b"")
    before, block, size = parcel.form(qos)
    packet = Publish(message.topic, message.payload, qos, message.retain, packet_id=packet_id, properties=properties)
    assert before + number + block + message.payload == codec.encode(packet, LEVEL_5)
    assert size == len(codec.encode(packet, LEVEL_5))
    assert parcel.head(qos) + number + message.payload == codec.encode(packet, LEVEL_3_1_1)


def test_every_receiver_gets_it_with_a_packet_id_of_its_own() -> None:
    parcel = EncodedMessage("topic", b"hello", ((PropertyId.CONTENT_TYPE, "a"),))
    receivers = [
        a_receiver(LEVEL_3_1_1),
        a_receiver(LEVEL_5),
        a_receiver(LEVEL_5, ((PropertyId.TOPIC_ALIAS_MAXIMUM, 1),)),
    ]
    got: list[list[Publish]] = []
    for receiver in receivers:
        client = MqttEngine(MqttRole.CLIENT)
        client.send(Connect("c", level=receiver.level, properties=((PropertyId.TOPIC_ALIAS_MAXIMUM, 1),)))
        client.receive_data(codec.encode(ConnAck(), receiver.level), 0.0)
        client.next_event()
        assert [receiver.deliver(parcel, 1) for _ in range(3)] == [1, 2, 3]
        client.receive_data(receiver.data_to_send(), 0.0)
        got.append([packet for _ in range(3) if isinstance(packet := client.next_event(), Publish)])
    for level, messages in zip((LEVEL_3_1_1, LEVEL_5, LEVEL_5), got, strict=True):
        properties = parcel.properties if level == LEVEL_5 else ()
        assert messages == [Publish("topic", b"hello", 1, packet_id=n, properties=properties) for n in (1, 2, 3)]


@pytest.mark.parametrize("topic", ["", "a/#", "+", "a\0b", "\ud800", "t" * 65_536])
def test_what_is_no_topic_is_not_sent(topic: str) -> None:
    for level in (LEVEL_3_1_1, LEVEL_5):
        receiver = a_receiver(level)
        for qos in (0, 1):
            with pytest.raises(LocalProtocolError):
                receiver.deliver(EncodedMessage(topic, b""), qos)
        assert (receiver.data_to_send(), receiver.session.in_flight, receiver.session._reserved) == (b"", (), {})


def test_aliases_and_impossible_properties_are_not_for_callers() -> None:
    for properties in (((PropertyId.TOPIC_ALIAS, 1),), ((PropertyId.SESSION_EXPIRY, 1),)):
        receiver = a_receiver(LEVEL_5)
        with pytest.raises(LocalProtocolError):
            receiver.publish("topic", b"", 1, properties=properties)
        assert receiver.session.in_flight == ()
        offline = MqttEngine(MqttRole.CLIENT)
        with pytest.raises(LocalProtocolError):
            offline.publish("topic", b"", 1, properties=properties)
        assert offline.session.waiting == ()


def test_a_property_is_replaced_or_taken_out() -> None:
    properties: Properties = ((PropertyId.MESSAGE_EXPIRY, 9), (PropertyId.CONTENT_TYPE, "a"))
    changed = replace_property(properties, PropertyId.MESSAGE_EXPIRY, 5)
    assert changed == ((PropertyId.CONTENT_TYPE, "a"), (PropertyId.MESSAGE_EXPIRY, 5))
    assert replace_property(changed, PropertyId.CONTENT_TYPE, None) == ((PropertyId.MESSAGE_EXPIRY, 5),)
    assert get_property(changed, PropertyId.CONTENT_TYPE) == "a"
    assert get_property(changed, PropertyId.TOPIC_ALIAS) is None
