"""A rollout to a swarm while its server is killed; the whole of it is `scripts/soak rollout`."""

import random
from pathlib import Path

import pytest

from support.kills.rollout_kills import keep_on
from support.server.servers import a_server

pytestmark = pytest.mark.system


def test_every_execution_ends_once_and_nothing_is_told_twice_though_the_server_is_killed(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        found = keep_on(server, 100, random.Random(3), tmp_path, kills=3)
    assert found["faults"] == []
    assert sum(found["ends"].values()) == 100
