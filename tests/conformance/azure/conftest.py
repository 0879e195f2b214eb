from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from servers import RunningServer, a_new_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all Azure tests; each uses device names of its own."""
    with a_new_server(tmp_path_factory.mktemp("azure")) as running:
        yield running


@pytest.fixture
def cloud(server: RunningServer) -> Cloud:
    """The same, as the test kit has it."""
    return server.cloud
