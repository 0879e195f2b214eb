"""What fits a query, what is shown of it, and what is made of many."""

from typing import Any

import pytest

from birthmark.documents import query_evaluator
from birthmark.documents.queries import parse_query
from birthmark.documents.query_evaluator import GroupedRows, TooManyGroupsProblem, fits, row_of

TWIN: dict[str, Any] = {
    "deviceId": "pump-1",
    "statusReason": None,
    "tags": {"site": "north", "floor": 3, "on": True, "none": {}, "list": [1], "text": "a b"},
}


def holds(where: str) -> bool:
    return fits(parse_query(f"SELECT * FROM devices WHERE {where}").where, TWIN)


@pytest.mark.parametrize(
    "where",
    [
        "tags.site = 'north'",
        "tags.site < 'o'",
        "tags.floor = 3.0",
        "tags.on",
        "tags.on != false",
        "tags.site != 1",
        "statusReason = null",
        "tags.site != null",
        "is_null(statusReason)",
        "is_string(tags.site) AND is_number(tags.floor) AND is_bool(tags.on)",
        "is_object(tags.none) AND is_array(tags.list) AND is_primitive(tags.site)",
        "NOT is_primitive(tags.list)",
        "NOT is_defined(tags.absent)",
        "tags.site IN ['south', 'north']",
        "tags.site NIN ['south']",
        "contains(tags.text, ' ') AND ends_with(tags.text, 'b') AND starts_with(tags.text, 'a')",
        "tags.absent = 1 OR tags.on",
        "tags.site = tags.site",
    ],
)
def test_it_fits(where: str) -> None:
    assert holds(where)


@pytest.mark.parametrize(
    "where",
    [
        "tags.site = 'North'",
        "tags.absent = 1",
        "NOT tags.absent = 1",
        "tags.absent != 1",
        "tags.absent NIN [1]",
        "tags.site > 1",
        "NOT tags.site > 1",
        "tags.on = 1",
        "tags.floor = true",
        "tags.list = 1",
        "tags.none = null",
        "tags.site",
        "tags.on AND tags.absent",
        "starts_with(tags.floor, '3')",
    ],
)
def test_it_does_not_fit(where: str) -> None:
    assert not holds(where)


def test_a_row_leaves_out_what_a_document_does_not_have() -> None:
    query = parse_query("SELECT deviceId, tags.site AS place, tags.absent FROM devices")
    assert row_of(query, TWIN) == {"deviceId": "pump-1", "place": "north"}


def summed(text: str, *tags: dict[str, Any]) -> list[dict[str, Any]]:
    summing = GroupedRows(parse_query(text))
    for one in tags:
        summing.add({"tags": one})
    return summing.rows()


def test_many_documents_become_one_row() -> None:
    text = (
        "SELECT COUNT() AS n, COUNT(tags.x) AS has, SUM(tags.x) AS s, AVG(tags.x) AS a, MIN(tags.x) AS lo, "
        "MAX(tags.x) AS hi FROM devices"
    )
    assert summed(text, {"x": 1}, {"x": 4}, {"x": True}, {}) == [
        {"n": 4, "has": 3, "s": 5.0, "a": 2.5, "lo": 1, "hi": 4}
    ]
    assert summed(text) == [{"n": 0, "has": 0, "s": 0}]


def test_groups_are_of_equal_values_and_one_is_of_those_without() -> None:
    text = "SELECT tags.x AS x, COUNT() AS n FROM devices GROUP BY tags.x"
    assert summed(text, {"x": 1}, {"x": True}, {"x": 1.0}, {}, {"x": {"a": 1}}, {"x": {"a": 1}}) == [
        {"x": 1, "n": 2},
        {"x": True, "n": 1},
        {"n": 1},
        {"x": {"a": 1}, "n": 2},
    ]


def test_the_bytes_of_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_evaluator, "MAX_GROUP_BYTES", 1000)
    text = "SELECT COUNT() AS n FROM devices GROUP BY tags.x, tags.x, tags.x"
    assert summed(text, {"x": "a" * 900}) == [{"n": 1}], "a path that is repeated counts once"
    with pytest.raises(TooManyGroupsProblem):
        summed(text, {"x": "a" * 900}, {"x": "b" * 900})


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_evaluator, "MAX_GROUPS", 2)
    with pytest.raises(TooManyGroupsProblem):
        summed("SELECT COUNT() AS n FROM devices GROUP BY tags.x", *({"x": n} for n in range(3)))
