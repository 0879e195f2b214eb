"""Connect to AWS IoT Core with a key in a PKCS#11 token, subscribe, publish, and receive what was published.

Uses nothing but awsiotsdk. Environment:

    AWS_IOT_ENDPOINT                 as `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it
    THING_NAME CERT_FILE             client id, and the certificate in PEM
    PKCS11_LIB TOKEN_LABEL KEY_LABEL PIN_FILE
    CA_FILE                          optional: the root to trust, else SSL_CERT_FILE or the system's
    TOPIC                            optional: default devices/THING_NAME/data
"""

import json
import os
import threading
from pathlib import Path

from awscrt import io, mqtt
from awsiot import mqtt_connection_builder

MESSAGES = 10


def main() -> None:
    name = os.environ["THING_NAME"]
    topic = os.environ.get("TOPIC") or f"devices/{name}/data"
    received: list[bytes] = []
    complete, interrupted = threading.Event(), threading.Event()

    def on_message(topic: str, payload: bytes, **_: object) -> None:
        received.append(payload)
        if len(received) == MESSAGES:
            complete.set()

    def on_interrupted(connection: mqtt.Connection, error: Exception, **_: object) -> None:
        print(f"interrupted: {error}", flush=True)
        interrupted.set()

    connection = mqtt_connection_builder.mtls_with_pkcs11(
        pkcs11_lib=io.Pkcs11Lib(file=os.environ["PKCS11_LIB"]),
        user_pin=Path(os.environ["PIN_FILE"]).read_text().strip(),
        token_label=os.environ["TOKEN_LABEL"],
        private_key_label=os.environ["KEY_LABEL"],
        cert_filepath=os.environ["CERT_FILE"],
        endpoint=os.environ["AWS_IOT_ENDPOINT"],
        port=8883,
        ca_filepath=os.environ.get("CA_FILE") or os.environ.get("SSL_CERT_FILE"),
        client_id=name,
        clean_session=True,
        keep_alive_secs=30,
        on_connection_interrupted=on_interrupted,
    )
    connection.connect().result(20)
    print(f"connected as {name}", flush=True)
    connection.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, on_message)[0].result(10)
    for number in range(MESSAGES):
        connection.publish(topic, json.dumps({"number": number}), mqtt.QoS.AT_LEAST_ONCE)
        if interrupted.is_set():
            break
    if not complete.wait(10):
        raise SystemExit(f"{len(received)} of {MESSAGES} messages came back")
    print(f"{MESSAGES} messages published and received", flush=True)
    connection.disconnect().result(10)


if __name__ == "__main__":
    main()
