"""A module of a gateway: it sends as often as its own twin desires, and answers a method of its own.

Uses nothing but azure-iot-device. What started it says who it is: MODULE_CONNECTION_STRING; or HUB, DEVICE and MODULE
with X509_CERT_FILE and X509_KEY_FILE.
"""

import json
import os
import signal
import threading

from azure.iot.device import X509, IoTHubModuleClient, Message, MethodRequest, MethodResponse

NAME = os.environ["MODULE"]


def client_of_this() -> IoTHubModuleClient:
    if text := os.environ.get("MODULE_CONNECTION_STRING"):
        return IoTHubModuleClient.create_from_connection_string(text)
    proof = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    return IoTHubModuleClient.create_from_x509_certificate(proof, os.environ["HUB"], os.environ["DEVICE"], NAME)


class EdgeModule:
    def __init__(self, client: IoTHubModuleClient) -> None:
        self.client = client
        self.interval_s = 5.0
        self.over = threading.Event()
        self.awake = threading.Event()

    def start(self) -> None:
        self.client.on_method_request_received = self.called
        self.client.on_twin_desired_properties_patch_received = self.desired
        self.client.connect()
        self.desired(self.client.get_twin()["desired"])

    def desired(self, patch: dict) -> None:
        wanted = patch.get("interval_s")
        if isinstance(wanted, int | float) and wanted > 0:
            self.interval_s = wanted
        self.client.patch_twin_reported_properties({"interval_s": self.interval_s})
        print(f"{NAME} sends every {self.interval_s:g} s", flush=True)
        self.awake.set()

    def called(self, request: MethodRequest) -> None:
        answer = {"module": NAME, "heard": request.payload}
        self.client.send_method_response(MethodResponse.create_from_method_request(request, 200, answer))

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            message = Message(json.dumps({"of": NAME, "number": number}))
            message.content_type, message.content_encoding = "application/json", "utf-8"
            self.client.send_message(message)
            number += 1
            self.awake.wait(self.interval_s)
            self.awake.clear()

    def end(self, *_: object) -> None:
        self.over.set()
        self.awake.set()


if __name__ == "__main__":
    module = EdgeModule(client_of_this())
    signal.signal(signal.SIGTERM, module.end)
    module.start()
    module.run()
    module.client.shutdown()
