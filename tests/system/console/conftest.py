"""One Chromium and one server for the tests of a module, each test with browsers of its own."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from support.console.consoles import Place, a_chromium
from support.server.servers import a_server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with a_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def place(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("console")) as server:
        yield Place(server, chromium)
