"""The cloud of every conformance test is the test kit's: as new for each file, and for each test of `birthmark_cloud`.

What the kit cannot give has `birthmark serve` of its own, by the mark `serve` or by `servers.a_server`: a server to
stop, to kill or to look into, one of several workers, on another database, or at an address that its certificates name.
"""

import contextlib
from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from support.server.servers import RunningServer, a_new_server, a_server
from support.services.postgres import a_postgres


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    """What the server is configured with, as the kit has it, but of a file."""
    return ""


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, birthmark_config: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The kit's server, with the commands of its operator."""
    directory, serve = tmp_path_factory.mktemp("server"), request.node.get_closest_marker("serve")
    with contextlib.ExitStack() as stack:
        if serve is None:
            yield stack.enter_context(a_new_server(directory, birthmark_config))
            return
        if workers := serve.kwargs.get("workers"):
            database = stack.enter_context(a_postgres())
            birthmark_config = f'database = "{database}"\nworkers = {workers}\n{birthmark_config}'
        yield stack.enter_context(a_server(directory, birthmark_config, is_warm=False))


@pytest.fixture(scope="module")
def birthmark_server(server: RunningServer) -> Cloud:
    return server.cloud


@pytest.fixture
def cloud(birthmark_server: Cloud) -> Cloud:
    """The file's cloud, as its other tests left it."""
    return birthmark_server
