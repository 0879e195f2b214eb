"""A server that is killed while devices change their hub and others are made in bulk: each is done once, none half."""

import gc
import random
from pathlib import Path

import pytest

from support.kills.registry_kills import keep_on
from support.server.servers import a_server

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_devices_that_move_or_are_made_in_bulk_while_the_server_is_killed_are_there_once(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        found = keep_on(server, 60, random.Random(25), kills=4)
    gc.collect()  # lines that a kill cut off, which the clients' libraries forgot to close, are told of here
    assert found["faults"] == []
