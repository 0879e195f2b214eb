"""A server that is killed while devices ask their hub for certificates: none is without one, none has two of a key."""

import gc
import random
from pathlib import Path

import pytest

from support.kills.reissue_kills import keep_on
from support.server.servers import a_server

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_devices_that_renew_by_their_hub_while_the_server_is_killed_stay_known(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        found = keep_on(server, 6, random.Random(25), tmp_path, kills=4)
    gc.collect()  # lines that a kill cut off, which the clients' libraries forgot to close, are told of here
    assert found["faults"] == []
    assert found["renewals"] > 6
