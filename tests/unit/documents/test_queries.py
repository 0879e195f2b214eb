"""The query language: what is read, and where and why what cannot be read is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents.queries import (
    MAX_CHARS,
    MAX_CONDITIONS,
    MAX_LEVELS,
    MAX_VALUES,
    Alternative,
    Comparison,
    Condition,
    Conjunction,
    Contains,
    FieldPath,
    InSet,
    Negation,
    Operator,
    PathPart,
    QueryKind,
    QueryProblem,
    SelectedField,
    Sum,
    TypeCheck,
    Value,
    parse_query,
    paths_of,
    with_paths,
)


def where(text: str) -> Condition | None:
    return parse_query(f"SELECT * FROM devices WHERE {text}").where


def problem(text: str) -> str:
    with pytest.raises(QueryProblem) as caught:
        parse_query(text)
    return str(caught.value)


SITE, LOAD = FieldPath(("tags", "site")), FieldPath(("properties", "reported", "load"))


def test_a_query_selects_whole_documents_of_a_collection() -> None:
    query = parse_query("select * from Devices")
    assert (query.collection, query.where, query.items, query.group_by, query.top) == ("devices", None, (), (), None)


def test_keywords_have_no_case_and_a_semicolon_may_end_it() -> None:
    assert parse_query("SeLeCt ToP 7 * fRoM devices wHeRe status = 'on' ;").top == 7


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("tags.site = 'north'", Comparison(SITE, Operator.SAME, Value("north"))),
        ("tags.site <> 'north'", Comparison(SITE, Operator.OTHER, Value("north"))),
        ("properties.reported.load >= -1.5e1", Comparison(LOAD, Operator.FROM, Value(-15.0))),
        ("3 < properties.reported.load", Comparison(LOAD, Operator.ABOVE, Value(3.0))),
        ("tags.site = 0xff", Comparison(SITE, Operator.SAME, Value(255.0))),
        ("tags.site IN ['a', 1, true, null]", InSet(SITE, ("a", 1.0, True, None))),
        ("tags.site NIN ('a')", Negation(InSet(SITE, ("a",)))),
        ("IS_DEFINED(tags.site)", TypeCheck(QueryKind.DEFINED, SITE)),
        ("startswith(tags.site, 'n')", Contains(PathPart.BEGINS, SITE, Value("n"))),
        ("tags.site", SITE),
        ("NOT tags.site", Negation(SITE)),
    ],
)
def test_a_condition_is_read(text: str, condition: Condition) -> None:
    assert where(text) == condition


def test_and_binds_more_tightly_than_or_and_parentheses_more_than_both() -> None:
    a, b, c = (FieldPath((name,)) for name in "abc")
    assert where("a OR b AND c") == Alternative((a, Conjunction((b, c))))
    assert where("(a OR b) AND c") == Conjunction((Alternative((a, b)), c))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        (r"'it\'s'", "it's"),
        ('"two ""words"""', 'two "words"'),
        (r"'\u00e9 \\ \"'", 'é \\ "'),
        ("'a \"\" b'", 'a "" b'),
        ("''", ""),
    ],
)
def test_a_quote_is_doubled_or_escaped(text: str, value: str) -> None:
    assert where(f"tags.site = {text}") == Comparison(SITE, Operator.SAME, Value(value))


@pytest.mark.parametrize("text", ["tags.[[two words]].x", "tags[[two words]].x", "tags['two words'].x"])
def test_a_name_that_is_no_plain_word_stands_in_brackets(text: str) -> None:
    assert where(text) == FieldPath(("tags", "two words", "x"))


def test_a_name_may_be_a_keyword_after_a_dot_and_begin_with_a_digit_or_a_dollar() -> None:
    assert where("tags.from.2nd = 1") == Comparison(FieldPath(("tags", "from", "2nd")), Operator.SAME, Value(1.0))
    assert where("properties.reported.$version > 1") == Comparison(
        FieldPath(("properties", "reported", "$version")), Operator.ABOVE, Value(1.0)
    )


def test_rows_show_paths_under_their_last_names_or_others() -> None:
    query = parse_query("SELECT deviceId, tags.site AS place, COUNT(), AVG(properties.reported.load) AS mean "
                        "FROM devices GROUP BY deviceId, tags.site")  # fmt: skip
    assert query.items == (
        SelectedField("deviceId", FieldPath(("deviceId",))),
        SelectedField("place", SITE),
        SelectedField("$1", None, Sum.COUNT),
        SelectedField("mean", LOAD, Sum.AVERAGE),
    )
    assert query.is_summed


def test_names_of_functions_are_names_where_they_are_not_called() -> None:
    assert where("count = 1") == Comparison(FieldPath(("count",)), Operator.SAME, Value(1.0))
    assert parse_query("SELECT [[top]] FROM devices").items == (SelectedField("top", FieldPath(("top",))),)


def test_paths_are_told_and_exchanged_everywhere() -> None:
    query = parse_query(
        "SELECT a AS x, MAX(b) AS y FROM devices WHERE (c = 1 OR NOT d IN [2]) AND is_null(e) GROUP BY a"
    )
    assert [str(path) for path in paths_of(query)] == ["c", "d", "e", "a", "b", "a"]
    other = with_paths(query, lambda path: FieldPath((path.steps[0].upper(),)))
    assert [str(path) for path in paths_of(other)] == ["C", "D", "E", "A", "B", "A"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at position 1 SELECT is expected, but the text ends"),
        ("SELECT", "at position 7 a name is expected, but the text ends"),
        ("SELECT * FROM", "at position 14 a collection such as devices is expected, but the text ends"),
        ("SELECT * FROM devices WHERE", "at position 28 a name or a value is expected, but the text ends"),
        ("SELECT * FROM devices WHERE tags.site = 'x", 'at position 41 a name or a value is expected, not "\'x"'),
        ("SELECT * FROM devices WHERE tags.site LIKE 'x'", "at position 39 AND, OR, GROUP BY or the end is expected"),
        ("SELECT * FROM devices WHERE abs(tags.n) = 1", "a supported function (is_defined,"),
        ("SELECT * FROM devices WHERE (tags.site = 'x'", "at position 45 ) is expected, but the text ends"),
        ("SELECT * FROM devices WHERE 'x'", "a comparison is expected"),
        (
            "SELECT * FROM devices ORDER BY deviceId",
            "at position 23 WHERE, GROUP BY or the end is expected, not 'ORDER",
        ),
        ("SELECT TOP 0 * FROM devices", "at position 12 a number of rows from 1 to"),
        ("SELECT a, b.a FROM devices", "two items of the list have the name 'a'"),
        ("SELECT a, COUNT() FROM devices", "GROUP BY a is missing"),
        ("SELECT * FROM devices GROUP BY a", "selects *"),
        ("SELECT * FROM devices WHERE a = 1e999", "the number is too large"),
        (r"SELECT * FROM devices WHERE a = 'x\q'", r"one of \' \" \\ \uXXXX is expected"),
        ("SELECT * FROM devices WHERE a = '\0'", "at position 34 the text contains a NUL"),
        (r"SELECT * FROM devices WHERE a = '\ud800'", "an unpaired surrogate"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, said: str) -> None:
    assert said in problem(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM devices WHERE " + "(" * (MAX_LEVELS + 1),
        "SELECT * FROM devices WHERE " + "NOT " * (MAX_LEVELS + 1) + "a",
        "SELECT * FROM devices WHERE " + " OR ".join(["a"] * (MAX_CONDITIONS + 1)),
        "SELECT * FROM devices WHERE a IN [" + ",".join("1" * (MAX_VALUES + 1)) + "]",
        "SELECT " + ",".join(f"a{n}" for n in range(30)) + " FROM devices",
        "SELECT * FROM devices WHERE " + ".".join("a" * 40) + " = 1",
        "SELECT * FROM devices WHERE a = '" + "x" * MAX_CHARS + "'",
    ],
)
def test_a_text_is_bounded(text: str) -> None:
    with pytest.raises(QueryProblem):
        parse_query(text)


MANY = (
    "SELECT * FROM devices WHERE a.b = 'x' AND OR NOT IN NIN [ ] ( ) , . 1 2.5 COUNT TOP AS GROUP BY [[ ]] ' \" \\ <>"
)
WORDS = st.sampled_from([*MANY.split(), "is_defined(", "tags.site", "<=", "null", "true", ";"])


@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_a_query_or_a_problem(text: str) -> None:
    try:
        parse_query(text)
    except QueryProblem as told:
        assert 1 <= told.position <= len(text) + 1
