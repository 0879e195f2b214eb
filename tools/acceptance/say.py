"""Connect to AWS IoT by a key in a file and publish once to `TOPIC`. Exit 1 where that is not acknowledged.

python -m tools.acceptance.say NAME CERT KEY
"""

import os
import ssl
import sys
import threading
import time

import paho.mqtt.client as paho

_PATIENCE_S = 15


def main(name: str, cert: str, key: str) -> int:
    """Return 0 when the message was acknowledged."""
    context = ssl.create_default_context()  # the system's roots, or those of SSL_CERT_FILE
    context.load_cert_chain(cert, key)
    client, taken, over = paho.Client(name, clean_session=True), threading.Event(), threading.Event()
    client.tls_set_context(context)
    client.on_publish = lambda *_: taken.set()
    client.on_disconnect = lambda *_: over.set()
    client.connect(os.environ["AWS_IOT_ENDPOINT"], 8883)
    client.loop_start()
    client.publish(os.environ.get("TOPIC", f"acceptance/{name}"), b'{"acceptance": true}', 1)
    deadline = time.monotonic() + _PATIENCE_S
    while not taken.wait(0.1) and not over.is_set() and time.monotonic() < deadline:
        pass
    is_taken = taken.is_set()
    client.loop_stop()
    client.disconnect()
    print("acknowledged" if is_taken else "not acknowledged")
    return 0 if is_taken else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
