"""A server for each test of what a hub has in all, where servers have several workers: those have no reset."""

from collections.abc import Iterator
from typing import Literal

import pytest

from birthmark.testing.cloud import Cloud
from support.server.scaled import WORKERS
from support.server.servers import RunningServer, a_new_server


def _scope(fixture_name: str, config: pytest.Config) -> Literal["function", "module"]:
    del fixture_name, config
    return "function" if WORKERS > 1 else "module"


@pytest.fixture(scope=_scope)
def server(birthmark_config: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server"), birthmark_config) as running:
        yield running


@pytest.fixture(scope=_scope)
def birthmark_server(server: RunningServer) -> Cloud:
    return server.cloud
