"""What a provider says, and what is not taken of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from birthmark.iam.oidc_model import OidcIdentity, Provider, ProviderAwayError, ProviderRefusedError
from birthmark.iam.oidc_responses import (
    OidcTokens,
    groups_of,
    name_of,
    read_keys,
    read_metadata,
    read_tokens,
    verify_id_token,
)
from support.fakes import NOON

ISSUER = "https://id.example.com"
PLANT = Provider(
    "plant", "Plant", ISSUER, "birthmark", "a shared secret", ("openid",), "email", ("example.com",), "groups", {}
)
KEY = ECKey.generate_key("P-256", {"kid": "1"})
KEYS = KeySet([KEY])
AT = int(NOON.timestamp())
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "sub": "248289761001",
    "aud": "birthmark",
    "exp": AT + 300,
    "iat": AT,
    "nonce": "n",
}


def a_token(key: Any = KEY, alg: str = "ES256", **claims: Any) -> OidcTokens:
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return OidcTokens(jwt.encode({"alg": alg, "kid": "1"}, said, key, algorithms=[alg]))


def test_a_token_for_us_of_now_and_of_this_sign_in_says_who_it_is() -> None:
    assert verify_id_token(a_token(), KEYS, PLANT, "n", NOON).subject == "248289761001"
    assert verify_id_token(a_token(aud=["birthmark"], azp="birthmark"), KEYS, PLANT, "n", NOON).subject


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": ["birthmark", "another"]},
        {"aud": None},
        {"azp": "another"},
        {"exp": AT - 120},
        {"exp": None},
        {"exp": "soon"},
        {"iat": AT + 3600},
        {"iat": None},
        {"nbf": AT + 3600},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"nonce": ["n"]},
    ],
)
def test_any_other_token_says_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProviderRefusedError):
        verify_id_token(a_token(**wrong), KEYS, PLANT, "n", NOON)


def test_a_token_counts_by_the_providers_own_signature_alone() -> None:
    none = OidcTokens(
        ".".join((*a_token().id_token.replace(a_token().id_token.split(".")[0], _none()).split(".")[:2], ""))
    )
    public = OctKey.import_key(json.dumps(KEY.as_dict(private=False)).encode())
    wrong = [
        none,
        OidcTokens(a_token().id_token[:-8] + "AAAAAAAA"),
        a_token(ECKey.generate_key("P-256", {"kid": "1"})),
        a_token(RSAKey.generate_key(2048, {"kid": "1"}), "RS256"),
        a_token(OctKey.import_key("a shared secret of 32 bytes......", {"kid": "1"}), "HS256"),
        a_token(public, "HS256"),
        OidcTokens(""),
        OidcTokens("a.b.c"),
        OidcTokens("a.b.c.d.e"),
    ]
    for one in wrong:
        with pytest.raises(ProviderRefusedError):
            verify_id_token(one, KEYS, PLANT, "n", NOON)


def _none() -> str:
    import base64

    return base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")


METADATA: Mapping[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
}


def test_metadata_is_of_the_issuer_that_was_asked() -> None:
    assert read_metadata(json.dumps(METADATA).encode(), PLANT).token_endpoint == f"{ISSUER}/token"


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "https://evil.example"},
        {"issuer": f"{ISSUER}/"},
        {"authorization_endpoint": "http://id.example.com/auth"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": ""},
        {"jwks_uri": None},
        {"token_endpoint": "https://[::1/"},
        {"userinfo_endpoint": "http://169.254.169.254/"},
    ],
)
def test_metadata_that_leads_elsewhere_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProviderAwayError):
        read_metadata(json.dumps({**METADATA, **wrong}).encode(), PLANT)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b"\xff", b"[" * 5000, b'{"keys": {}}'])
def test_what_is_no_metadata_no_keys_and_no_tokens_is_told_as_that(body: bytes) -> None:
    for read in (read_metadata, read_keys, read_tokens):
        with pytest.raises(ProviderAwayError):
            read(body, PLANT)


def test_keys_of_kinds_that_nobody_knows_are_passed_over() -> None:
    listed = [{"kty": "PQC", "kid": "9"}, "nonsense", {"kty": "EC"}, KEY.as_dict(private=False)]
    found = read_keys(json.dumps({"keys": listed}).encode(), PLANT)
    assert verify_id_token(a_token(), found, PLANT, "n", NOON).subject


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "anna@example.com", "email_verified": True}, "anna"),
        ({"email": "anna@Example.COM", "email_verified": True}, "anna"),
        ({"email": "anna@example.com"}, None),
        ({"email": "anna@example.com", "email_verified": "true"}, None),
        ({"email": "anna@evil.example", "email_verified": True}, None),
        ({"email": "anna@example.com@evil.example", "email_verified": True}, None),
        ({"email": ["anna@example.com"], "email_verified": True}, None),
        ({}, None),
    ],
)
def test_a_user_is_named_by_a_verified_address_of_domains_that_count(claims: dict[str, Any], name: str | None) -> None:
    assert name_of(OidcIdentity("1", claims, ""), PLANT) == name


def test_a_user_is_named_by_no_claim_where_the_configuration_names_none() -> None:
    assert name_of(OidcIdentity("1", {"preferred_username": "anna"}, ""), replace(PLANT, claim=None)) is None
    assert (
        name_of(OidcIdentity("1", {"preferred_username": "anna"}, ""), replace(PLANT, claim="preferred_username"))
        == "anna"
    )


def test_everybody_is_in_the_group_of_all_and_in_those_that_are_said() -> None:
    assert groups_of({"groups": ["a", 7]}, PLANT) == {"*", "a"}
    assert groups_of({"groups": "a"}, PLANT) == {"*", "a"}
    assert groups_of({}, PLANT) == {"*"}
