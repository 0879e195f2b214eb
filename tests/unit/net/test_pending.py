"""Who goes when too many handshakes are not finished."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.net.listener import PendingHandshakes

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from("abcd")), max_size=200)


@given(STEPS)
def test_it_is_always_the_oldest_of_an_address_that_has_most(steps: list[tuple[bool, int, str]]) -> None:
    pending, of = PendingHandshakes[int](), dict[str, list[int]]()
    for is_new, holder, address in steps:
        if is_new and holder not in pending:
            pending.add(holder, address)
            of.setdefault(address, []).append(holder)
        elif not is_new:
            pending.remove(holder)
            of = {one: left for one, held in of.items() if (left := [h for h in held if h != holder])}
        assert len(pending) == sum(map(len, of.values()))
        if of:
            most = max(map(len, of.values()))
            assert pending.find_eviction_candidate() in {held[0] for held in of.values() if len(held) == most}
