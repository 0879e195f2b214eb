"""A device of the vendor's SDK that is provisioned by claim, unmodified: commands and answers, one JSON object a line.

`client` says which identity client: `v1` over MQTT 3.1.1, or `v2`, which waits for its answers itself, over MQTT 3.1.1
or 5 (`mqtt`).
"""

import json
import sys
from concurrent.futures import Future
from typing import Any

from awscrt import io, mqtt, mqtt5, mqtt_request_response
from awsiot import iotidentity, mqtt5_client_builder, mqtt_connection_builder  # type: ignore[attr-defined] # no types

given = json.loads(sys.argv[1])
common: dict[str, Any] = {
    "endpoint": given["endpoint"],
    "ca_filepath": given["ca"],
    "client_id": given["client_id"],
    "port": given.get("port", 8883),
}
QOS = mqtt.QoS.AT_LEAST_ONCE
connected: "Future[Any]" = Future()


def on_success(data: mqtt5.LifecycleConnectSuccessData) -> None:
    if not connected.done():
        connected.set_result(data)


def on_failure(data: mqtt5.LifecycleConnectFailureData) -> None:
    if not connected.done():
        connected.set_exception(data.exception)


def made() -> Any:
    """Return the connection, by a key in a file or in a token."""
    files: dict[str, Any] = {"cert_filepath": given["certificate"]}
    builder: Any = mqtt_connection_builder if given.get("mqtt", 3) == 3 else mqtt5_client_builder
    if given.get("mqtt", 3) == 3:
        common["clean_session"] = given.get("clean", True)
    else:
        common["on_lifecycle_connection_success"], common["on_lifecycle_connection_failure"] = on_success, on_failure
    if "token" in given:
        library = io.Pkcs11Lib(file=given["module"], behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT)
        token = {"user_pin": given["pin"], "token_label": given["token"], "private_key_label": given["label"]}
        return builder.mtls_with_pkcs11(pkcs11_lib=library, **token, **files, **common)
    return builder.mtls_from_path(pri_key_filepath=given["key"], **files, **common)


connection = made()


def connect() -> str:
    if given.get("mqtt", 3) == 3:
        connection.connect().result(20)
    else:
        connection.start()
        connected.result(20)
    return "connected"


def error_of(problem: Any) -> dict[str, Any]:
    return {"status": problem.status_code, "code": problem.error_code, "message": problem.error_message}


def fields(answer: Any) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__slots__}


class First:
    """The first identity client: whoever asks subscribes to both answers before."""

    def __init__(self) -> None:
        self.client = iotidentity.IotIdentityClient(connection)

    def ask(self, name: str, topic: dict[str, Any], request: Any) -> Any:
        answer: Future[Any] = Future()
        kind = {"create_keys_and_certificate": "CreateKeysAndCertificate"}.get(
            name, "CreateCertificateFromCsr" if "csr" in name else "RegisterThing"
        )
        asked = getattr(iotidentity, f"{kind}SubscriptionRequest")(**topic)
        for end, take in (("accepted", answer.set_result), ("rejected", answer.set_result)):
            subscribe = getattr(self.client, f"subscribe_to_{name}_{end}")
            subscribe(asked, QOS, take)[0].result(20)
        getattr(self.client, f"publish_{name}")(request, QOS).result(20)
        found = answer.result(20)
        if isinstance(found, iotidentity.ErrorResponse):
            return {"rejected": error_of(found)}
        return {"accepted": fields(found)}


class Second:
    """The second one does that itself."""

    def __init__(self) -> None:
        options = mqtt_request_response.ClientOptions(
            max_request_response_subscriptions=8, max_streaming_subscriptions=2, operation_timeout_in_seconds=20
        )
        self.client = iotidentity.IotIdentityClientV2(connection, options)

    def ask(self, name: str, topic: dict[str, Any], request: Any) -> Any:
        del topic
        try:
            return {"accepted": fields(getattr(self.client, name)(request).result(20))}
        except Exception as error:  # noqa: BLE001 - what it raises is told
            modeled = getattr(error, "payload", None) or getattr(error, "modeled_error", None)
            return {"rejected": error_of(modeled) if modeled is not None else {"message": repr(error)}}


identity: Any = None


def do(command: dict[str, Any]) -> Any:
    global identity  # noqa: PLW0603 - one for the process
    if command["do"] == "connect":
        return connect()
    if identity is None:
        identity = Second() if given.get("client") == "v2" else First()
    match command["do"]:
        case "keys":
            request = iotidentity.CreateKeysAndCertificateRequest()
            return identity.ask("create_keys_and_certificate", {}, request)
        case "csr":
            request = iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=command["csr"])
            return identity.ask("create_certificate_from_csr", {}, request)
        case "register":
            names = {"template_name": command["template"]}
            request = iotidentity.RegisterThingRequest(
                certificate_ownership_token=command["token"], parameters=command["parameters"], **names
            )
            return identity.ask("register_thing", names, request)
        case "disconnect":
            return connection.disconnect().result(20) if given.get("mqtt", 3) == 3 else connection.stop()
        case other:
            raise ValueError(other)


for line in sys.stdin:
    try:
        result = {"ok": do(json.loads(line))}
    except Exception as error:  # noqa: BLE001 - every one is told
        result = {"error": getattr(error, "name", None) or repr(error)}
    print(json.dumps(result, default=str), flush=True)  # noqa: T201 - the answer
