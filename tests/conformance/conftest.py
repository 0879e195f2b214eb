"""The cloud of every conformance test is the test kit's: as new for each file, and for each test of `birthmark_cloud`.

What the kit cannot give has `birthmark serve` of its own, by the mark `serve` or `servers.a_server`: a server to stop,
to kill, or to look into, one of several workers, on another database, or behind other servers.
"""

from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from servers import RunningServer, a_new_server, a_server


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    """What the server is configured with, as the kit has it, but of a file."""
    return ""


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, birthmark_config: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The kit's server, with the commands of its operator."""
    directory = tmp_path_factory.mktemp("server")
    if request.node.get_closest_marker("serve") is None:
        made = a_new_server(directory, birthmark_config)
    else:
        made = a_server(directory, birthmark_config, is_warm=False)
    with made as running:
        yield running


@pytest.fixture(scope="module")
def birthmark_server(server: RunningServer) -> Cloud:
    return server.cloud


@pytest.fixture
def cloud(birthmark_server: Cloud) -> Cloud:
    """The file's cloud, as its other tests left it."""
    return birthmark_server
