"""What one worker takes of what all of them together may take."""

import pytest

from birthmark.net.listener_limits import Limits
from birthmark.server.connection_descriptor_budget import shared_by


def test_one_alone_takes_all() -> None:
    assert shared_by(Limits(), 1) == Limits()


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_several_share_what_is_bounded_as_a_whole_and_lose_nothing_of_it(workers: int) -> None:
    whole, one = Limits(), shared_by(Limits(), workers)
    assert whole.max_connections <= workers * one.max_connections < whole.max_connections + workers
    assert (
        whole.max_unauthenticated_bytes
        <= workers * one.max_unauthenticated_bytes
        < whole.max_unauthenticated_bytes + workers
    )


def test_what_one_peer_may_take_stays() -> None:
    assert shared_by(Limits(), 4).max_unauthenticated_per_peer == Limits().max_unauthenticated_per_peer
    assert shared_by(Limits(), 4).max_connections_per_key == Limits().max_connections_per_key
