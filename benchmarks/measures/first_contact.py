"""P37, P38: a device that AWS has never seen, by a CA on record and by a claim; what is made is on disk."""

import base64
import json
import sqlite3
import ssl
from collections.abc import Mapping
from itertools import count
from typing import Any

import boto3
from rig import Device, Rig, connected, cpu_us_each, each

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, Publish, SubAck
from measures.measure import Measure, Sample
from measures.registration import cost, expect, put_group
from support.pki.pki_builders import a_csr

OPERATIONS = 200
_ROLE = "arn:aws:iam::000000000000:role/bench"
_ID, _NAME = "AWS::IoT::Certificate::Id", "AWS::IoT::Certificate::CommonName"
_POLICY = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}})


def _template(name: str) -> str:
    """Return what makes a thing that a parameter names, with a policy that all share."""
    resources = {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": name}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": _ID}}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "first-contact"}},
    }
    return json.dumps({"Parameters": {key: {"Type": "String"} for key in (name, _ID)}, "Resources": resources})


def _prepared(rig: Rig) -> Device:
    """Put the devices' CA on record, a template, and a claim certificate, which is returned."""
    aws = rig.server.endpoints["aws"]
    client: Any = boto3.client(
        "iot",
        endpoint_url=aws["endpoint_url"],
        region_name=aws["region"],
        aws_access_key_id=aws["access_key_id"],
        aws_secret_access_key=aws["secret_access_key"],
        verify=rig.server.endpoints["trust_bundle"],
    )
    claim = rig.devices(1, "claim")[0]
    pem = (rig.directory / "device.pem").read_text().partition("-----BEGIN PRIVATE")[0]
    arn = client.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")["certificateArn"]
    client.create_policy(policyName="first-contact", policyDocument=_POLICY)
    client.attach_policy(policyName="first-contact", target=arn)
    client.register_ca_certificate(
        caCertificate=rig.ca.certificate.pem(),
        certificateMode="SNI_ONLY",
        setAsActive=True,
        allowAutoRegistration=True,
        registrationConfig={"templateBody": _template(_NAME)},
    )
    client.create_provisioning_template(
        templateName="bench", templateBody=_template("Serial"), enabled=True, provisioningRoleArn=_ROLE
    )
    rig.server.run("aws", "certificate", "claim", arn.rpartition("/")[2])
    return claim


class _FirstContact(Measure):
    """Beside a registration at our own provisioning service, which is one commit, too."""

    unit, peer = "us", "DPS registration"

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        rig.once("group", lambda rig: put_group(rig, rig.server))
        self._claim = rig.once("first contact", _prepared)
        self._runs = count()

    def round(self) -> Sample:
        run, before = next(self._runs), self._things()
        ours = self._cost(f"{self.name}-{run}")
        assert self._things() - before == OPERATIONS, "not every device is a thing"
        return Sample(ours, cost(self._rig.server, self._rig.devices(OPERATIONS, f"beside-{self.name}-{run}")))

    def _cost(self, tag: str) -> float:
        raise NotImplementedError

    def _things(self) -> int:
        with sqlite3.connect(f"file:{self._rig.server.data}/birthmark.db?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM aws_things").fetchone()[0])


class JustInTime(_FirstContact):
    """The first connection of a device, which is closed when the device is registered."""

    name, title = "P37", "JITP: thing, certificate and policy at the first connection"
    gate, aim = 1.5, 1.2

    def _cost(self, tag: str) -> float:
        fresh = self._rig.devices(OPERATIONS, tag)
        return cpu_us_each(self._rig.server.pid, lambda: each(self._come, fresh))

    def _come(self, device: Device) -> None:
        with connected(self._rig.server.address, 8883, device.context) as sock:
            engine = MqttEngine(MqttRole.CLIENT)
            engine.send(Connect(device.name, clean_start=True))
            sock.sendall(engine.data_to_send())
            assert not sock.recv(16), "the first connection is closed"


class ByClaim(_FirstContact):
    """Connect by the claim, have a request signed, become a thing, go."""

    name, title = "P38", "claim: a request signed, and a thing"
    gate, aim = 2.0, 1.7

    def _cost(self, tag: str) -> float:
        fresh = [
            (f"{tag}-{number}", base64.b64encode(a_csr(f"{tag}-{number}")).decode()) for number in range(OPERATIONS)
        ]
        return cpu_us_each(self._rig.server.pid, lambda: each(self._come, fresh))

    def _come(self, device: tuple[str, str]) -> None:
        name, csr = device
        engine = MqttEngine(MqttRole.CLIENT)
        with connected(self._rig.server.address, 8883, self._claim.context) as sock:
            engine.send(Connect(name, clean_start=True))
            expect(sock, engine, ConnAck)
            given = _asked(sock, engine, "$aws/certificates/create-from-csr/json", {"certificateSigningRequest": csr})
            asked = {"certificateOwnershipToken": given["certificateOwnershipToken"], "parameters": {"Serial": name}}
            assert _asked(sock, engine, "$aws/provisioning-templates/bench/provision/json", asked)["thingName"] == name
            engine.send(Disconnect())
            sock.sendall(engine.data_to_send())


def _asked(sock: ssl.SSLSocket, engine: MqttEngine, topic: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Subscribe to both answers, ask, and return what was accepted."""
    engine.subscribe([(f"{topic}/accepted", 1), (f"{topic}/rejected", 1)])
    expect(sock, engine, SubAck)
    engine.publish(topic, json.dumps(asked).encode(), 1)
    answer = expect(sock, engine, Publish)
    assert isinstance(answer, Publish), answer
    assert answer.topic.endswith("/accepted"), answer.payload
    told: dict[str, Any] = json.loads(answer.payload)
    return told
