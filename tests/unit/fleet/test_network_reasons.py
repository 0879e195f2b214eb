"""Why a cloud was not reached, in the system's words, whichever library asked."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.exceptions
import pytest
import requests

from birthmark.fleet.errors import network_reason


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def of_requests(url: str) -> str:
    with pytest.raises(requests.RequestException) as raised:
        requests.get(url, timeout=0.2)
    return network_reason(raised.value)


def test_a_closed_port_refuses_the_connection(closed_port: int) -> None:
    assert of_requests(f"https://127.0.0.1:{closed_port}") == "connection refused"


def test_a_signature_that_a_library_quotes_is_not_told() -> None:
    said = "Invalid header value 'SharedAccessSignature sr=dps&sig=c2VjcmV0%3D&se=1&skn=owner\\n'"
    assert network_reason(ValueError(said)) == said.replace("c2VjcmV0%3D", "****")


def test_a_silent_server_takes_too_long(silent_port: int) -> None:
    assert of_requests(f"http://127.0.0.1:{silent_port}") == "timed out"


def test_a_proxy_is_blamed(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    assert of_requests("https://hub.example") == "the proxy: connection refused"


def test_the_proxy_of_the_sdk_of_aws_is_blamed(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    key = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    with pytest.raises(botocore.exceptions.BotoCoreError) as raised:
        boto3.client("iot", endpoint_url="https://aws.example", **key).list_things()
    assert network_reason(raised.value) == "the proxy: connection refused"


def test_an_unknown_name_is_that() -> None:
    assert not re.search(r"[A-Z]\w+\(|Errno", of_requests("https://hub.invalid"))


def test_the_sdk_of_aws_is_told_likewise(closed_port: int) -> None:
    key = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    with pytest.raises(botocore.exceptions.EndpointConnectionError) as raised:
        boto3.client("iot", endpoint_url=f"https://127.0.0.1:{closed_port}", **key).list_things()
    assert network_reason(raised.value) == "connection refused"


def test_an_error_without_a_cause_says_what_it_says() -> None:
    assert network_reason(ValueError("The region is wrong.")) == "The region is wrong"


def test_a_file_of_cas_without_one_is_named_by_its_variables(
    silent_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "cas.pem").write_text("nothing\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    assert "REQUESTS_CA_BUNDLE" in of_requests(f"https://127.0.0.1:{silent_port}")
