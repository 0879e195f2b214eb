"""A gateway with a twin: telemetry as often as is desired of it, a restart on demand, messages that waited for it.

Uses nothing but azure-iot-device, and the environment of azure_device.py. It registers, connects, and until it is ended

* sends a temperature every `interval_s` seconds, as its twin desires, and reports the interval it keeps to;
* answers the direct method `restart`, and begins anew;
* prints each message that comes for it.
"""

import json
import os
import sys
import threading

from azure.iot.device import (
    X509,
    IoTHubDeviceClient,
    Message,
    MethodRequest,
    MethodResponse,
    ProvisioningDeviceClient,
)


class Gateway:
    def __init__(self, client: IoTHubDeviceClient) -> None:
        self.client = client
        self.interval_s = 5.0
        self.restarts = False
        self.awake = threading.Event()

    def start(self) -> None:
        # Before anything is sent: what waits comes with the connection, and is lost where nobody listens yet.
        self.client.on_message_received = self.received
        self.client.on_method_request_received = self.called
        self.client.on_twin_desired_properties_patch_received = self.desired
        self.client.connect()
        twin = self.client.get_twin()
        boots = twin["reported"].get("boots", 0) + 1
        self.client.patch_twin_reported_properties({"boots": boots})
        print(f"connected, start number {boots}", flush=True)
        self.desired(twin["desired"])
        print("ready", flush=True)

    def desired(self, patch: dict) -> None:
        wanted = patch.get("interval_s")
        if isinstance(wanted, int | float) and wanted > 0:
            self.interval_s = wanted
        self.client.patch_twin_reported_properties({"interval_s": self.interval_s})
        print(f"sending every {self.interval_s} s", flush=True)
        self.awake.set()

    def called(self, request: MethodRequest) -> None:
        self.restarts = request.name == "restart"
        status, said = (200, "restarting") if self.restarts else (404, f"no method {request.name}")
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, said))
        self.awake.set()

    def received(self, message: Message) -> None:
        print(f"message: {message.data.decode()}", flush=True)

    def run(self) -> None:
        number = 0
        while not self.restarts:
            message = Message(json.dumps({"number": number, "temperature": 20 + number / 10}))
            message.content_type, message.content_encoding = "application/json", "utf-8"
            self.client.send_message(message)
            number += 1
            self.awake.wait(self.interval_s)
            self.awake.clear()


def main() -> None:
    x509 = X509(cert_file=os.environ["X509_CERT_FILE"], key_file=os.environ["X509_KEY_FILE"])
    provisioning = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=os.environ["PROVISIONING_HOST"],
        registration_id=os.environ["DPS_X509_REGISTRATION_ID"],
        id_scope=os.environ["PROVISIONING_IDSCOPE"],
        x509=x509,
    )
    state = provisioning.register().registration_state
    gateway = Gateway(IoTHubDeviceClient.create_from_x509_certificate(x509, state.assigned_hub, state.device_id))
    gateway.start()
    gateway.run()
    gateway.client.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - it begins anew


if __name__ == "__main__":
    main()
