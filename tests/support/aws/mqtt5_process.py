"""A device of the vendor's SDK over MQTT 5, unmodified: reads commands and answers, one JSON object a line each."""

import json
import queue
import sys
from typing import Any

import awsiot.mqtt5_client_builder as builder
from awscrt import mqtt5

given = json.loads(sys.argv[1])
events: "dict[str, queue.Queue[Any]]" = {
    name: queue.Queue() for name in ("connected", "refused", "ended", "stopped", "received")
}


def on_received(data: mqtt5.PublishReceivedData) -> None:
    packet = data.publish_packet
    events["received"].put({"topic": packet.topic, "payload": (packet.payload or b"").decode()})


def on_connected(data: mqtt5.LifecycleConnectSuccessData) -> None:
    settings = data.negotiated_settings
    events["connected"].put(
        {
            "session_present": data.connack_packet.session_present,
            "receive_maximum": settings.receive_maximum_from_server,
            "maximum_packet_size": settings.maximum_packet_size_to_server,
            "maximum_qos": int(settings.maximum_qos),
            "topic_alias_maximum": settings.topic_alias_maximum_to_server,
            "keep_alive": settings.server_keep_alive_sec,
            "has_subscription_ids": settings.subscription_identifiers_available,
            "client_id": settings.client_id,
            "assigned": data.connack_packet.assigned_client_identifier,
        }
    )


def on_failure(data: mqtt5.LifecycleConnectFailureData) -> None:
    code = data.connack_packet.reason_code if data.connack_packet is not None else None
    events["refused"].put(None if code is None else int(code))
    client.stop()


def on_disconnection(data: mqtt5.LifecycleDisconnectData) -> None:
    packet = data.disconnect_packet
    events["ended"].put(None if packet is None else int(packet.reason_code))
    client.stop()  # else it comes back by itself


aliasing = mqtt5.TopicAliasingOptions(
    outbound_behavior=mqtt5.OutboundTopicAliasBehaviorType.LRU,
    outbound_cache_max_size=8,
    inbound_behavior=mqtt5.InboundTopicAliasBehaviorType.ENABLED,
    inbound_cache_max_size=8,
)
ways: dict[str, Any] = {
    "direct": builder.direct_with_custom_authorizer,
    "websocket": builder.websockets_with_custom_authorizer,
}
make, login = builder.mtls_from_path, {"cert_filepath": given.get("certificate"), "pri_key_filepath": given.get("key")}
if "authorizer" in given:
    make, login = ways[given["over"]], given["authorizer"]
if "port" in given or "authorizer" not in given:
    login = {**login, "port": given.get("port", 8883)}
client = make(
    **login,
    endpoint=given["endpoint"],
    ca_filepath=given["ca"],
    client_id=given["client_id"],
    topic_aliasing_options=aliasing,
    on_publish_received=on_received,
    on_lifecycle_connection_success=on_connected,
    on_lifecycle_connection_failure=on_failure,
    on_lifecycle_disconnection=on_disconnection,
    on_lifecycle_stopped=lambda data: events["stopped"].put(True),
)


def do(command: dict[str, Any]) -> Any:
    match str(command["do"]):
        case "start":
            client.start()
        case "stop":
            client.stop()
            return events["stopped"].get(timeout=10)
        case "subscribe":
            wanted = [mqtt5.Subscription(name, mqtt5.QoS.AT_LEAST_ONCE) for name in command["topics"]]
            suback = client.subscribe(mqtt5.SubscribePacket(wanted)).result(10)
            return [int(code) for code in suback.reason_codes]
        case "unsubscribe":
            unsuback = client.unsubscribe(mqtt5.UnsubscribePacket(command["topics"])).result(10)
            return [int(code) for code in unsuback.reason_codes]
        case "publish":
            packet = mqtt5.PublishPacket(
                topic=command["topic"],
                qos=mqtt5.QoS(command.get("qos", 1)),
                payload=command["payload"],
                content_type="text/plain",
                user_properties=[mqtt5.UserProperty("a", "b")],
            )
            puback = client.publish(packet).result(10).puback
            return None if puback is None else int(puback.reason_code)
        case name:
            return events[name].get(timeout=command.get("timeout", 20))
    return None


for line in sys.stdin:
    try:
        answer: dict[str, Any] = {"ok": do(json.loads(line))}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        answer = {"error": getattr(error, "name", type(error).__name__)}
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
