"""Custom authorizers: what a client presents, which tokens hold, and which answers count."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.model import Authorizer
from birthmark.awsiot.rules.custom_authorizers import (
    MAX_PARTS,
    NAME,
    SIGNATURE,
    AuthorizerAnswerError,
    AuthorizerRequest,
    SigningKeyInvalidError,
    TokenRefusedError,
    check_token,
    event_of,
    signing_key_of,
    verdict_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=10,
)


def numbers(e: int, bits: int) -> str:
    key = rsa.RSAPublicNumbers(e, 2 ** (bits - 1) + 1).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def pem_of(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def signed(token: str, key: rsa.RSAPrivateKey = KEYS[0]) -> str:
    return base64.b64encode(key.sign(token.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


DOOR = Authorizer(
    "door",
    "arn",
    "token",
    {"one": pem_of(KEYS[0])},
    is_active=True,
    signing_disabled=False,
    caches_http=False,
    created_at=NOW,
    modified_at=NOW,
)


def presented(username: str | None = None, **more: Any) -> AuthorizerRequest:
    return AuthorizerRequest("c", "192.0.2.1", "iot.example", username, **more)


def test_what_is_presented_is_found_in_the_user_name_the_query_and_headers() -> None:
    signature = signed("a/b=")
    text = f"me?{NAME}=door&token=a%2Fb%3D&{SIGNATURE}={quote(signature)}&SDK=x"
    for one in (presented(text), presented(query=text.partition("?")[2])):
        assert (one.value(NAME), one.value("token"), one.value(SIGNATURE)) == ("door", "a/b=", signature)
    headers = presented(headers={NAME: "door", "token": "a/b="})
    assert (headers.value(NAME), headers.value("Token"), headers.value(SIGNATURE)) == ("door", "a/b=", None)
    assert presented("me?SDK").value("SDK") is None
    assert presented(None).value(NAME) is None


@given(st.text(max_size=100), st.text(max_size=100))
def test_whatever_is_presented_is_looked_through(username: str, query: str) -> None:
    presented(username, query=query).value(NAME)


def test_no_more_parts_of_a_user_name_are_looked_at_than_clients_send() -> None:
    parts = [f"%4{number % 10}=1" for number in range(MAX_PARTS - 1)]
    assert presented("?" + "&".join([*parts, f"{NAME}=one"])).value(NAME) == "one"
    assert presented("?" + "&".join([*parts, "a=b", f"{NAME}=one"])).value(NAME) is None


def test_a_token_holds_that_one_of_the_keys_signed() -> None:
    check_token(DOOR, "t", signed("t"), "c")
    both = replace(DOOR, signing_keys={"one": pem_of(KEYS[0]), "two": pem_of(KEYS[1])})
    check_token(both, "t", signed("t", KEYS[1]), "c")


@pytest.mark.parametrize(
    ("token", "signature"),
    [
        (None, signed("t")),
        ("", signed("")),
        ("t", None),
        ("t", "not base64"),
        ("t", ""),
        ("u", signed("t")),
        ("t", signed("t", KEYS[1])),
        ("t" * 6145, signed("t" * 6145)),
    ],
)
def test_a_token_that_does_not_hold_is_refused(token: str | None, signature: str | None) -> None:
    with pytest.raises(TokenRefusedError) as refused:
        check_token(DOOR, token, signature, "c")
    assert "not called" in refused.value.explain_cause()


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "x",
        pem_of(rsa.generate_private_key(65537, 1024)),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        numbers(e=65537, bits=8200),
        numbers(e=2**2000 + 1, bits=2048),
    ],
)
def test_a_key_that_checks_no_token_is_refused(pem: str) -> None:
    with pytest.raises(SigningKeyInvalidError):
        signing_key_of("one", pem)


def test_an_event_tells_what_was_presented_and_nothing_that_was_not() -> None:
    assert event_of(presented("me", password=b"\xff", client_id="c"), "t", "id", is_verified=True) == {
        "token": "t",
        "signatureVerified": True,
        "protocols": ["tls", "mqtt"],
        "protocolData": {
            "tls": {"serverName": "iot.example"},
            "mqtt": {"username": "me", "password": "/w==", "clientId": "c"},
        },
        "connectionMetadata": {"id": "id"},
    }
    http = event_of(presented(headers={"a": "b"}, query="c=d", is_mqtt=False), None, "id", is_verified=False)
    assert http["protocols"] == ["tls", "http"]
    assert http["protocolData"]["http"] == {"headers": {"a": "b"}, "queryString": "?c=d"}
    assert "token" not in http


def test_a_verdict_has_policies_as_text_or_as_objects() -> None:
    statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": statement}
    answer = {"isAuthenticated": True, "principalId": "a1", "policyDocuments": [document], "context": {}}
    verdict = verdict_of(DOOR, answer)
    assert (verdict.principal, len(verdict.policies), verdict.refresh_s) == ("a1", 1, 86_400)
    assert verdict_of(DOOR, answer | {"policyDocuments": list(verdict.documents)}).documents == verdict.documents


def test_a_no_needs_nothing_else() -> None:
    assert not verdict_of(DOOR, {"isAuthenticated": False, "principalId": "-"}).is_authenticated


@given(JSON)
def test_any_answer_is_a_verdict_or_refused(answer: Any) -> None:
    try:
        verdict = verdict_of(DOOR, answer)
    except AuthorizerAnswerError:
        return
    assert answer["isAuthenticated"] is verdict.is_authenticated
