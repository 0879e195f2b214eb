"""Register at DPS with an X.509 identity, connect to the assigned hub, send ten messages.

Uses nothing but azure-iot-device, and the environment names its users know:

    PROVISIONING_HOST PROVISIONING_IDSCOPE DPS_X509_REGISTRATION_ID X509_CERT_FILE X509_KEY_FILE
    PASS_PHRASE (or X509_PASS_PHRASE), if the key file is encrypted

With a key in a secure element, X509_KEY_FILE is its reference key and the program runs as
`birthmark chip exec -- python azure_device.py`.
"""

import asyncio
import json
import os

from azure.iot.device import X509, Message
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient


async def main() -> None:
    registration_id = os.environ["DPS_X509_REGISTRATION_ID"]
    x509 = X509(
        cert_file=os.environ["X509_CERT_FILE"],
        key_file=os.environ["X509_KEY_FILE"],
        pass_phrase=os.environ.get("PASS_PHRASE") or os.environ.get("X509_PASS_PHRASE"),
    )
    provisioning = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=os.environ["PROVISIONING_HOST"],
        registration_id=registration_id,
        id_scope=os.environ["PROVISIONING_IDSCOPE"],
        x509=x509,
    )
    result = await provisioning.register()
    state = result.registration_state
    print(f"{result.status}: {state.device_id} at {state.assigned_hub}")

    device = IoTHubDeviceClient.create_from_x509_certificate(x509, state.assigned_hub, state.device_id)
    await device.connect()
    for number in range(10):
        message = Message(json.dumps({"number": number, "temperature": 20 + number / 10}))
        message.content_type, message.content_encoding = "application/json", "utf-8"
        await device.send_message(message)
    print("10 messages sent")
    await device.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
