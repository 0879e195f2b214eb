"""The latest rows of several chains are the latest of all, by their time."""

from typing import Any

from birthmark.cli.server_audit import LatestRows


def row(chain: str, minute: int) -> dict[str, Any]:
    return {"chain": chain, "at": f"2026-01-01T00:{minute:02}:00+00:00", "minute": minute}


def test_rows_of_chains_that_come_one_after_the_other_are_listed_by_their_time() -> None:
    latest = LatestRows(3)
    for one in (row("w1", 1), row("w1", 4), row("w2", 2), row("w2", 3), row("w2", 5)):
        latest.add(one)
    assert [one["minute"] for one in latest.rows()] == [3, 4, 5]


def test_what_one_chain_says_stays_in_its_order_though_its_clock_went_back() -> None:
    latest = LatestRows(3)
    for one in (row("w1", 4), row("w1", 1)):
        latest.add(one)
    assert [one["minute"] for one in latest.rows()] == [4, 1]
