"""What is not served is told by a code of its own, also to devices."""

import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from support.aws.device import Enrolled
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def attempt(server: RunningServer, client: paho.Client, files: tuple[Path, Path] | None = None) -> None:
    """Connect, and see the connection closed."""
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    if files is not None:
        context.load_cert_chain(*files)
    client.tls_set_context(context)
    client.connect(server.endpoints["aws"]["data_endpoint"], 8883)
    while client.loop(0.2) == paho.MQTT_ERR_SUCCESS:
        assert not client.is_connected()


def test_a_device_whose_ca_alone_is_on_record_is_told_so(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca = a_ca("First contact", now=now)
    device = a_device(ca, "first-contact", now=now)
    iot.register_ca_certificate(caCertificate=ca.certificate.pem(), certificateMode="SNI_ONLY", setAsActive=True)
    files = tmp_path / "first.pem", tmp_path / "first.key"
    files[0].write_text(device.certificate.pem())
    files[1].write_text(device.key_pem)
    attempt(server, paho.Client("first-contact"), files)
    told = server.why("first-contact")
    assert told["code"] == "awsiot.first_contact_off"
    assert "aws iot register-certificate" in told["fix"]


def test_a_client_of_a_custom_authorizer_is_told_so(server: RunningServer) -> None:
    client = paho.Client("by-password")
    client.username_pw_set("somebody?x-amz-customauthorizer-name=mine", "secret")
    attempt(server, client)
    assert server.why("by-password")["code"] == "awsiot.unknown_authorizer"


def test_a_device_that_asks_for_a_command_over_https_is_told_so(server: RunningServer, enroll: Any) -> None:
    thing: Enrolled = enroll("asks-for-commands")
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.load_cert_chain(thing.files["certificate"], thing.files["key"])
    url = f"https://{server.endpoints['aws']['data_endpoint']}:8443/commands"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, context=context, timeout=10)
    assert (caught.value.code, caught.value.headers["x-amzn-ErrorType"]) == (501, "NotImplementedException")
    caught.value.close()
