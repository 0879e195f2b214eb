"""A running server, its AWS account by the real boto3, and things with a key in a file."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from aws_device import Enrolled, document, statement
from servers import RunningServer, a_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("aws"), is_warm=False) as running:
        yield running


ClientFactory = Callable[..., Any]


@pytest.fixture
def client(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> ClientFactory:
    """Make boto3 clients of the server's account."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "SSL_CERT", "CURL_CA", "REQUESTS_CA")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    def make(service: str = "iot", **changed: str) -> Any:
        account = server.endpoints["aws"]
        given = {
            "endpoint_url": account["endpoint_url"],
            "region_name": account["region"],
            "aws_access_key_id": account["access_key_id"],
            "aws_secret_access_key": account["secret_access_key"],
            "verify": server.endpoints["trust_bundle"],
        }
        return boto3.client(service, **{**given, **changed})

    return make


@pytest.fixture
def iot(client: ClientFactory) -> Any:
    return client()


@pytest.fixture
def enroll(iot: Any, server: RunningServer, tmp_path: Path) -> Callable[..., Enrolled]:
    def make(name: str, *statements: dict[str, Any]) -> Enrolled:
        iot.create_thing(thingName=name)
        made = iot.create_keys_and_certificate(setAsActive=True)
        files = {"certificate": str(tmp_path / f"{name}.pem"), "key": str(tmp_path / f"{name}.key")}
        Path(files["certificate"]).write_text(made["certificatePem"])
        Path(files["key"]).write_text(made["keyPair"]["PrivateKey"])
        iot.create_policy(policyName=name, policyDocument=document(*(statements or (statement("iot:*"),))))
        iot.attach_policy(policyName=name, target=made["certificateArn"])
        iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
        common = {"endpoint": server.endpoints["aws"]["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
        return Enrolled(name, made["certificateId"], made["certificateArn"], {**files, **common, "client_id": name})

    return make
