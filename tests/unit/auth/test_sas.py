"""Shared access signatures as the SDKs really make them."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.auth.connection_strings import ConnectionStringError, parse_connection_string
from birthmark.auth.sas import (
    SasExpiredError,
    SasMalformedError,
    SasScopeError,
    SasSignatureError,
    check_resource,
    check_sas,
    derive_device_key,
    parse_sas,
)
from support.azure.sas_tokens import make_sas
from support.fakes import NOON

KEY = b"k" * 32
RESOURCE = "0ne00ABCDEF/registrations/dev-001"
LATER = int((NOON + timedelta(hours=1)).timestamp())


def signed(sr: str, se: int = LATER, key: bytes = KEY, safe: str = "") -> str:
    signature = base64.b64encode(hmac.digest(key, f"{sr}\n{se}".encode(), hashlib.sha256))
    return f"sr={sr}&sig={quote(signature, safe=safe)}&se={se}"


def check(text: str) -> None:
    token = parse_sas("SharedAccessSignature " + text)
    check_sas(token, [b"other", KEY], NOON)
    check_resource(token, [RESOURCE])


def test_a_token_as_python_makes_it_without_skn_and_with_the_slash_escaped() -> None:
    check(signed(quote(RESOURCE, safe="")))


def test_a_token_as_node_makes_it_with_raw_slashes_and_skn_before_se() -> None:
    body = signed(RESOURCE)
    check(body.replace("&se=", "&skn=registration&se="))


def test_a_token_as_iot_edge_makes_it_with_the_resource_in_lower_case() -> None:
    check(signed(quote(RESOURCE.lower(), safe="")))


def test_a_signature_with_an_unescaped_slash_and_a_plus_sign() -> None:
    for number in range(200):
        se = LATER + number
        text = signed(quote(RESOURCE, safe=""), se, safe="/+")
        check(text)


def test_a_token_signed_with_another_key_is_refused() -> None:
    with pytest.raises(SasSignatureError):
        check(signed(quote(RESOURCE, safe=""), key=b"stranger"))


def test_an_expired_token_is_refused_beyond_five_minutes_of_skew() -> None:
    check(signed(RESOURCE, int((NOON - timedelta(minutes=4)).timestamp())))
    with pytest.raises(SasExpiredError):
        check(signed(RESOURCE, int((NOON - timedelta(minutes=6)).timestamp())))


def test_a_token_for_something_else_is_refused() -> None:
    with pytest.raises(SasScopeError):
        check(signed("0ne00ABCDEF/registrations/dev-002"))
    with pytest.raises(SasScopeError):
        check(signed("0ne00ABCDEF/registrations/dev-0"))


def test_a_token_for_what_is_above_serves_what_is_below() -> None:
    check(signed("0ne00ABCDEF"))


def test_our_own_token_is_read_back() -> None:
    token = parse_sas(make_sas("hub.example/devices/a b", KEY, LATER, "device"))
    check_sas(token, [KEY], NOON)
    assert (token.resource, token.policy) == ("hub.example/devices/a b", "device")


def test_a_device_key_is_derived_as_the_documentation_shows() -> None:
    group = "oiK77Oy7rBw8YB6IS6ukRChAw+Yq6GC61RMrPLSTiOOtdI+XDu0LmLuNm11p+qv2I+adqGUdZHm46zXAQdZoOA=="
    key = derive_device_key(base64.b64decode(group), "breakroom499-contoso-tstrsd-007")
    assert base64.b64encode(key).decode() == "JC8F96eayuQwwz+PkE7IzjH2lIAjCUnAa61tDigBnSs="


def test_a_token_never_shows_its_signature() -> None:
    assert "signature" not in repr(parse_sas(make_sas("x", KEY, LATER)))


@given(st.text(max_size=300))
def test_any_text_is_a_token_or_a_clear_refusal(text: str) -> None:
    for candidate in (text, "SharedAccessSignature " + text):
        try:
            token = parse_sas(candidate)
        except SasMalformedError:
            continue
        with pytest.raises((SasSignatureError, SasExpiredError)):
            check_sas(token, [KEY], NOON)


@given(st.text(max_size=200))
def test_any_text_is_a_connection_string_or_a_clear_refusal(text: str) -> None:
    try:
        parsed = parse_connection_string(text)
    except ConnectionStringError:
        return
    assert parse_connection_string(parsed.render()) == parsed


@pytest.mark.parametrize("within", ["\r\n", " ", "\u200b", "\t"])
@pytest.mark.parametrize("name", ["HostName", "SharedAccessKeyName"])
def test_a_string_that_is_broken_within_a_part_is_refused_and_not_sent(name: str, within: str) -> None:
    text = "HostName=dps.test;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
    with pytest.raises(ConnectionStringError) as refused:
        parse_connection_string(text.replace(f"{name}=", f"{name}=x{within}"))
    assert f"no valid {name}: it contains a line break" in refused.value.explain_cause()


@pytest.mark.parametrize("signed", ["hub.example", "hub.example:9443", "HUB.example:443/devices", "hub.example/"])
def test_the_host_counts_with_any_port_and_with_none(signed: str) -> None:
    check_resource(parse_sas(make_sas(signed, b"k" * 32, 4_000_000_000)), ["hub.example/devices/a"])


@pytest.mark.parametrize(
    "signed", ["", "/", "hub", "hub.example.evil", "hub.example:1/devices/b", "hub.example:x", ":443"]
)
def test_nothing_else_is_above_a_resource(signed: str) -> None:
    with pytest.raises(SasScopeError):
        check_resource(parse_sas(make_sas(signed, b"k" * 32, 4_000_000_000)), ["hub.example/devices/a"])


ODD_IDS = ["$edgeAgent", "$edgeHub", "cam:1", "00:11:22:AA:bb", "n@m.et", "100%", "a#b", "a+b,c'd", "a%23b"]


@pytest.mark.parametrize("name", ODD_IDS)
@pytest.mark.parametrize("encoded", [str, lambda name: quote(name, safe="")], ids=["encoded once", "encoded twice"])
def test_a_device_and_a_module_id_count_encoded_once_and_twice(name: str, encoded: Callable[[str], str]) -> None:
    signed = f"hub.example/devices/{encoded(name)}/modules/{encoded(name)}"
    check_resource(parse_sas(make_sas(signed, KEY, 4_000_000_000)), [f"hub.example/devices/{name}/modules/{name}"])


@pytest.mark.parametrize("signed", ["hub.example/devices/%2524edge", "hub.example%2Fdevices%2F$edge"])
def test_an_audience_encoded_three_times_or_with_an_encoded_slash_is_another(signed: str) -> None:
    with pytest.raises(SasScopeError):
        check_resource(parse_sas(make_sas(signed, KEY, 4_000_000_000)), ["hub.example/devices/$edge"])
