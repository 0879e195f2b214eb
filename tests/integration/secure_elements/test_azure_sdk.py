"""The unmodified azure-iot-device sends with a reference key, to a broker that demands a certificate of the chip."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import IPAddress

from birthmark.keys.pin import Pin
from birthmark.pki.certificate_profiles import SERVER
from birthmark.pki.issuance import self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements import exec as element_exec
from birthmark.secure_elements.softhsm_element import SoftwareElement

pytestmark = pytest.mark.integration

HOST = "127.0.0.77"  # the SDK's port is fixed, so the address is our own
APPLICATION = """
import sys
from azure.iot.device import IoTHubDeviceClient, Message, X509
host, trust, cert, key = sys.argv[1:5]
client = IoTHubDeviceClient.create_from_x509_certificate(
    x509=X509(cert_file=cert, key_file=key), hostname=host, device_id="d1",
    server_verification_cert=open(trust).read(), connection_retry=False, auto_connect=False)
client.connect()
for n in range(3):
    client.send_message(Message(str(n)))
client.disconnect()
client.shutdown()
print("sent")
"""


@pytest.fixture
def broker(se050: SoftwareElement, tmp_path: Path) -> Iterator[Path]:
    """mosquitto that takes only certificates of the chip's maker; yields what to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    san = [IPAddress(IPv4Address(HOST))]
    certificate = self_signed(SERVER, name_of("broker"), key, serial=1, now=datetime.now(UTC), san=san)
    (tmp_path / "broker.pem").write_text(certificate.pem())
    (tmp_path / "broker.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "mosquitto.conf").write_text(
        f"listener 8883 {HOST}\nrequire_certificate true\nuse_identity_as_username true\nuser root\n"
        f"certfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.key\ncafile {se050.manufacturer_certificates}\n"
        "log_type all\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", tmp_path / "mosquitto.conf"], stderr=log, stdout=log)
    try:
        for _ in range(200):
            if (
                b"mosquitto version" in (tmp_path / "log").read_bytes()
                and b"running" in (tmp_path / "log").read_bytes()
            ):
                break
            time.sleep(0.02)
        yield tmp_path / "broker.pem"
    finally:
        process.terminate()
        process.wait()


def test_the_azure_sdk_sends_with_the_key_in_the_chip(se050: SoftwareElement, broker: Path, tmp_path: Path) -> None:
    cert, key = tmp_path / "device.pem", tmp_path / "device.ref.pem"
    command = [sys.executable, "-c", APPLICATION, HOST, str(broker), str(cert), str(key)]
    environment = {**os.environ, **se050.environment}
    with se050.open() as chip:
        cert.write_text(chip.certificate().pem())
        key.write_text(chip.reference_key())
        common_name = chip.certificate().subject_cn
        pin = Pin.from_file(se050.pin_file)
        planned = element_exec.plan(command, chip, pin=pin, environment=environment)
    result = run(command, environment | dict(planned.environment))
    assert result.stdout == "sent\n", result.stderr
    log = (broker.parent / "log").read_text()
    assert f"u'{common_name}'" in log
    assert log.count("Received PUBLISH from d1") == 3

    assert "sent" not in run(command, environment).stdout


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
