"""Signatures of AWS's own signer hold here, and nothing else does."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from birthmark.auth import sigv4
from birthmark.errors import BirthmarkError
from support.fakes import NOON

KEY, SECRET = "AKIDEXAMPLE123456789", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SERVICES = {"iot", "iotdata", "iotdevicegateway"}


def signed(
    method: str = "GET",
    url: str = "https://localhost:8443/things",
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    service: str = "iot",
    token: str | None = None,
    presigned: bool = False,
) -> sigv4.SignedRequest:
    request = AWSRequest(method, url, headers=headers or {}, data=body)
    signer = (SigV4QueryAuth if presigned else SigV4Auth)(Credentials(KEY, SECRET, token), service, "eu-west-1")
    with patch("botocore.auth.get_current_datetime", return_value=NOON):
        signer.add_auth(request)
    parts = urlsplit(request.url)
    sent = {"host": parts.netloc, "user-agent": "x", **{name.lower(): value for name, value in request.headers.items()}}
    return sigv4.SignedRequest(method, parts.path, parts.query, tuple(sent.items()), body)


def check(request: sigv4.SignedRequest, secret: str = SECRET, now: datetime = NOON) -> sigv4.Signature:
    signature = sigv4.parse_signature(request)
    sigv4.check_signature(request, signature, secret, now, services=SERVICES)
    return signature


ARN = "arn%3Aaws%3Aiot%3Aus-east-1%3A000000000000%3Acert%2Fab12"


@pytest.mark.parametrize(
    "request_",
    [
        signed(),
        signed("POST", f"https://localhost/attached-policies/{ARN}?recursive=true&pageSize=5", body=b"{}"),
        signed("POST", "https://[::1]:8443/topics/a%2Fb%20c%2B?qos=1", body=b"\x00\xff", service="iotdata"),
        signed("PUT", "https://h/things/t/principals", headers={"x-amzn-principal": "arn:aws:iot:r:1:cert/a  b"}),
        signed("GET", "https://h/endpoint?endpointType=iot%3AData-ATS"),
        signed("GET", "https://h/things", token="session-token"),
        signed("GET", "https://h//a/./b/../c/"),
        signed("GET", "https://h/mqtt", presigned=True, service="iotdevicegateway"),
        signed("GET", "https://h/mqtt?b=2&a=1", presigned=True, token="t", service="iotdevicegateway"),
    ],
)
def test_what_botocore_signs_holds(request_: sigv4.SignedRequest) -> None:
    assert check(request_).access_key_id == KEY


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\t"), max_size=40).map(
        lambda text: "".join(f"%{b:02X}" for b in text.encode())
    ),
    st.binary(max_size=200),
    st.lists(st.tuples(st.text("ab-~%2F", min_size=1, max_size=3), st.text("xyz.%20", max_size=4)), max_size=4).map(
        lambda pairs: [(k.replace("%", ""), v.replace("%", "")) for k, v in pairs if k.replace("%", "")]
    ),
)
def test_botocore_and_we_agree_on_any_path_query_and_body(path: str, body: bytes, query: list[tuple[str, str]]) -> None:
    url = f"https://h/topics/{path}" + ("?" + "&".join(f"{k}={v}" for k, v in query) if query else "")
    check(signed("POST", url, body=body))


def test_a_websocket_client_leaves_its_token_out_of_what_it_signs() -> None:
    request = signed("GET", "https://h/mqtt", presigned=True, service="iotdevicegateway")
    with_token = replace(request, query=request.query + "&X-Amz-Security-Token=abc")
    assert check(with_token).is_presigned


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "DELETE"},
        {"path": "/policies"},
        {"query": "a=1"},
        {"body": b"x"},
        {"headers": (("host", "elsewhere"),)},
    ],
)
def test_a_changed_request_does_not_hold(changed: dict[str, Any]) -> None:
    request = signed()
    if "headers" in changed:
        kept = tuple(pair for pair in request.headers if pair[0] != "host")
        changed = {"headers": kept + changed["headers"]}
    with pytest.raises(sigv4.SignatureMismatchError):
        check(replace(request, **changed))


def test_another_secret_does_not_hold() -> None:
    with pytest.raises(sigv4.SignatureMismatchError) as caught:
        check(signed(), secret="other")
    assert caught.value.code == "sigv4.signature_mismatch"


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_clock_that_is_off_by_more_than_five_minutes_is_named(minutes: int) -> None:
    with pytest.raises(sigv4.ClockSkewError) as caught:
        check(signed(), now=NOON + timedelta(minutes=minutes))
    assert caught.value.code == "sigv4.clock_skew"
    check(signed(), now=NOON + timedelta(minutes=minutes - minutes // abs(minutes)))


def test_a_presigned_request_holds_as_long_as_it_says() -> None:
    request = signed("GET", "https://h/mqtt", presigned=True)
    check(request, now=NOON + timedelta(minutes=59))
    with pytest.raises(sigv4.ClockSkewError):
        check(request, now=NOON + timedelta(minutes=61))


def test_another_service_is_refused() -> None:
    with pytest.raises(sigv4.WrongServiceError):
        check(signed(service="s3"))


def test_no_signature_is_missing() -> None:
    with pytest.raises(sigv4.SignatureMissingError):
        sigv4.parse_signature(sigv4.SignedRequest("GET", "/things", "", ()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SignedHeaders=host;x-amz-date", "SignedHeaders=x-amz-date"),
        ("SignedHeaders=host;x-amz-date", "SignedHeaders=host"),
        ("/aws4_request", "/aws4"),
        ("Signature=", "Signature=Z"),
        ("20260601/", "20260602/"),
        ("Credential=", "Cred="),
    ],
)
def test_an_incomplete_signature_is_named(old: str, new: str) -> None:
    request = signed()
    headers = tuple((n, v.replace(old, new) if n == "authorization" else v) for n, v in request.headers)
    with pytest.raises(sigv4.SignatureMalformedError):
        check(replace(request, headers=headers))


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=40))
def test_any_text_is_refused_in_our_own_words(authorization: str, query: str, date: str) -> None:
    headers = (("authorization", "AWS4-HMAC-SHA256" + authorization), ("x-amz-date", date), ("host", "h"))
    for request in (
        sigv4.SignedRequest("GET", "/", "", headers),
        sigv4.SignedRequest("GET", "/", f"X-Amz-Algorithm=AWS4-HMAC-SHA256&{query}", ()),
    ):
        with pytest.raises(BirthmarkError):
            check(request)
