"""A certificate of this installation's CA that was taken back opens nothing at AWS IoT either."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from birthmark.pki.certificates import parse_pem
from birthmark.testing.cloud import Cloud
from support.aws.device import Enrolled, document, statement
from support.server.servers import RunningServer


def test_a_live_connection_ends_and_no_other_begins(server: RunningServer, cloud: Cloud) -> None:
    thing = Enrolled(cloud.aws_thing(by=cloud.est_identity("taken-back")))
    with thing.device(port=8883) as device:
        assert "ok" in device("connect")
        server.run("pki", "revoke", "--device", "taken-back")
        assert device("interrupted") == {"ok": "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"}
    with thing.device(port=8883) as device:
        assert "error" in device("connect")
    assert cloud.why("taken-back")["code"] == "ca.certificate_revoked"


def test_what_was_revoked_before_is_not_registered(server: RunningServer, cloud: Cloud, iot: Any) -> None:
    leaf = parse_pem(Path(cloud.est_identity("revoked-before").certificate_file).read_text())
    server.run("pki", "revoke", leaf.thumbprint.hex())
    with pytest.raises(ClientError) as refused:
        iot.register_certificate_without_ca(certificatePem=leaf.pem(), status="ACTIVE")
    assert "revoked" in refused.value.response["Error"]["Message"]


def test_a_thing_of_another_spelling_is_another_thing(cloud: Cloud) -> None:
    own = "arn:aws:iot:us-east-1:000000000000:client/${iot:Certificate.Subject.CommonName}"
    policy = document(statement("iot:Connect", own))
    thing = Enrolled(cloud.aws_thing(policy=policy, by=cloud.est_identity("Exactly-So")))
    with thing.device(port=8883, client_id="exactly-so") as device:
        assert "error" in device("connect")
    with thing.device(port=8883) as device:
        assert "ok" in device("connect")
