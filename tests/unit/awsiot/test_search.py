"""Search queries are read as they are written; what is none is refused by name."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.model import Shadow, Thing, ThingName
from birthmark.awsiot.rules import index_terms
from birthmark.awsiot.wire.index_query import (
    AllTerms,
    AnyTerm,
    FieldEquals,
    FieldRange,
    MatchAll,
    NoTerm,
    Query,
    QueryInvalidError,
    SearchIndex,
    leaves,
    number_of,
    parse_query,
)
from birthmark.documents import DocumentSection
from birthmark.documents.query_evaluator import ordered
from support.fakes import FakeClock

A, B, C = FieldEquals("attributes.a", "1"), FieldEquals("attributes.b", "2"), FieldEquals("thingName", "x", begins=True)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("*", MatchAll()),
        ("pump", FieldEquals("", "pump")),
        ("pump*", FieldEquals("", "pump", begins=True)),
        ('"two words"', FieldEquals("", "two words")),
        ("thingName:x*", C),
        ("thingName:*", FieldEquals("thingName", "", begins=True)),
        ("attributes.a:1", A),
        ('attributes.a:"a \\"b\\" c"', FieldEquals("attributes.a", 'a "b" c')),
        ("attributes.a:b\\*c", FieldEquals("attributes.a", "b*c")),
        ("attributes.at:12:30:00", FieldEquals("attributes.at", "12:30:00")),
        ("attributes.a:1 attributes.b:2", AllTerms((A, B))),
        ("attributes.a:1 AND attributes.b:2", AllTerms((A, B))),
        ("attributes.a:1 OR attributes.b:2 AND thingName:x*", AnyTerm((A, AllTerms((B, C))))),
        ("(attributes.a:1 OR attributes.b:2) thingName:x*", AllTerms((AnyTerm((A, B)), C))),
        ("NOT attributes.a:1", NoTerm(A)),
        ("NOT NOT attributes.a:1", NoTerm(NoTerm(A))),
        ("attributes.a:1 AND NOT (attributes.b:2)", AllTerms((A, NoTerm(B)))),
        ("attributes.a:[1 TO 9]", FieldRange("attributes.a", "1", "9")),
        ("attributes.a:{1 TO 9]", FieldRange("attributes.a", "1", "9", False, True)),
        ("attributes.a:[* TO 9}", FieldRange("attributes.a", None, "9", True, False)),
        ("attributes.a > 4", FieldRange("attributes.a", "4", None, False, False)),
        ("attributes.a:>=4", FieldRange("attributes.a", "4", None)),
        ("attributes.a < 4", FieldRange("attributes.a", None, "4", False, False)),
        ("shadow.name.lamp.reported.on:true", FieldEquals("shadow.name.lamp.reported.on", "true")),
        ("shadow.desired.a.b:1", FieldEquals("shadow.desired.a.b", "1")),
        ("connectivity.connected:false", FieldEquals("connectivity.connected", "false")),
    ],
)
def test_a_query_is_read(text: str, query: Query) -> None:
    assert parse_query(text) == query


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "AND",
        "a AND",
        "a OR",
        "OR a",
        "NOT",
        "(a",
        "a)",
        "()",
        '"open',
        "thingName:",
        "thingName:(a)",
        "nothing.like.it:1",
        "thingName > ",
        "attributes.a:[1 TO]",
        "attributes.a:[1 9]",
        "attributes.a:[1 TO 9",
        "a*b",
        "*a",
        "a?",
        "thingName:a*b",
        "thingGroupName:g",
        "a" * 1001,
        " ".join(["a"] * 33),
        "(" * 11 + "a" + ")" * 11,
        "NOT " * 11 + "a",
        "a\0b",
    ],
)
def test_what_is_no_query_is_refused_by_name(text: str) -> None:
    with pytest.raises(QueryInvalidError):
        parse_query(text)


def test_groups_have_other_fields() -> None:
    assert parse_query("thingGroupName:g", SearchIndex.GROUPS) == FieldEquals("thingGroupName", "g")
    assert parse_query("description:d", SearchIndex.GROUPS) == FieldEquals("thingGroupDescription", "d")
    with pytest.raises(QueryInvalidError):
        parse_query("thingName:g", SearchIndex.GROUPS)


@given(st.text(alphabet=string.printable, max_size=60))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        found = parse_query(text)
    except QueryInvalidError:
        return
    assert list(leaves(found))


WORDS = st.text(alphabet=string.ascii_letters + string.digits + "-_.", min_size=1, max_size=9).filter(
    lambda text: text not in {"AND", "OR", "NOT"}
)
LEAVES = st.one_of(
    st.builds(
        lambda name, value, begins: FieldEquals(f"attributes.{name}", value, begins), WORDS, WORDS, st.booleans()
    ),
    st.builds(lambda name, low, high: FieldRange(f"attributes.{name}", low, high), WORDS, WORDS, WORDS),
)
QUERIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(NoTerm, inner),
        st.builds(lambda parts: AllTerms(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda parts: AnyTerm(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def written(query: Query) -> str:
    match query:
        case FieldEquals(field=name, value=value, begins=begins):
            return f"{name}:{value}{'*' if begins else ''}"
        case FieldRange(field=name, low=low, high=high):
            return f"{name}:[{low} TO {high}]"
        case NoTerm(one=one):
            return f"NOT ({written(one)})"
        case AllTerms(parts=parts):
            return " AND ".join(f"({written(part)})" for part in parts)
        case AnyTerm(parts=parts):
            return " OR ".join(f"({written(part)})" for part in parts)
        case MatchAll():
            return "*"


@given(QUERIES)
def test_what_is_written_is_read_again(query: Query) -> None:
    try:
        found = parse_query(written(query))
    except QueryInvalidError as error:
        assert "more than" in str(error)
    else:
        assert found == query


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=9))
def test_numbers_are_in_the_order_of_their_integers(numbers: list[float]) -> None:
    assert sorted(numbers) == sorted(numbers, key=ordered)
    assert all(-(2**63) <= ordered(number) < 2**63 for number in numbers)


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("-2.5e3", -2500.0), (".5", 0.5), ("1e999", None)])
def test_a_number_is_told_from_text(text: str, number: float | None) -> None:
    assert number_of(text) == number
    assert number_of(text + "x") is None


def test_a_thing_and_its_shadow_become_terms() -> None:
    thing = Thing(ThingName("t"), "id", "pump", {"site": "7"}, None, 3, FakeClock().now())
    found = index_terms.of_thing(thing)
    assert ("attributes.site", "7") in found
    assert ("*registry", "pump") in found
    assert len(found) == len({*found})
    section = DocumentSection({"a": {"b": [1, True, None]}, "c": "x" * 300}, {}, 1)
    told = dict(index_terms.of_shadow(Shadow("t", "lamp", DocumentSection(), section, 4)))
    assert told["shadow.name.lamp.reported.a.b"] == "true"
    assert told["shadow.name.lamp.reported.c"] == "x" * 256
    assert told["shadow.name.lamp.hasDelta"] == "false"
    assert index_terms.of_shadow(Shadow("t", is_deleted=True)) == ()


def test_no_shadow_has_more_terms_than_are_kept() -> None:
    section = DocumentSection({f"k{number}": number for number in range(2000)}, {}, 1)
    assert len(index_terms.of_shadow(Shadow("t", "", section, section, 4))) == index_terms.MAX_OF_SHADOW
