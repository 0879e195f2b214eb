"""The vendor's clients of shadows and jobs, unmodified: reads commands and answers, one JSON object a line each.

`service` is "jobs", or else shadows are meant.
`client` is 5 or 3 for the service client V2 over that version of MQTT, and "old" for the one before it.
"""

import concurrent.futures
import json
import queue
import sys
from datetime import datetime
from typing import Any

import awsiot as untyped
from awscrt import mqtt, mqtt5, mqtt_request_response
from awsiot import (  # type: ignore[attr-defined] # it has no types
    iotjobs,
    iotshadow,
    mqtt5_client_builder,
    mqtt_connection_builder,
)

awsiot: Any = untyped  # it has no types
given = json.loads(sys.argv[1])
is_jobs = given.get("service") == "jobs"
vendor: Any = iotjobs if is_jobs else iotshadow
TIMEOUT_S = 15
events: "queue.Queue[Any]" = queue.Queue()
connected: "queue.Queue[bool]" = queue.Queue()
common: dict[str, Any] = {
    "endpoint": given["endpoint"],
    "port": 8883,
    "ca_filepath": given["ca"],
    "cert_filepath": given["certificate"],
    "pri_key_filepath": given["key"],
    "client_id": given["client_id"],
}
client: Any
old: Any = None
if given["client"] == 5:
    client = mqtt5_client_builder.mtls_from_path(
        on_lifecycle_connection_success=lambda data: connected.put(data.connack_packet.session_present), **common
    )
else:
    client = mqtt_connection_builder.mtls_from_path(clean_session=given.get("clean", True), **common)
    old = iotjobs.IotJobsClient(client) if is_jobs else iotshadow.IotShadowClient(client)
options = mqtt_request_response.ClientOptions(
    max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=TIMEOUT_S
)
service = iotjobs.IotJobsClientV2(client, options) if is_jobs else iotshadow.IotShadowClientV2(client, options)


def plain(value: Any) -> Any:
    if isinstance(value, awsiot.ModeledClass):
        named = {name: plain(getattr(value, name)) for name in value.__slots__ if not name.endswith("_nullable")}
        return {name: known for name, known in named.items() if known is not None}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.timestamp() if isinstance(value, datetime) else value


def camel(operation: str) -> str:
    return "".join(map(str.title, operation.split("_")))


def request_of(name: str, fields: dict[str, Any]) -> Any:
    known = dict(fields)
    if "state" in known:
        nullable = {f"{part}_is_nullable": value is None for part, value in known["state"].items()}
        known["state"] = iotshadow.ShadowState(**known["state"], **nullable)
    return getattr(vendor, name)(**known)


def ask(operation: str, fields: dict[str, Any]) -> Any:
    if given["client"] == "old":
        return ask_old(operation, fields)
    return plain(getattr(service, operation)(request_of(f"{camel(operation)}Request", fields)).result(TIMEOUT_S + 5))


def ask_old(operation: str, fields: dict[str, Any]) -> Any:
    """Subscribe to both answers, ask, and wait for one of them."""
    answers: queue.Queue[tuple[bool, Any]] = queue.Queue()
    named = {name: value for name, value in fields.items() if name in {"thing_name", "shadow_name", "job_id"}}
    for what in ("accepted", "rejected"):
        subscribe = getattr(old, f"subscribe_to_{operation}_{what}")
        wanted = request_of(f"{camel(operation)}SubscriptionRequest", named)
        done, _ = subscribe(
            wanted, mqtt.QoS.AT_LEAST_ONCE, lambda answer, what=what: answers.put((what == "accepted", answer))
        )
        done.result(TIMEOUT_S)
    asked = getattr(old, f"publish_{operation}")(
        request_of(f"{camel(operation)}Request", fields), mqtt.QoS.AT_LEAST_ONCE
    )
    asked.result(TIMEOUT_S)
    is_accepted, answer = answers.get(timeout=TIMEOUT_S)
    if not is_accepted:
        raise awsiot.V2ServiceException("rejected", None, answer)
    return plain(answer)


def stream(operation: str, fields: dict[str, Any]) -> None:
    """Begin to listen, and return when the subscription stands."""
    stands: concurrent.futures.Future[bool] = concurrent.futures.Future()

    def on_status(event: Any) -> None:
        if not stands.done():
            stands.set_result(event.type == mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED)

    listening = awsiot.ServiceStreamOptions(lambda event: events.put(plain(event)), on_status)
    wanted = request_of(f"{camel(operation)}SubscriptionRequest", fields)
    opened = getattr(service, f"create_{operation}_stream")(wanted, listening)
    opened.open()
    kept.append(opened)
    assert stands.result(TIMEOUT_S)


kept: list[Any] = []


def do(command: dict[str, Any]) -> Any:
    match str(command["do"]):
        case "connect":
            if given["client"] != 5:
                return client.connect().result(20)["session_present"]
            client.start()
            return connected.get(timeout=20)
        case "ask":
            return ask(command["operation"], command["fields"])
        case "stream":
            return stream(command["operation"], command["fields"])
        case "event":
            return events.get(timeout=TIMEOUT_S)
        case "publish":
            packet = mqtt5.PublishPacket(topic=command["topic"], qos=mqtt5.QoS(1), payload=command["payload"])
            return int(client.publish(packet).result(10).puback.reason_code)
        case unknown:
            raise ValueError(unknown)


for line in sys.stdin:
    try:
        answer: dict[str, Any] = {"ok": do(json.loads(line))}
    except awsiot.V2ServiceException as error:
        answer = {"refused": plain(error.modeled_error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
