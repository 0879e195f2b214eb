"""A server that is killed while devices come to AWS for the first time: each is registered once, and none half."""

import gc
import random
from pathlib import Path

import pytest

from support.kills.first_contacts import come
from support.server.servers import a_server

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_devices_that_come_while_the_server_is_killed_are_registered_once(tmp_path: Path) -> None:
    devices = tmp_path / "devices"
    devices.mkdir()
    with a_server(tmp_path, is_warm=False) as server:
        found = come(server, devices, 12, random.Random(24), kills=4)
    gc.collect()  # lines that a kill cut off, which the clients' libraries forgot to close, are told of here
    assert found["faults"] == []
