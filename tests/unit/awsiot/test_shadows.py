"""Shadows: what an update becomes, what is said of it, and what is refused in the service's own words."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.error_mapping import http_error, shadow_rejection
from birthmark.awsiot.model import NameInvalidError, Shadow, ThingName, parse_shadow_name
from birthmark.awsiot.rules import shadows as rules
from birthmark.awsiot.rules.shadows import ShadowMissingError, ShadowTooLargeError, ShadowVersionError
from birthmark.awsiot.wire import shadows as wire
from birthmark.awsiot.wire.shadows import ShadowEncodingError, ShadowInvalidError, parse_request
from birthmark.errors import BirthmarkError, UnavailableError

SECOND = 1_000_000
FRESH = Shadow("t")


def update(shadow: Shadow, at_s: int = 1, version: int | None = None, **state: Any) -> Shadow:
    payload = json.dumps({"state": state} | ({} if version is None else {"version": version})).encode()
    request = parse_request(payload)
    return rules.apply_update(shadow, rules.parse_update(request, FRESH), request.size, at_s * SECOND)


def said(body: bytes | None) -> Any:
    return json.loads(body or b"null")


def values(shadow: Shadow) -> dict[str, Any]:
    return {name: one.values for name, one in shadow.sections.items()}


# ---- merging


def test_updates_are_merged_and_counted_from_one() -> None:
    first = update(FRESH, desired={"a": {"b": 1}, "c": 1}, reported={"c": 2})
    second = update(first, desired={"a": {"d": 2}, "c": None})
    assert (first.version, second.version) == (1, 2)
    assert values(second) == {"desired": {"a": {"b": 1, "d": 2}}, "reported": {"c": 2}}


def test_an_array_is_replaced_whole() -> None:
    assert values(update(update(FRESH, desired={"a": [1, 2]}), desired={"a": [3]}))["desired"] == {"a": [3]}


def test_a_section_that_is_null_is_removed_and_no_part_of_the_document() -> None:
    shadow = update(update(FRESH, desired={"a": 1}, reported={"a": 1}), desired=None)
    whole = said(wire.shadow_json(shadow, 2 * SECOND))
    assert (whole["state"], list(whole["metadata"])) == ({"reported": {"a": 1}}, ["reported"])


def test_an_empty_state_makes_an_empty_shadow() -> None:
    assert said(wire.shadow_json(update(FRESH), SECOND)) == {"state": {}, "metadata": {}, "version": 1, "timestamp": 1}


def test_the_version_that_is_given_has_to_be_the_current_one() -> None:
    shadow = update(FRESH, version=0, desired={"a": 1})
    assert update(shadow, version=1, desired={"a": 2}).version == 2
    for wrong in (0, 2, 10**30):
        with pytest.raises(ShadowVersionError) as caught:
            update(shadow, version=wrong, desired={"a": 3})
        assert shadow_rejection(caught.value) == (409, "Version conflict")
        assert http_error(caught.value) == (409, "ConflictException")


def test_a_version_goes_on_after_a_deletion_and_begins_again_after_two_days() -> None:
    gone = rules.deleted(update(update(FRESH, desired={"a": 1}), desired={"a": 2}), 5 * SECOND)
    with pytest.raises(ShadowMissingError):
        rules.get_existing(gone)
    with pytest.raises(ShadowMissingError):
        rules.deleted(gone, 6 * SECOND)
    again = update(rules.drop_expired_version(gone, 6 * SECOND), reported={"b": 1})
    assert (again.version, values(again)) == (3, {"desired": {}, "reported": {"b": 1}})
    at = (5 + rules.REMEMBERED_S) * SECOND
    assert rules.drop_expired_version(gone, at - 1) == gone
    assert update(rules.drop_expired_version(gone, at), reported={"b": 1}).version == 1
    assert rules.get_existing(rules.drop_expired_version(again, 2 * at)) == again


def test_a_shadow_that_never_was_is_named_as_the_service_names_it() -> None:
    with pytest.raises(ShadowMissingError, match="No shadow exists with name: 't'"):
        rules.get_existing(FRESH)
    with pytest.raises(ShadowMissingError, match="No shadow exists with name: 't~config'") as caught:
        rules.get_existing(Shadow("t", "config"))
    assert caught.value.explain_fix().endswith(
        "`birthmark aws shadow t --shadow-name config --desired '{\"on\": true}'`"
    )
    assert shadow_rejection(caught.value) == (404, "No shadow exists with name: 't~config'")


# ---- what is said


def test_a_whole_shadow_has_values_dates_and_what_is_not_yet_so() -> None:
    shadow = update(update(FRESH, 10, desired={"a": 1, "b": {"c": True}}), 20, reported={"a": 1, "x": "y"})
    assert said(wire.shadow_json(shadow, 30 * SECOND + 999_999, "token")) == {
        "state": {
            "desired": {"a": 1, "b": {"c": True}},
            "reported": {"a": 1, "x": "y"},
            "delta": {"b": {"c": True}},
        },
        "metadata": {
            "desired": {"a": {"timestamp": 10}, "b": {"c": {"timestamp": 10}}},
            "reported": {"a": {"timestamp": 20}, "x": {"timestamp": 20}},
        },
        "version": 2,
        "timestamp": 30,
        "clientToken": "token",
    }


def test_every_element_of_an_array_is_dated() -> None:
    shadow = update(FRESH, 10, reported={"a": [1, {"b": 2, "c": [3]}, [4]]})
    at = {"timestamp": 10}
    assert said(wire.shadow_json(shadow, 1))["metadata"] == {"reported": {"a": [at, {"b": at, "c": [at]}, [at]]}}


def test_an_answer_repeats_what_was_submitted_and_nothing_else() -> None:
    before = update(FRESH, 10, desired={"a": {"b": 1, "gone": 1}, "z": 1}, reported={"r": 1})
    patch: dict[str, Any] = {"desired": {"a": {"b": 2, "gone": None}, "n": None}, "reported": None}
    after = update(before, 20, **patch)
    assert said(wire.update_json(after, patch, 20 * SECOND, None)) == {
        "state": patch,
        "metadata": {"desired": {"a": {"b": {"timestamp": 20}}}},
        "version": 2,
        "timestamp": 20,
    }


def test_documents_are_those_before_and_after() -> None:
    before = update(FRESH, 10, desired={"a": 1})
    after = update(before, 20, reported={"a": 1})
    one = {"a": {"timestamp": 10}}
    assert said(wire.documents_json(before, after, 20 * SECOND, "token")) == {
        "previous": {"state": {"desired": {"a": 1}}, "metadata": {"desired": one}, "version": 1},
        "current": {
            "state": {"desired": {"a": 1}, "reported": {"a": 1}},
            "metadata": {"desired": one, "reported": {"a": {"timestamp": 20}}},
            "version": 2,
        },
        "timestamp": 20,
        "clientToken": "token",
    }
    assert said(wire.documents_json(FRESH, before, 10 * SECOND, None))["previous"] == {
        "state": {},
        "metadata": {},
        "version": 0,
    }


def test_a_delta_is_what_is_desired_and_not_so_reported() -> None:
    shadow = update(FRESH, 10, desired={"a": 1, "b": {"c": 1, "d": 1}, "e": [1], "f": True})
    shadow = update(shadow, 20, reported={"a": 1, "b": {"c": 1, "x": 1}, "e": [1, 2], "f": 1, "only": 1})
    at = {"timestamp": 10}
    assert said(wire.delta_json(shadow, 30 * SECOND, "token")) == {
        "version": 2,
        "timestamp": 30,
        "state": {"b": {"d": 1}, "e": [1], "f": True},
        "metadata": {"b": {"d": at}, "e": [at], "f": at},
        "clientToken": "token",
    }


def test_there_is_no_delta_where_all_is_as_desired() -> None:
    assert wire.delta_json(update(FRESH, desired={"a": {"b": 1}}, reported={"a": {"b": 1}, "c": 2}), 1, None) is None
    assert wire.delta_json(update(FRESH, reported={"c": 2}), 1, None) is None
    assert "delta" not in said(wire.shadow_json(update(FRESH, reported={"c": 2}), 1))["state"]


def test_deletions_and_refusals_are_answered_with_the_token() -> None:
    assert said(wire.deleted_json(7, SECOND, "x")) == {"version": 7, "timestamp": 1, "clientToken": "x"}
    assert said(wire.rejected_json(409, "Version conflict", SECOND, None)) == {
        "code": 409,
        "message": "Version conflict",
        "timestamp": 1,
    }


def test_a_shadow_is_kept_as_it_is_with_numbers_of_any_size() -> None:
    shadow = update(FRESH, desired={"a": 10**30, "b": 1.5, "c": "\0", "d": -(2**63) - 1})
    assert wire.sections_of(wire.sections_body(shadow.desired, shadow.reported)) == (shadow.desired, shadow.reported)


# ---- what is refused


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels > 1 else {"a": 1}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"{", "Payload contains invalid json"),
        (b"[]", "Payload contains invalid json"),
        (b'"x"', "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":NaN}}}', "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":"\\ud800"}}}', "Payload contains invalid json"),
        (b"", "Missing required node: state"),
        (b"{}", "Missing required node: state"),
        (b'{"state":null}', "State node must be an object"),
        (b'{"state":[]}', "State node must be an object"),
        (b'{"state":{"desired":1}}', "Desired node must be an object"),
        (b'{"state":{"reported":[]}}', "Reported node must be an object"),
        (b'{"state":{"wanted":{}}}', "State contains an invalid node: 'wanted'"),
        (b'{"state":{"delta":{}}}', "State contains an invalid node: 'delta'"),
        (b'{"state":{"desired":{"a":[1,null]}}}', "State contains an invalid node: 'desired.a[1]'"),
        (b'{"state":{"desired":{"a":[{"b":null}]}}}', "State contains an invalid node: 'desired.a[0].b'"),
        (b'{"state":{"reported":{"a":{"$b":1}}}}', "State contains an invalid node: 'reported.a.$b'"),
        (b'{"state":{"reported":{"":1}}}', "State contains an invalid node: 'reported.'"),
        (b'{"state":{},"version":-1}', "Invalid version"),
        (b'{"state":{},"version":"1"}', "Invalid version"),
        (b'{"state":{},"version":1.5}', "Invalid version"),
        (b'{"state":{},"version":true}', "Invalid version"),
        (b'{"state":{},"clientToken":5}', "Invalid clientToken"),
        (json.dumps({"state": {}, "clientToken": "ä" * 33}).encode(), "Invalid clientToken"),
        (b'{"state":{},"clientToken":""', "Payload contains invalid json"),
        (json.dumps({"state": {"desired": nested(9)}}).encode(), "too many levels of nesting; maximum is 8"),
        (json.dumps({"state": {"desired": nested(65)}}).encode(), "too many levels of nesting; maximum is 8"),
        (b'{"state":' * 5000, "too many levels of nesting; maximum is 8"),
    ],
)
def test_what_is_no_update_is_refused_with_400(payload: bytes, message: str) -> None:
    with pytest.raises(ShadowInvalidError) as caught:
        rules.parse_update(parse_request(payload), FRESH)
    assert message in str(caught.value)
    assert shadow_rejection(caught.value) == (400, str(caught.value))
    assert http_error(caught.value) == (400, "InvalidRequestException")


def test_eight_levels_and_a_token_of_64_bytes_are_taken() -> None:
    assert values(update(FRESH, desired=nested(8)))["desired"] == nested(8)
    assert parse_request(json.dumps({"clientToken": "ä" * 32}).encode()).token == "ä" * 32
    assert parse_request(b"") == wire.ShadowRequest({})
    assert parse_request(b'{"clientToken":null}').token is None


@pytest.mark.parametrize("payload", [b"\xff", b'{"state":{"desired":{"a":"\xff"}}}', '{"state":{}}'.encode("utf-16")])
def test_what_is_not_utf_8_is_refused_with_415(payload: bytes) -> None:
    with pytest.raises(ShadowEncodingError) as caught:
        parse_request(payload)
    assert shadow_rejection(caught.value)[0] == 415
    assert http_error(caught.value)[1] == "UnsupportedDocumentEncodingException"


@pytest.mark.parametrize(
    "state", [{"desired": {"a": "x" * 8192}}, {"desired": {"a": "x" * 4100}, "reported": {"a": "x" * 4100}}]
)
def test_a_state_of_more_than_8_kib_is_refused_with_413(state: dict[str, Any]) -> None:
    with pytest.raises(ShadowTooLargeError) as caught:
        update(FRESH, **state)
    assert shadow_rejection(caught.value) == (413, "The payload exceeds the maximum size allowed")
    assert http_error(caught.value) == (413, "RequestEntityTooLargeException")


def test_what_counts_is_the_state_that_comes_of_it_without_metadata_and_white_space() -> None:
    exact = rules.MAX_BYTES - len(b'{"desired":{"a":""}}')
    full = update(FRESH, desired={"a": "x" * exact})
    with pytest.raises(ShadowTooLargeError):
        update(full, reported={"b": 1})
    assert update(full, desired=None, reported={"b": 1}).version == 2
    spaced = b'{"state":{"desired":{"a":1' + b" " * 9000 + b"}}}"
    request = parse_request(spaced)
    assert rules.apply_update(FRESH, rules.parse_update(request, FRESH), request.size, 1).version == 1


def test_a_patch_of_many_removals_is_no_way_around_the_size() -> None:
    with pytest.raises(ShadowTooLargeError):
        update(FRESH, desired={f"name-{number}": None for number in range(1000)})


def test_what_passes_by_itself_is_told_as_the_service_tells_it() -> None:
    assert shadow_rejection(UnavailableError()) == (500, "Internal service failure")


@pytest.mark.parametrize("name", ["config", "a:b_c-1", "x" * 64])
def test_names_of_shadows(name: str) -> None:
    assert parse_shadow_name(ThingName("t"), name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "$package", "a\n"])
def test_names_that_no_shadow_can_have(name: str) -> None:
    with pytest.raises(NameInvalidError, match="Invalid Shadow name"):
        parse_shadow_name(ThingName("t"), name)


# ---- any document

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
PATCHES = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(
        st.none() | st.integers(0, 3) | st.lists(st.integers(0, 2), max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def applied(target: Any, patch: Any) -> Any:
    """JSON merge patch as RFC 7396 section 2 writes it."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = applied(made.get(name), value)
    return made


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) else 1


@given(st.lists(PATCHES, max_size=4), PATCHES)
def test_any_updates_are_a_merge_patch_and_every_value_has_its_date(patches: list[Any], reported: Any) -> None:
    shadow = update(FRESH, reported=reported)
    expected: Any = {}
    for number, patch in enumerate(patches, 2):
        shadow, expected = update(shadow, number, desired=patch), applied(expected, patch)
    whole = said(wire.shadow_json(shadow, SECOND))
    assert whole["state"].get("desired", {}) == expected
    assert leaves(whole["metadata"].get("desired", {})) == leaves(expected)
    caught_up = update(shadow, reported=whole["state"].get("delta", {}))
    assert wire.delta_json(caught_up, 1, None) is None


@given(DOCUMENTS, DOCUMENTS)
def test_any_document_is_taken_or_refused_in_the_service_s_words(desired: Any, version: Any) -> None:
    payload = msgspec.json.encode({"state": {"desired": desired}, "version": version})
    try:
        request = parse_request(payload)
        shadow = rules.apply_update(FRESH, rules.parse_update(request, FRESH), request.size, 1)
    except BirthmarkError as error:
        assert shadow_rejection(error)[0] in {400, 409, 413}
        return
    assert wire.sections_of(wire.sections_body(shadow.desired, shadow.reported)) == (shadow.desired, shadow.reported)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    try:
        parse_request(payload)
    except BirthmarkError as error:
        assert shadow_rejection(error)[0] in {400, 415}


@pytest.mark.parametrize(("number", "text"), [(b"1e999", "Infinity"), (b"-1e999", "-Infinity")])
def test_a_number_beyond_a_double_is_kept_as_text(number: bytes, text: str) -> None:
    assert wire.parse_request(b'{"state":{"desired":{"a":%s}}}' % number).document["state"]["desired"]["a"] == text


def test_a_byte_order_mark_before_a_document_says_nothing() -> None:
    document = b'{"state":{"desired":{"a":1}}}'
    with_mark = wire.parse_request(b"\xef\xbb\xbf" + document)
    assert with_mark.document == wire.parse_request(document).document
