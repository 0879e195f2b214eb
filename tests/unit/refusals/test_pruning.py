"""Which refusals leave."""

from birthmark.refusals.ledger import select_surplus


def test_what_is_too_old_leaves() -> None:
    assert select_surplus([("old", 1, "a"), ("new", 9, "a")], before=5, kept=10, of_one=10) == ["old"]


def test_nobody_has_more_than_a_share_of_rows() -> None:
    rows = [(f"{number}", number, "a") for number in range(5)]
    assert sorted(select_surplus(rows, before=0, kept=10, of_one=3)) == ["0", "1"]


def test_who_has_most_loses_its_oldest_first() -> None:
    loud = [(f"loud-{number}", 10 + number, "a") for number in range(6)]
    quiet = [("quiet", 1, "b")]
    assert sorted(select_surplus([*loud, *quiet], before=0, kept=4, of_one=10)) == ["loud-0", "loud-1", "loud-2"]


def test_of_rows_of_one_moment_some_stay() -> None:
    rows = [(f"{number}", 5, f"{number}") for number in range(4)]
    assert len(select_surplus(rows, before=0, kept=2, of_one=1)) == 2
