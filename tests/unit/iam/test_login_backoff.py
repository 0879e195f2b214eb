"""How long whoever guessed waits."""

from birthmark.iam.login_backoff import Pauses


def guessed(pauses: Pauses, times: int, who: str = "anna", now: float = 0.0) -> None:
    for _ in range(times):
        pauses.failed(who, now)


def test_some_tries_are_free_and_each_pause_is_twice_the_one_before() -> None:
    pauses = Pauses(3)
    waits = []
    for _ in range(6):
        pauses.failed("anna", 0.0)
        waits.append(pauses.wait_s("anna", 0.0))
    assert waits == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0]


def test_a_pause_ends_and_is_never_longer_than_the_longest() -> None:
    pauses = Pauses(1, longest_s=60.0)
    guessed(pauses, 500)
    assert pauses.wait_s("anna", 0.0) == 60.0
    assert pauses.wait_s("anna", 60.0) == 0.0


def test_who_waited_an_hour_begins_anew_and_so_does_who_was_right() -> None:
    pauses = Pauses(1)
    guessed(pauses, 3)
    assert pauses.tries("anna", 3700.0) == 0
    guessed(pauses, 3)
    pauses.passed("anna")
    assert pauses.wait_s("anna", 0.0) == 0.0


def test_the_least_recent_are_forgotten_so_that_memory_is_bounded() -> None:
    pauses = Pauses(1, most=3)
    for who in ("anna", "bert", "anna", "carl", "dora"):
        pauses.failed(who, 0.0)
    assert [pauses.tries(who, 0.0) for who in ("anna", "bert", "carl", "dora")] == [2, 0, 1, 1]
