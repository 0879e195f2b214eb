"""Which rows of a list are shown."""

from typing import Any

import pytest
import typer

from birthmark.cli.options.row_filter import ColumnUnknownError, PickOptions, parse_wanted

ROWS: list[dict[str, Any]] = [
    {"name": "pump-1", "state": "enabled", "edge": True, "not_after": None},
    {"name": "pump-2", "state": "disabled", "edge": False, "not_after": "2027"},
    {"name": "valve-1", "state": "enabled", "edge": False, "not_after": None},
]


def names(*where: str, limit: int | None = None, rows: list[dict[str, Any]] = ROWS) -> list[str]:
    return [row["name"] for row in PickOptions([parse_wanted(one) for one in where], limit).filter_rows(rows)]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ([], ["pump-1", "pump-2", "valve-1"]),
        (["state=enabled"], ["pump-1", "valve-1"]),
        (["name=pump-*", "state=enabled"], ["pump-1"]),
        (["edge=yes"], ["pump-1"]),
        (["not after=-"], ["pump-1", "valve-1"]),
        (["state=ENABLED"], []),
    ],
)
def test_a_row_is_shown_where_each_column_is_as_the_table_would_say(where: list[str], found: list[str]) -> None:
    assert names(*where) == found


def test_at_most_so_many_are_shown_of_those_that_are_wanted() -> None:
    assert names("state=enabled", limit=1) == ["pump-1"]


def test_a_column_that_no_row_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(ColumnUnknownError) as refused:
        names("shape=enabled")
    assert "the columns are name, state, edge, not_after" in refused.value.explain_cause()


def test_of_nothing_nothing_is_wanted() -> None:
    assert names("any=thing", rows=[]) == []


@pytest.mark.parametrize("text", ["state", "=x", ""])
def test_what_names_no_column_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="COLUMN=PATTERN"):
        parse_wanted(text)


def test_rows_come_one_by_one() -> None:
    asked: list[str] = []

    def rows() -> Any:
        for row in ROWS:
            asked.append(row["name"])
            yield row

    assert [row["name"] for row in PickOptions(limit=1).filter_rows(rows())] == ["pump-1"]
    assert asked == ["pump-1"]
