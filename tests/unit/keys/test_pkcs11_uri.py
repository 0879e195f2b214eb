"""PKCS#11 URIs, by the examples and rules of RFC 7512."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyFileMissingError, PinInUriError, PinSourceInPathError, UriInvalidError
from birthmark.keys.pkcs11_uri import Pkcs11Uri, parse_pkcs11_uri

text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
uris = st.builds(
    Pkcs11Uri,
    token=text,
    object=text,
    id=st.none() | st.binary(min_size=1, max_size=6),
    type=st.none() | st.sampled_from(["private", "public", "cert", "data"]),
    serial=text,
    manufacturer=text,
    model=text,
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    module_path=st.none() | st.sampled_from([Path("/usr/lib/x.so"), Path("/a b/ü?&.so")]),
    pin_source=st.none() | st.sampled_from([Path("/run/pin"), Path("/a b/ü?&|")]),
)


@example(Pkcs11Uri(model="'"))
@given(uris)
def test_a_uri_comes_back_as_it_was(uri: Pkcs11Uri) -> None:
    assert parse_pkcs11_uri(str(uri)) == uri


@given(st.text(max_size=60))
def test_any_text_is_a_uri_or_a_refusal(text: str) -> None:
    for candidate in (text, f"pkcs11:{text}"):
        with contextlib.suppress(UriInvalidError):
            parse_pkcs11_uri(candidate)


def test_an_se050_key_is_named_readably() -> None:
    assert str(Pkcs11Uri(token="SSS_PKCS11", object="sss:F0000100", type="private")) == (
        "pkcs11:token=SSS_PKCS11;object=sss:F0000100;type=private"
    )


def test_the_examples_of_the_rfc_are_read() -> None:
    first = parse_pkcs11_uri("pkcs11:object=my-pubkey;type=public")
    assert (first.object, first.type) == ("my-pubkey", "public")
    second = parse_pkcs11_uri(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
        "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin"
    )
    assert second.token == "The Software PKCS#11 Softtoken"
    assert second.manufacturer == "Snake Oil, Inc."
    assert second.id == bytes.fromhex("69953E5CF4BDEC91")
    assert second.pin_source == Path("/etc/token_pin")


@pytest.mark.parametrize("source", ["file:/run/pin", "file:///run/pin", "file://localhost/run/pin", "/run/pin"])
def test_a_pin_source_is_a_file(source: str) -> None:
    assert parse_pkcs11_uri(f"pkcs11:?pin-source={source}").pin_source == Path("/run/pin")


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11",
        "file:/x",
        "pkcs11:object",
        "pkcs11:object=a;object=b",
        "pkcs11:nothing=1",
        "pkcs11:type=secret",
        "pkcs11:object=%zz",
        "pkcs11:object=%ff",
        "pkcs11:slot-id=one",
        "pkcs11:object=ü",
        "pkcs11:?pin-source=|/usr/bin/pin",
        "pkcs11:?pin-source=file:relative",
        "pkcs11:object=" + "a" * 3000,
    ],
)
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(UriInvalidError):
        parse_pkcs11_uri(text)


PINS = ["pkcs11:token=t?pin-value=1234", "pkcs11:token=t;pin-value=1234;type=private", "'PKCS11:?pin-value=1234'"]


@pytest.mark.parametrize("text", PINS)
def test_a_pin_in_a_uri_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(PinInUriError) as refusal:
        parse_pkcs11_uri(text)
    assert "1234" not in told(refusal.value)
    assert "pin-value" not in refusal.value.uri


@pytest.mark.parametrize("text", ['"pkcs11:token=t"', "'PKCS11:token=t'", " Pkcs11:token=t\n"])
def test_quotes_and_the_case_of_the_scheme_do_not_matter(text: str) -> None:
    assert parse_pkcs11_uri(text).token == "t"


@pytest.mark.parametrize("before", ["engine:", "org.openssl.engine:pkcs11:", "pkcs11:"])
def test_what_openssl_s_engine_wants_before_a_uri_is_explained(before: str) -> None:
    with pytest.raises(UriInvalidError, match=f"leave out '{before}'") as refusal:
        parse_pkcs11_uri(f"{before}pkcs11:token=t?pin-value=1234")
    assert "1234" not in told(refusal.value)


def test_a_pin_source_among_the_attributes_of_the_key_is_told_to_belong_after_the_question_mark() -> None:
    with pytest.raises(PinSourceInPathError) as refusal:
        parse_pkcs11_uri("pkcs11:token=t;pin-source=file:/run/pin;type=private?module-path=/x.so")
    assert refusal.value.uri == "pkcs11:token=t;type=private?module-path=/x.so&pin-source=file:/run/pin"


@given(st.sampled_from(PINS), st.sampled_from(["", "engine:", "./", "file:///", "a b "]))
def test_no_error_tells_a_pin_whatever_fact_has_it(text: str, before: str) -> None:
    error = KeyFileMissingError(path=Path(before + text))
    error.add_facts(again=f"birthmark device register --key {text}", detail=text)
    assert "1234" not in told(error)


def told(error: BirthmarkError) -> str:
    return f"{error}{error.explain_cause()}{error.explain_fix()}{error.explain_for_display()}{error.facts}"
