"""Plans of queries: never narrower than what is asked, and terms that stand to each other as their values do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents.query_evaluator import fits
from birthmark.iothub.rules.index_terms import MAX_TERMS, MAX_VALUE, encode, of_twin, path_key
from birthmark.iothub.rules.twin_query_plans import (
    AllTwins,
    AnyOf,
    CheapestPlan,
    CollectionNotServedError,
    ConnectedTwins,
    DisabledTwins,
    Edge,
    HubQueryInvalidError,
    NamedWithin,
    Plan,
    TwinsByName,
    TwinsByRange,
    TwinsByTerm,
    ValueSpan,
    plan,
    read_query,
)


def planned(where: str) -> Plan:
    return plan(read_query(f"SELECT * FROM devices WHERE {where}").where)


def test_a_value_is_found_by_its_term() -> None:
    assert planned("tags.site = 'north'") == TwinsByTerm("t.site", ("snorth",))
    assert planned("properties.reported.on") == TwinsByTerm("r.on", ("b1",))
    assert planned("properties.desired.n IN [1, 2]") == TwinsByTerm("d.n", (encode(1), encode(2)))


def test_a_range_is_of_one_kind() -> None:
    assert planned("tags.site > 'n'") == TwinsByRange("t.site", ValueSpan("sn", "t", with_high=False))
    assert planned("tags.n <= 3") == TwinsByRange("t.n", ValueSpan("n", encode(3)))


def test_a_beginning_is_a_range() -> None:
    assert planned("starts_with(tags.site, 'no')") == TwinsByRange("t.site", ValueSpan("sno", "snp", with_high=False))
    assert planned("starts_with(deviceId, 'pump-')") == NamedWithin(ValueSpan("pump-", "pump.", with_high=False))


def test_devices_are_found_by_their_own_columns() -> None:
    assert planned("deviceId IN ['b', 'a', 'b']") == TwinsByName(("a", "b"))
    assert planned("status = 'disabled'") == DisabledTwins()
    assert planned("capabilities.iotEdge = true") == Edge()
    assert planned("status = 'enabled'") == AllTwins()
    assert planned("connectionState = 'Connected'") == ConnectedTwins()


def test_of_what_has_to_hold_together_the_cheapest_is_for_who_counts() -> None:
    found = planned("tags.site = 'north' AND status = 'disabled'")
    assert found == CheapestPlan((TwinsByTerm("t.site", ("snorth",)), DisabledTwins()))


def test_bounds_of_one_path_are_one_span() -> None:
    assert planned("tags.n >= 1 AND tags.n < 3") == CheapestPlan(
        (TwinsByRange("t.n", ValueSpan(encode(1), encode(3))),)
    )
    assert planned("deviceId > 'b' AND deviceId <= 'd'") == CheapestPlan((NamedWithin(ValueSpan("b", "d")),))


def test_names_of_a_twin_have_no_case_and_those_of_its_values_have() -> None:
    assert planned("DeviceID = 'x'") == TwinsByName(("x",))
    assert planned("Tags.Site = 'x'") == TwinsByTerm("t.Site", ("sx",))


@pytest.mark.parametrize("text", ["SELECT * FROM devices.streams", "SELECT * FROM twins"])
def test_what_is_not_served_is_named(text: str) -> None:
    with pytest.raises(CollectionNotServedError):
        read_query(text)


def test_a_name_that_no_twin_has_is_refused() -> None:
    with pytest.raises(HubQueryInvalidError, match="site is not a field of a twin"):
        read_query("SELECT * FROM devices WHERE site = 'x'")


# ---- terms

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NUMBERS = st.one_of(st.integers(-(2**52), 2**52), st.floats(allow_nan=False, allow_infinity=False))


@given(NUMBERS, NUMBERS)
def test_numbers_stand_to_each_other_as_their_terms_do(one: float, other: float) -> None:
    assert (encode(one) < encode(other)) == (one < other)
    assert (encode(one) == encode(other)) == (one == other)


@given(TEXTS, TEXTS)
def test_texts_stand_to_each_other_as_their_terms_do(one: str, other: str) -> None:
    assert (encode(one) < encode(other)) == (one < other)


def test_long_texts_are_as_equal_as_their_beginnings() -> None:
    assert encode("x" * MAX_VALUE + "a") == encode("x" * MAX_VALUE + "b")


def test_a_twin_has_a_term_for_each_of_its_values() -> None:
    tags = {"site": "north", "place": {"floor": 3}, "list": [1, 2], "off": False}
    assert of_twin(tags, {"n": 1.5}, {}) == (
        ("t.site", "snorth"),
        ("t.place", "o"),
        ("t.place.floor", encode(3)),
        ("t.list", "a"),
        ("t.off", "b0"),
        ("d.n", encode(1.5)),
    )


def test_a_twin_with_too_many_values_has_none_and_is_always_looked_at() -> None:
    assert of_twin({}, {}, {f"x{n}": n for n in range(MAX_TERMS + 1)}) is None


def test_no_term_is_of_what_dates_a_twin() -> None:
    assert path_key(("properties", "reported", "$metadata", "x")) is None
    assert path_key(("tags",)) is None
    assert path_key(("deviceId",)) is None


# ---- never narrower

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(st.sampled_from(["", "a", "ab", "b"]), st.integers(-2, 3), st.floats(-2, 3), st.booleans())
OBJECTS = st.recursive(
    st.one_of(VALUES, st.lists(VALUES, max_size=1)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
SECTIONS = st.dictionaries(NAMES, OBJECTS, max_size=3)
PATHS = st.tuples(
    st.sampled_from([("tags",), ("properties", "desired"), ("properties", "reported")]),
    st.lists(NAMES, min_size=1, max_size=2),
).map(lambda parts: ".".join((*parts[0], *parts[1])))


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


LITERALS = VALUES.map(_literal)
CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, PATHS, st.sampled_from(["=", "!=", "<", ">", "<=", ">="]), LITERALS),
        st.builds("{} {} [{}, {}]".format, PATHS, st.sampled_from(["IN", "NIN"]), LITERALS, LITERALS),
        st.builds("{}({})".format, st.sampled_from(
            ["is_defined", "is_string", "is_number", "is_bool", "is_object", "is_array", "is_null", "is_primitive"]
        ), PATHS),
        st.builds("{}({}, {})".format, st.sampled_from(["starts_with", "ends_with", "contains"]), PATHS, LITERALS),
        PATHS,
        st.sampled_from(["connectionState = 'Connected'",
                         "deviceId = 'd'", "deviceId > 'c'", "status = 'disabled'", "status != 'enabled'",
                         "starts_with(deviceId, 'd')", "capabilities.iotEdge", "deviceId IN ['d', 'e']"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT {}".format, inner),
    ),
    max_leaves=4,
)  # fmt: skip


def names(found: Plan, document: dict[str, Any], terms: set[tuple[str, str]]) -> bool:  # noqa: C901, PLR0911 - each form
    """Say whether a device is one of those that a plan names."""

    def inside(value: str, span: ValueSpan) -> bool:
        is_low = span.high is None or (value <= span.high if span.with_high else value < span.high)
        return value >= span.low and is_low

    match found:
        case AllTwins():
            return True
        case TwinsByName(names=some):
            return document["deviceId"] in some
        case NamedWithin(span=span):
            return inside(document["deviceId"], span)
        case DisabledTwins():
            return bool(document["status"] == "disabled")
        case Edge():
            return bool(document["capabilities"]["iotEdge"])
        case ConnectedTwins():
            return bool(document["connectionState"] == "Connected")
        case TwinsByTerm(path=path, values=values):
            return any((path, value) in terms for value in values)
        case TwinsByRange(path=path, span=span):
            return any(one == path and inside(value, span) for one, value in terms)
        case AnyOf(parts=parts):
            return any(names(part, document, terms) for part in parts)
        case CheapestPlan(parts=parts):
            return all(names(part, document, terms) for part in parts)


TWINS = st.fixed_dictionaries(
    {
        "deviceId": st.just("d"),
        "status": st.sampled_from(["enabled", "disabled"]),
        "connectionState": st.sampled_from(["Connected", "Disconnected"]),
        "capabilities": st.fixed_dictionaries({"iotEdge": st.booleans()}),
        "tags": SECTIONS,
        "properties": st.fixed_dictionaries({"desired": SECTIONS, "reported": SECTIONS}),
    }
)


@given(TWINS, CONDITIONS)
def test_what_fits_is_among_what_a_plan_names(document: dict[str, Any], where: str) -> None:
    condition = read_query(f"SELECT * FROM devices WHERE {where}").where
    terms = set(of_twin(document["tags"], **document["properties"]) or ())
    if fits(condition, document):
        assert names(plan(condition), document, terms)
