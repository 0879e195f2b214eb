"""The checker of histories finds what breaks a promise, and nothing where all are kept."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kills.history import (
    Fault,
    Operation,
    Outcome,
    Seen,
    in_turn,
    of_grants,
    of_inboxes,
    of_messages,
    of_registers,
    of_sessions,
    of_steps,
    of_versions,
)

SENT = in_turn("abc")
UNKNOWN = replace(SENT[1], outcome=Outcome.UNKNOWN)
REFUSED = replace(SENT[1], outcome=Outcome.FAILED)


def seen(values: str) -> list[Seen]:
    return [Seen("pump", value, 10.0 + at) for at, value in enumerate(values)]


def faults(found: object) -> list[Fault]:
    return [one.fault for one in found]  # type: ignore[attr-defined] # any iterable of findings


@pytest.mark.parametrize(
    ("sent", "values", "expected"),
    [
        (SENT, "abc", []),
        (SENT, "ac", [Fault.LOST]),
        (SENT, "abcx", [Fault.INVENTED]),
        (SENT, "acb", [Fault.REORDERED]),
        (SENT, "aabc", [Fault.DOUBLED]),
        ([SENT[0], UNKNOWN, SENT[2]], "ac", []),
        ([SENT[0], UNKNOWN, SENT[2]], "abc", []),
        ([SENT[0], UNKNOWN, SENT[2]], "acb", []),  # what is unknown may happen later
        ([SENT[0], REFUSED, SENT[2]], "abc", [Fault.INVENTED]),
    ],
)
def test_of_messages(sent: list[Operation], values: str, expected: list[Fault]) -> None:
    assert faults(of_messages(sent, seen(values), is_once=True)) == expected


@pytest.mark.parametrize(
    ("written", "value", "expected"),
    [
        (SENT, "c", []),
        (SENT, "b", [Fault.LOST]),
        (SENT, None, [Fault.LOST]),
        (SENT, "x", [Fault.INVENTED]),
        ([], None, []),
        ([SENT[0], UNKNOWN], "a", []),
        ([SENT[0], UNKNOWN], "b", []),
        ([SENT[0], REFUSED], "b", [Fault.INVENTED]),
    ],
)
def test_of_registers(written: list[Operation], value: str | None, expected: list[Fault]) -> None:
    assert faults(of_registers(written, [Operation("pump", value, 99.0, 99.5)])) == expected


def test_those_that_were_under_way_together_have_no_order() -> None:
    together = [Operation("pump", value, 0.0, 5.0) for value in "abc"]
    assert not faults(of_messages(together, seen("cab")))


def test_a_message_to_a_device_may_come_again_until_it_is_settled() -> None:
    settled = [Operation("pump", "a", 10.2, 11.5)]
    assert not faults(of_inboxes(in_turn("a"), seen("aa"), settled))
    assert faults(of_inboxes(in_turn("a"), seen("aaa"), settled)) == [Fault.DOUBLED]


def test_a_message_to_a_device_that_waits_is_not_lost() -> None:
    assert not faults(of_inboxes(in_turn("ab"), seen("a"), [], [Seen("pump", "b", 99.0)]))
    assert faults(of_inboxes(in_turn("ab"), seen("a"), [])) == [Fault.LOST]


def versions(*numbers: int) -> list[Operation]:
    return [replace(one, version=number) for one, number in zip(in_turn("abc"), numbers, strict=False)]


@pytest.mark.parametrize(
    ("writes", "read", "expected"),
    [
        (versions(1, 2, 3), ("c", 3), []),
        (versions(1, 2, 2), ("c", 2), {Fault.LOST, Fault.GOES_BACK}),
        (versions(1, 2, 3), ("b", 2), [Fault.GOES_BACK]),
        (versions(1, 2, 3), ("x", 3), [Fault.LOST]),
        (versions(1, 3, 2), ("b", 3), [Fault.GOES_BACK]),
        (versions(1, 2), ("x", 4), [Fault.INVENTED]),
    ],
)
def test_of_versions(writes: list[Operation], read: tuple[str, int], expected: object) -> None:
    found = faults(of_versions(writes, [Operation("pump", read[0], 20.0, 21.0, version=read[1])]))
    assert set(found) == set(expected)  # type: ignore[call-overload] # a list or a set


@pytest.mark.parametrize(("version", "expected"), [(2, []), (3, []), (4, [Fault.SKIPPED])])
def test_each_write_makes_one_version_and_no_other_does(version: int, expected: list[Fault]) -> None:
    writes = [replace(one, version=number) for number, one in enumerate([SENT[0], UNKNOWN], 1)]
    reads = [Operation("pump", "b", 5.0, 6.0, version=version - 1)]
    assert faults(of_steps([*writes, REFUSED], reads)) == expected


def test_an_earlier_connection_is_not_served_after_a_later_one_has_the_session() -> None:
    taken = [Operation("pump", "first", 0.0, 1.0), Operation("pump", "second", 2.0, 3.0)]
    late, early = Operation("pump", "first", 3.5, 4.0), Operation("pump", "first", 2.5, 4.0)
    assert faults(of_sessions(taken, [late])) == [Fault.GRANTED]
    assert not faults(of_sessions(taken, [early]))
    assert not faults(of_sessions(taken, [Operation("pump", "second", 3.5, 4.0)]))
    assert not faults(of_sessions([taken[0], replace(taken[1], outcome=Outcome.UNKNOWN)], [late]))


def test_connections_that_came_together_may_have_it_in_either_order() -> None:
    taken = [Operation("pump", "first", 0.0, 3.0), Operation("pump", "second", 1.0, 2.0)]
    assert not faults(of_sessions(taken, [Operation("pump", "first", 4.0, 5.0)]))


def test_nothing_is_granted_that_began_after_a_right_was_taken() -> None:
    taken, use = Operation("pump", "revoke", 0.0, 1.0), Operation("pump", "publish", 2.0, 3.0)
    given = Operation("pump", "release", 1.5, 1.8)
    assert faults(of_grants([taken], [], [use])) == [Fault.GRANTED]
    assert not faults(of_grants([taken], [given], [use]))
    assert not faults(of_grants([taken], [], [replace(use, began=0.5)]))
    assert not faults(of_grants([replace(taken, outcome=Outcome.UNKNOWN)], [], [use]))
    assert not faults(of_grants([taken], [], [replace(use, outcome=Outcome.FAILED)]))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), st.sampled_from(Outcome)), max_size=30))
def test_a_server_that_does_each_thing_at_one_moment_has_no_fault(drawn: list[tuple[int, int, Outcome]]) -> None:
    """Each operation that happened, happened at a time of its own between its beginning and its end."""
    sent = [
        Operation("pump", number, float(began), float(began + length), outcome)
        for number, (began, length, outcome) in enumerate(drawn)
    ]
    happened = sorted(
        (one for one in sent if one.outcome is not Outcome.FAILED), key=lambda one: (one.ended, one.value)
    )
    writes = [replace(one, version=number) for number, one in enumerate(happened, 1)]
    assert not faults(of_messages(sent, [Seen("pump", one.value, one.ended) for one in happened], is_once=True))
    assert not faults(of_versions(writes, writes[-1:]))
