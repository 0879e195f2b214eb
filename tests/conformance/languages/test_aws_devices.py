"""MQTT clients of other languages as devices of AWS IoT Core."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.languages.programs import Program, Signer, another_ca, in_token, messages_of, of_thing

pytestmark = pytest.mark.system
HELLO = messages_of("site/1", "hello")
RECEIVED = {"topic": "site/1", "payload": "hello"}


def test_a_device_publishes_and_receives(birthmark_cloud: Cloud, aws_client: Program) -> None:
    thing = birthmark_cloud.aws_thing()
    assert aws_client.run("exchange", of_thing(thing) | HELLO) == RECEIVED


def test_a_device_signs_with_a_key_in_a_token(birthmark_cloud: Cloud, aws_signer: Signer) -> None:
    client, kind = aws_signer
    chip = birthmark_cloud.chip(kind=kind)
    thing = birthmark_cloud.aws_thing(by=chip)
    assert client.run("exchange", of_thing(thing) | in_token(chip) | HELLO) == RECEIVED


def test_a_device_receives_what_a_service_publishes(birthmark_cloud: Cloud, aws_client: Program) -> None:
    thing = birthmark_cloud.aws_thing()
    with aws_client.start("listen", of_thing(thing) | HELLO) as device:
        device.until("subscribed")
        birthmark_cloud.boto3("iot-data").publish(topic="site/1", qos=1, payload="hello")
        assert device.until("topic") == RECEIVED


def test_a_client_that_trusts_another_ca_does_not_connect(
    birthmark_cloud: Cloud, aws_client: Program, tmp_path: Path
) -> None:
    thing = birthmark_cloud.aws_thing()
    assert aws_client.fail("publish", of_thing(thing) | another_ca(tmp_path) | HELLO)
    assert birthmark_cloud.why()["code"].startswith("tls.")


@pytest.mark.parametrize(
    "code",
    ["awsiot.certificate_unknown", "awsiot.certificate_inactive", "awsiot.policy_denied", "ca.certificate_revoked"],
)
def test_a_refused_device_does_not_connect(birthmark_cloud: Cloud, aws_client: Program, code: str) -> None:
    thing = birthmark_cloud.aws_thing()
    birthmark_cloud.refuse(code, thing)
    assert aws_client.fail("publish", of_thing(thing) | HELLO)
    assert birthmark_cloud.why(code=code)
