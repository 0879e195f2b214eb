"""What AWS refuses is refused with AWS's words, and explained to the operator."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from support.server.servers import RunningServer

SIGNERS_CLOCK = "botocore.crt.auth.get_current_datetime"  # boto3 signs with awscrt where that is installed
TWICE = (
    '{"Version": "2012-10-17", "Statement": '
    '{"Effect": "Deny", "Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}}'
)


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def why(server: RunningServer, caught: pytest.ExceptionInfo[ClientError]) -> dict[str, Any]:
    return server.why(caught.value.response["ResponseMetadata"]["RequestId"])


def test_a_wrong_secret(client: Any, server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client(aws_secret_access_key="x" * 40).list_things()
    assert code_of(caught) == ("InvalidSignatureException", 403)
    assert why(server, caught)["code"] == "sigv4.signature_mismatch"


def test_an_unknown_access_key(client: Any, server: RunningServer) -> None:
    with pytest.raises(ClientError) as caught:
        client(aws_access_key_id="AKIAXXXXXXXXXXXXXXXX").list_things()
    assert code_of(caught) == ("UnrecognizedClientException", 403)
    assert why(server, caught)["code"] == "sigv4.unknown_access_key"


def test_a_clock_that_is_wrong(client: Any, server: RunningServer) -> None:
    late = datetime.now(UTC) - timedelta(minutes=20)
    iot = client()
    with patch(SIGNERS_CLOCK, return_value=late), pytest.raises(ClientError) as caught:
        iot.list_things()
    assert code_of(caught) == ("InvalidSignatureException", 403)
    assert "Signature expired" in caught.value.response["Error"]["Message"]
    found = why(server, caught)
    assert found["code"] == "sigv4.clock_skew"
    assert "clock" in found["fix"]


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("describe_thing", {"thingName": "nope"}, ("ResourceNotFoundException", 404)),
        ("describe_certificate", {"certificateId": "0" * 64}, ("ResourceNotFoundException", 404)),
        ("get_policy", {"policyName": "nope"}, ("ResourceNotFoundException", 404)),
        ("create_policy", {"policyName": "x", "policyDocument": "{}"}, ("MalformedPolicyException", 400)),
        ("create_policy", {"policyName": "x", "policyDocument": TWICE}, ("MalformedPolicyException", 400)),
        ("register_certificate_without_ca", {"certificatePem": "x"}, ("InvalidRequestException", 400)),
        ("describe_endpoint", {"endpointType": "iot:Nope"}, ("InvalidRequestException", 400)),
        ("attach_policy", {"policyName": "x", "target": "arn:nope"}, ("InvalidRequestException", 400)),
        ("list_commands", {}, ("NotImplementedException", 501)),
    ],
)
def test_errors_of_the_service_model(iot: Any, operation: str, arguments: Any, expected: tuple[str, int]) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(iot, operation)(**arguments)
    assert code_of(caught) == expected
