"""A certificate of this installation's CA that was taken back opens nothing at AWS IoT either."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from aws_device import DeviceProcess, document, statement
from birthmark.est import wire
from birthmark.pki.certificates import Certificate
from pki_builders import a_csr, a_key, key_pem
from servers import RunningServer


def a_device(server: RunningServer, directory: Path, name: str) -> tuple[Certificate, dict[str, str]]:
    """Enroll by EST; return the certificate, and what the vendor's SDK needs to connect with it."""
    key, credential = a_key(), server.est_credential(name)
    netrc, body = directory / "netrc", directory / "csr"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.address} login {credential.name} password {credential.password}\n")
    body.write_bytes(wire.render_csr(a_csr(name, key=key)))
    command = ["curl", "-sSf", "--netrc-file", str(netrc), "-H", "Content-Type: application/pkcs10"]
    command += ["--data-binary", f"@{body}", server.endpoints["est"]["url"] + "/simpleenroll"]
    done = subprocess.run(command, capture_output=True, check=True, env=dict(server.environment))
    (leaf,) = wire.parse_certs_only(done.stdout)
    files = {"certificate": str(directory / f"{name}.pem"), "key": str(directory / f"{name}.key")}
    Path(files["certificate"]).write_text(leaf.pem())
    Path(files["key"]).write_text(key_pem(key))
    common = {"endpoint": server.endpoints["aws"]["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
    return leaf, {**files, **common, "client_id": name}


def register(iot: Any, name: str, leaf: Certificate) -> None:
    made = iot.register_certificate_without_ca(certificatePem=leaf.pem(), status="ACTIVE")
    iot.create_policy(policyName=name, policyDocument=document(statement("iot:*")))
    iot.attach_policy(policyName=name, target=made["certificateArn"])


def test_a_live_connection_ends_and_no_other_begins(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    leaf, options = a_device(server, tmp_path, "taken-back")
    register(iot, "taken-back", leaf)
    with DeviceProcess({**options, "port": 8883}) as device:
        assert "ok" in device("connect")
        server.run("pki", "revoke", "--device", "taken-back")
        assert device("interrupted") == {"ok": "AWS_ERROR_MQTT_UNEXPECTED_HANGUP"}
    with DeviceProcess({**options, "port": 8883}) as device:
        assert "error" in device("connect")
    assert server.why("taken-back")["code"] == "ca.certificate_revoked"


def test_what_was_revoked_before_is_not_registered(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    leaf, _ = a_device(server, tmp_path, "revoked-before")
    server.run("pki", "revoke", leaf.thumbprint.hex())
    with pytest.raises(ClientError) as refused:
        iot.register_certificate_without_ca(certificatePem=leaf.pem(), status="ACTIVE")
    assert "revoked" in refused.value.response["Error"]["Message"]


def test_a_thing_of_another_spelling_is_another_thing(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    leaf, options = a_device(server, tmp_path, "Exactly-So")
    made = iot.register_certificate_without_ca(certificatePem=leaf.pem(), status="ACTIVE")
    own = "arn:aws:iot:us-east-1:000000000000:client/${iot:Certificate.Subject.CommonName}"
    iot.create_policy(policyName="exactly", policyDocument=document(statement("iot:Connect", own)))
    iot.attach_policy(policyName="exactly", target=made["certificateArn"])
    with DeviceProcess({**options, "port": 8883, "client_id": "exactly-so"}) as device:
        assert "error" in device("connect")
    with DeviceProcess({**options, "port": 8883}) as device:
        assert "ok" in device("connect")
