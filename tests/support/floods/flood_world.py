"""A server with two devices at each cloud: one that floods, and one that has business there."""

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from birthmark.auth.connection_strings import parse_connection_string
from support.aws.device import document, statement
from support.azure.sas_tokens import make_sas
from support.floods.floods import KINDS, Visit
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer, a_server

_ROLE = "arn:aws:iam::000000000000:role/rules"
_OPEN = "arn:aws:iot:us-east-1:000000000000:"


@dataclass
class FloodWorld:
    server: RunningServer
    visits: dict[str, Visit]

    def flooder(self, kind: str, *, over_websocket: bool = False) -> Visit:
        cloud, level = KINDS[kind]
        known = self.visits[{"http": "aws flooder", "amqp": "hub flooder"}.get(cloud, f"{cloud} flooder")]
        return replace(known, cloud=cloud, level=level or 4, over_websocket=over_websocket)

    @property
    def witness(self) -> Visit:
        return self.visits["aws witness"]


@contextlib.contextmanager
def a_world(directory: Path, config: str = "") -> Iterator[FloodWorld]:
    with a_server(directory, config, is_warm=False) as server:
        made = FloodWorld(server, _enrolled(directory, server))
        _make_rules(server)
        yield made


def _enrolled(directory: Path, server: RunningServer) -> dict[str, Visit]:
    now = datetime.now(UTC)
    ca = a_ca("flood CA", now=now)
    visits = {}
    for cloud in ("aws", "hub"):
        for role in ("flooder", "witness"):
            name = f"{cloud}-{role}"
            holder = a_device(ca, name, now=now)
            certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
            certificate.write_text(holder.certificate.pem())
            key.write_text(holder.key_pem)
            host = server.endpoints["iothub"]["host"]
            token = _token(server) if cloud == "hub" else ""
            visits[f"{cloud} {role}"] = Visit(
                server.address, cloud, name, str(certificate), str(key), host, token=token
            )
            enroll = _at_aws if cloud == "aws" else _at_hub
            enroll(server, name, holder.certificate.pem(), holder.certificate.thumbprint.hex())
    return visits


def _make_rules(server: RunningServer) -> None:
    """Make the rule that costly messages are for."""
    sql = "SELECT regexp_replace(text, '[^ -~]', '') AS made FROM 'open/costly'"
    payload = {"sql": sql, "actions": [{"republish": {"roleArn": _ROLE, "topic": "open/made"}}]}
    server.cloud.boto3().create_topic_rule(ruleName="costly", topicRulePayload=payload)


def _at_aws(server: RunningServer, name: str, pem: str, _thumbprint: str) -> None:
    iot = server.cloud.boto3()
    allowed = document(
        statement("iot:Connect", f"{_OPEN}client/{name}*"),
        statement("iot:Receive", f"{_OPEN}topic/open/*"),
        statement("iot:Publish", f"{_OPEN}topic/open/*"),
        statement("iot:Publish", f"{_OPEN}topic/$aws/things/{name}/*"),
        statement("iot:Subscribe", f"{_OPEN}topicfilter/open/*"),
    )
    iot.create_thing(thingName=name)
    arn = iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")["certificateArn"]
    iot.create_policy(policyName=name, policyDocument=allowed)
    iot.attach_policy(policyName=name, target=arn)
    iot.attach_thing_principal(thingName=name, principal=arn)


def _token(server: RunningServer) -> str:
    parts = parse_connection_string(server.endpoints["iothub"]["service_connection_string"])
    return make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)


def _at_hub(server: RunningServer, name: str, _pem: str, thumbprint: str) -> None:
    hub = server.endpoints["iothub"]
    token, host = _token(server), hub["host"]
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.check_hostname = False
    connection = http.client.HTTPSConnection(server.address, hub["https_port"], context=context)
    prints = {"primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint}
    body = {"deviceId": name, "authentication": {"type": "selfSigned", "x509Thumbprint": prints}}
    headers = {"Authorization": token, "Content-Type": "application/json", "Host": host}
    connection.request("PUT", f"/devices/{name}?api-version=2021-04-12", json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    connection.close()
