"""The wire of the blob storage: signatures, block lists, metadata, names; any text is accepted or refused by name."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.blob_storage.crc64 import Crc64
from birthmark.blob_storage.model import BlobAccount, SasClaims, SasPermission, StoredBlob
from birthmark.blob_storage.rules import (
    BlobAccessError,
    BlobConditions,
    check_permission,
    find_name_error,
    find_unmet_condition,
    is_container_name,
    parse_range,
)
from birthmark.blob_storage.wire import (
    MAX_BLOCKS,
    BlobRequestInvalidError,
    ListRequest,
    SasInvalidError,
    check_known,
    format_sas,
    list_parts,
    parse_block_id,
    parse_block_list,
    parse_metadata,
    parse_permissions,
    parse_sas,
    render_error,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ACCOUNT = BlobAccount("hub", (b"first", b"second"))
LETTERS = "".join(one.value for one in SasPermission)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def query_of(sas: str) -> dict[str, str]:
    return dict(parse_qsl(sas, keep_blank_values=True))


@given(
    container=TEXT,
    blob=st.none() | TEXT.filter(bool),
    permissions=st.text(LETTERS, min_size=1, max_size=6),
    identifier=TEXT,
    life=st.integers(1, 10**6),
)
def test_a_signature_grants_what_was_signed(
    container: str, blob: str | None, permissions: str, identifier: str, life: int
) -> None:
    claims = SasClaims(container, permissions, NOW + timedelta(seconds=life), blob, identifier)
    assert parse_sas(ACCOUNT, container, blob, query_of(format_sas(ACCOUNT, claims)), NOW) == claims


@given(place=st.integers(0, 200), char=st.characters(codec="ascii", exclude_characters="&=%+"))
def test_a_signature_of_which_a_character_was_changed_is_refused(place: int, char: str) -> None:
    claims = SasClaims("uploads", "cw", NOW + timedelta(hours=1), "d1/f", "id")
    query = query_of(format_sas(ACCOUNT, claims))
    name = list(query)[place % len(query)]
    position = place % len(query[name])
    changed = query[name][:position] + char + query[name][position + 1 :]
    if changed != query[name]:
        with pytest.raises(SasInvalidError):
            parse_sas(ACCOUNT, "uploads", "d1/f", query | {name: changed}, NOW)


@given(st.dictionaries(st.sampled_from(["sv", "sr", "si", "se", "sp", "sig"]), st.text(max_size=60)))
def test_no_query_is_a_signature_by_chance(query: dict[str, str]) -> None:
    with pytest.raises(SasInvalidError):
        parse_sas(ACCOUNT, "uploads", "d1/f", query, NOW)


def test_a_signature_with_the_second_key_counts_as_well() -> None:
    claims = SasClaims("uploads", "r", NOW + timedelta(hours=1))
    query = query_of(format_sas(BlobAccount("hub", (b"second",)), claims))
    assert parse_sas(ACCOUNT, "uploads", "any", query, NOW).permissions == "r"


def test_a_signature_ends_at_its_time() -> None:
    query = query_of(format_sas(ACCOUNT, SasClaims("uploads", "r", NOW)))
    assert parse_sas(ACCOUNT, "uploads", None, query, NOW - timedelta(seconds=1)).expires_at == NOW
    with pytest.raises(SasInvalidError):
        parse_sas(ACCOUNT, "uploads", None, query, NOW)


def test_a_permission_is_one_of_the_allowed_ones() -> None:
    claims = SasClaims("uploads", "cw", NOW)
    check_permission(claims, SasPermission.WRITE, SasPermission.DELETE)
    with pytest.raises(BlobAccessError):
        check_permission(claims, SasPermission.READ, SasPermission.LIST)


@pytest.mark.parametrize(("text", "expected"), [("wr", "rw"), ("rr", "r"), ("ldcawr", "racwdl")])
def test_permissions_have_one_order(text: str, expected: str) -> None:
    assert parse_permissions(text) == expected


@pytest.mark.parametrize("text", ["", "x", "rw "])
def test_unknown_permissions_are_refused(text: str) -> None:
    with pytest.raises(BlobRequestInvalidError):
        parse_permissions(text)


BLOCK_ID = st.binary(min_size=1, max_size=64).map(lambda raw: base64.b64encode(raw).decode())
ITEMS = st.lists(st.tuples(st.sampled_from(["Latest", "Committed", "Uncommitted"]), BLOCK_ID), max_size=20)


@given(ITEMS, st.sampled_from(["", "\n", "  "]), st.sampled_from(["", '<?xml version="1.0" encoding="utf-8"?>\n']))
def test_a_block_list_keeps_its_order(items: Sequence[tuple[str, str]], space: str, head: str) -> None:
    inside = space.join(f"<{source}>{block}</{source}>" for source, block in items)
    found = parse_block_list(f"{head}<BlockList>{space}{inside}</BlockList>{space}".encode())
    assert [(one.source, one.block_id) for one in found] == list(items)


@given(st.binary(max_size=200))
def test_any_body_is_a_block_list_or_refused(body: bytes) -> None:
    for text in (body, b"<BlockList>" + body + b"</BlockList>"):
        try:
            parse_block_list(text)
        except BlobRequestInvalidError as error:
            assert error.blob_error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<BlockList>",
        b"<BlockList><Latest>YQ==</Committed></BlockList>",
        b'<!DOCTYPE a [<!ENTITY x "YQ==">]><BlockList><Latest>&x;</Latest></BlockList>',
        b"<BlockList><Latest>a</Latest></BlockList>",
        b"<BlockList>" + b"<Latest>YQ==</Latest>" * (MAX_BLOCKS + 1) + b"</BlockList>",
        b"<BlockList>" + b" " * 1024 * 1024 + b"</BlockList>",
    ],
)
def test_a_body_that_is_no_block_list_is_refused(body: bytes) -> None:
    with pytest.raises(BlobRequestInvalidError):
        parse_block_list(body)


@pytest.mark.parametrize("text", ["", "a", "!!!!", base64.b64encode(bytes(65)).decode()])
def test_a_block_id_is_base64_of_at_most_64_bytes(text: str) -> None:
    with pytest.raises(BlobRequestInvalidError):
        parse_block_id(text)


def test_metadata_has_names_and_printable_values() -> None:
    assert parse_metadata({"x-ms-meta-site": "north", "x-ms-version": "1"}) == {"site": "north"}
    for wrong in ({"x-ms-meta-1a": "x"}, {"x-ms-meta-": "x"}, {"x-ms-meta-a": "é"}, {"x-ms-meta-a": "x" * 9000}):
        with pytest.raises(BlobRequestInvalidError):
            parse_metadata(wrong)


def test_a_header_or_parameter_that_would_be_ignored_is_refused() -> None:
    check_known(["x-ms-version", "x-ms-meta-a", "accept"], ["sig", "timeout", "comp"], frozenset({"comp"}))
    for headers, parameters in ((["x-ms-lease-id"], []), (["x-ms-tags"], []), ([], ["comp"]), ([], ["snapshot"])):
        with pytest.raises(BlobRequestInvalidError):
            check_known(headers, parameters, frozenset())


def test_the_checksum_is_that_of_the_catalog() -> None:
    checksum = Crc64()
    checksum.update(b"1234")
    checksum.update(b"56789")
    assert checksum.digest() == (0xAE8B14860A799888).to_bytes(8, "little")


def test_a_name_has_at_most_1024_bytes() -> None:
    """Names are in the keys of indexes, whose rows PostgreSQL limits to 2,704 bytes."""
    assert find_name_error("é" * 512) is None
    assert find_name_error("é" * 513) is not None


@given(st.text(max_size=60))
def test_a_name_that_is_accepted_stays_below_its_first_segment(name: str) -> None:
    if find_name_error(f"d1/{name}") is None:
        parts = f"d1/{name}".split("/")
        assert parts[0] == "d1"
        assert not {"", ".", ".."} & set(parts)
        assert "\\" not in name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("abc", True),
        ("a-b-c", True),
        ("ab", False),
        ("a--b", False),
        ("-abc", False),
        ("Abc", False),
        ("a" * 64, False),
    ],
)
def test_container_names_are_those_of_azure(name: str, expected: bool) -> None:
    assert is_container_name(name) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-3", range(4)),
        ("bytes=5-", range(5, 10)),
        ("bytes=0-99", range(10)),
        ("bytes=10-", range(0)),
        ("bytes=5-2", None),
        ("bytes=-5", None),
        ("", None),
        ("bytes=0-1,3-4", None),
    ],
)
def test_ranges(text: str, expected: range | None) -> None:
    assert parse_range(text, 10) == expected


A_BLOB = StoredBlob("hub", "uploads", "f<&>", "d1", "0" * 32, 3, '"0x1"', NOW, NOW, {}, {"a": "<b>"})


@pytest.mark.parametrize(
    ("conditions", "blob", "unmet"),
    [
        (BlobConditions(), None, None),
        (BlobConditions(if_match="*"), None, "If-Match"),
        (BlobConditions(if_match="*"), A_BLOB, None),
        (BlobConditions(if_match='"0x1"'), A_BLOB, None),
        (BlobConditions(if_match='"0x2"'), A_BLOB, "If-Match"),
        (BlobConditions(if_none_match="*"), A_BLOB, "If-None-Match"),
        (BlobConditions(if_none_match="*"), None, None),
        (BlobConditions(if_none_match='"0x1"'), A_BLOB, "If-None-Match"),
        (BlobConditions(if_modified_since="Mon, 01 Jun 2026 12:00:00 GMT"), A_BLOB, "If-Modified-Since"),
        (BlobConditions(if_modified_since="Mon, 01 Jun 2026 11:00:00 GMT"), A_BLOB, None),
        (BlobConditions(if_unmodified_since="Mon, 01 Jun 2026 11:00:00 GMT"), A_BLOB, "If-Unmodified-Since"),
        (BlobConditions(if_unmodified_since="Mon, 01 Jun 2026 12:00:00 GMT"), A_BLOB, None),
    ],
)
def test_conditions(conditions: BlobConditions, blob: StoredBlob | None, unmet: str | None) -> None:
    assert find_unmet_condition(conditions, blob) == unmet


@given(st.text(max_size=40))
def test_a_condition_that_is_no_date_is_refused(text: str) -> None:
    try:
        find_unmet_condition(BlobConditions(if_modified_since=text), A_BLOB)
    except BlobRequestInvalidError as error:
        assert error.blob_error == "InvalidHeaderValue"


@given(st.text(max_size=40))
def test_answers_are_xml_whatever_the_names_are(text: str) -> None:
    import xml.etree.ElementTree as ET

    ET.fromstring(render_error("Code", text))
    listed = ET.fromstring("".join(list_parts("uploads", ListRequest(text, text, with_metadata=True), [A_BLOB], text)))
    assert [one.text for one in listed.iter("Name")] == ["f<&>"]
    assert [one.text for one in listed.iter("a")] == ["<b>"]
