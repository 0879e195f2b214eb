"""A device of the vendor's SDK, unmodified: reads commands, one JSON object a line, and answers each with one."""

import json
import queue
import sys
from typing import Any

import awsiot.mqtt_connection_builder as builder
from awscrt import auth, io, mqtt

given = json.loads(sys.argv[1])
received: "queue.Queue[dict[str, str]]" = queue.Queue()
interrupted: "queue.Queue[str]" = queue.Queue()


def on_message(topic: str, payload: bytes, **_: Any) -> None:
    received.put({"topic": topic, "payload": payload.decode()})


def on_interrupted(connection: Any, error: Exception, **_: Any) -> None:
    interrupted.put(str(getattr(error, "name", error)))
    connection.disconnect()  # else it comes back by itself and the reason is seen twice


common: dict[str, Any] = {
    "endpoint": given["endpoint"],
    "ca_filepath": given["ca"],
    "client_id": given["client_id"],
    "clean_session": given.get("clean", True),
    "on_connection_interrupted": on_interrupted,
}
if "port" in given:
    common["port"] = given["port"]
if "will" in given:
    common["will"] = mqtt.Will(given["will"], mqtt.QoS.AT_LEAST_ONCE, b"gone", False)
if "token" in given:
    library = io.Pkcs11Lib(file=given["module"], behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT)
    connection = builder.mtls_with_pkcs11(
        pkcs11_lib=library,
        user_pin=given["pin"],
        token_label=given["token"],
        private_key_label=given["label"],
        cert_filepath=given["certificate"],
        **common,
    )
elif "authorizer" in given:
    make = (
        builder.websockets_with_custom_authorizer
        if given.get("over") == "websocket"
        else (builder.direct_with_custom_authorizer)
    )
    connection = make(**given["authorizer"], **common)
elif "secret" in given:
    provider = auth.AwsCredentialsProvider.new_static(given["id"], given["secret"], given.get("session"))
    connection = builder.websockets_with_default_aws_signing(
        region="us-east-1", credentials_provider=provider, **common
    )
else:
    connection = builder.mtls_from_path(cert_filepath=given["certificate"], pri_key_filepath=given["key"], **common)
connection.on_message(on_message)


def do(command: dict[str, Any]) -> Any:
    match str(command["do"]):
        case "connect":
            return connection.connect().result(20)
        case "disconnect":
            connection.disconnect().result(10)
        case "subscribe":
            future, _ = connection.subscribe(command["topic"], mqtt.QoS(command.get("qos", 1)))
            return int(future.result(10)["qos"])
        case "publish":
            qos = mqtt.QoS(command.get("qos", 1))
            future, _ = connection.publish(command["topic"], command["payload"], qos)
            future.result(command.get("timeout", 10))
        case "receive":
            return received.get(timeout=command.get("timeout", 10))
        case "interrupted":
            return interrupted.get(timeout=20)
        case unknown:
            raise ValueError(unknown)
    return None


for line in sys.stdin:
    try:
        answer: dict[str, Any] = {"ok": do(json.loads(line))}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        answer = {"error": getattr(error, "name", type(error).__name__)}
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
