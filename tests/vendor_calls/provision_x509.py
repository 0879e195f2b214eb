"""Makes the calls of Microsoft's sample of this name, from the same environment.

Variables: PROVISIONING_HOST PROVISIONING_IDSCOPE DPS_X509_REGISTRATION_ID X509_CERT_FILE X509_KEY_FILE, and for an
encrypted key PASS_PHRASE, which the asynchronous sample calls X509_PASS_PHRASE.
"""

import asyncio
import os
import uuid

from azure.iot.device import X509, Message
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient

MESSAGES = 10


async def main() -> None:
    identity = X509(
        cert_file=os.getenv("X509_CERT_FILE"),
        key_file=os.getenv("X509_KEY_FILE"),
        pass_phrase=os.getenv("PASS_PHRASE") or os.getenv("X509_PASS_PHRASE"),
    )
    service = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=os.getenv("PROVISIONING_HOST"),
        registration_id=os.getenv("DPS_X509_REGISTRATION_ID"),
        id_scope=os.getenv("PROVISIONING_IDSCOPE"),
        x509=identity,
    )
    found = await service.register()
    assert found.status == "assigned"
    device = IoTHubDeviceClient.create_from_x509_certificate(
        x509=identity, hostname=found.registration_state.assigned_hub, device_id=found.registration_state.device_id
    )
    await device.connect()

    async def send(number: int) -> None:
        message = Message(f"message {number}")
        message.message_id = uuid.uuid4()
        await device.send_message(message)

    await asyncio.gather(*(send(number) for number in range(MESSAGES)))
    await device.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
