"""Documents: merge, delta, stamps, and what is allowed in one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents import (
    DocumentProblem,
    DocumentSection,
    Problem,
    Shape,
    check,
    delta,
    merged,
    replaced,
    submitted,
)
from birthmark.documents.document_limits import check_size

SHAPE = Shape(
    max_levels=3,
    max_bytes=40,
    forbidden=". $",
    max_name_bytes=8,
    max_text_bytes=8,
    integers=(-10, 10),
)

NAMES = st.sampled_from(["a", "b", "c"])
ARRAYS = st.lists(st.integers(0, 2), max_size=2)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.text("xy", max_size=2) | ARRAYS
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3))
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


def rfc_7396(target: Any, patch: Any) -> Any:
    """The algorithm as the RFC writes it."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = rfc_7396(made.get(name), value)
    return made


def shape_of(values: dict[str, Any]) -> Any:
    return {name: shape_of(value) if isinstance(value, dict) else None for name, value in values.items()}


def shape_of_stamps(stamps: dict[str, Any]) -> Any:
    return {name: shape_of_stamps(stamp[2]) if len(stamp) > 2 else None for name, stamp in stamps.items()}


@given(st.lists(OBJECTS, max_size=4))
def test_merging_is_rfc_7396_and_every_value_has_its_stamp(patches: list[dict[str, Any]]) -> None:
    section = DocumentSection()
    expected: dict[str, Any] = {}
    for at, patch in enumerate(patches):
        section, expected = merged(section, patch, at), rfc_7396(expected, patch)
    assert section.values == expected
    assert section.version == 1 + len(patches)
    assert shape_of_stamps(section.stamps) == shape_of(expected)


@given(OBJECTS, OBJECTS)
def test_merging_changes_nothing_that_was_there_before(first: dict[str, Any], second: dict[str, Any]) -> None:
    section = merged(DocumentSection(), first, 1)
    before = repr(section)
    merged(section, second, 2)
    assert repr(section) == before


@given(OBJECTS, OBJECTS)
def test_what_differs_reported_as_desired_leaves_no_delta(wanted: dict[str, Any], there: dict[str, Any]) -> None:
    desired, reported = merged(DocumentSection(), wanted, 1), merged(DocumentSection(), there, 1)
    values, stamps = delta(desired, reported)
    assert shape_of_stamps(stamps) == shape_of(values)
    assert delta(desired, merged(reported, values, 2))[0] == {}


def test_a_delta_holds_what_differs_or_is_missing_and_nothing_that_is_only_reported() -> None:
    desired = merged(
        DocumentSection(), {"same": 1, "other": 1, "missing": {"x": 1}, "in": {"same": 1, "other": [1]}}, 5
    )
    reported = merged(DocumentSection(), {"same": 1, "other": 2, "extra": 3, "in": {"same": 1, "other": [2]}}, 6)
    values, stamps = delta(desired, reported)
    assert values == {"other": 1, "missing": {"x": 1}, "in": {"other": [1]}}
    assert stamps["in"] == [5, 2, {"other": [5, 2]}]


@pytest.mark.parametrize(("one", "other"), [(True, 1), (0, False), ([True], [1])])
def test_true_is_not_one(one: object, other: object) -> None:
    assert delta(merged(DocumentSection(), {"a": one}, 1), merged(DocumentSection(), {"a": other}, 1))[0] == {"a": one}


def test_a_number_written_otherwise_is_the_same() -> None:
    assert delta(merged(DocumentSection(), {"a": 1}, 1), merged(DocumentSection(), {"a": 1.0}, 1))[0] == {}


def test_only_what_was_named_has_a_new_stamp() -> None:
    section = merged(merged(DocumentSection(), {"a": 1, "in": {"b": 1, "c": 1}}, 10), {"in": {"b": 2}}, 20)
    assert section.stamps == {"a": [10, 2], "in": [20, 3, {"b": [20, 3], "c": [10, 2]}]}
    assert submitted(section.stamps, {"in": {"b": 2}, "gone": None}) == {"in": [20, 3, {"b": [20, 3]}]}


def test_replacing_forgets_what_is_not_named() -> None:
    section = replaced(merged(DocumentSection(), {"a": 1, "b": 2}, 1), {"b": 3}, 2)
    assert (section.values, section.stamps, section.version) == ({"b": 3}, {"b": [2, 3]}, 3)


@pytest.mark.parametrize(
    ("document", "problem", "path"),
    [
        ([], Problem.NOT_AN_OBJECT, ""),
        ({"a": {"b": {"c": {}}}}, Problem.TOO_DEEP, "a.b.c"),
        ({"a": {"b": [[1]]}}, Problem.TOO_DEEP, "a.b[0]"),
        ({"a.b": 1}, Problem.KEY, "a.b"),
        ({"a": {"$x": 1}}, Problem.KEY, "a.$x"),
        ({"": 1}, Problem.KEY, ""),
        ({"a\x85": 1}, Problem.KEY, "a\x85"),
        ({"ninechars": 1}, Problem.KEY, "ninechars"),
        ({"a": [None]}, Problem.NULL_IN_ARRAY, "a[0]"),
        ({"a": [{"b": None}]}, Problem.NULL_IN_ARRAY, "a[0].b"),
        ({"a": 11}, Problem.NUMBER, "a"),
        ({"a": "ninechars"}, Problem.TEXT, "a"),
    ],
)
def test_what_is_not_allowed_is_named_with_its_place(document: object, problem: Problem, path: str) -> None:
    with pytest.raises(DocumentProblem) as caught:
        check(document, SHAPE)
    assert (caught.value.problem, caught.value.path) == (problem, path)


def test_what_is_allowed_passes() -> None:
    document = {"a": {"b": [1, True, "x"], "c": None}, "d": 1.5}
    assert check(document, SHAPE) is document
    check_size({"a": "x" * 32}, SHAPE)


def test_a_section_that_is_too_large_is_refused() -> None:
    with pytest.raises(DocumentProblem, match="is too large"):
        check_size({"a": "x" * 33}, SHAPE, path="reported")


def test_a_patch_of_more_than_twice_what_a_section_holds_is_refused_before_its_values_are_looked_at() -> None:
    many = {"a": [None] * 40}  # no array may hold a null, which is what a look at the values would say
    with pytest.raises(DocumentProblem) as refused:
        check(many, SHAPE)
    assert refused.value.problem is Problem.TOO_LARGE


def test_a_patch_that_removes_may_be_larger_than_a_section() -> None:
    removing = dict.fromkeys("abcdefg")
    assert check(removing, SHAPE) == removing


def test_a_patch_that_is_nested_without_end_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    with pytest.raises(DocumentProblem) as refused:
        check(nested, SHAPE)
    assert refused.value.problem in {Problem.TOO_DEEP, Problem.TOO_LARGE}
    while nested:  # a nested value is freed by recursion, too deep for some interpreters
        nested = nested["a"]
