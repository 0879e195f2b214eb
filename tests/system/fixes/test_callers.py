"""A fix has the command of whoever asked, also where several commands meet one refusal."""

from collections.abc import Iterator

import pytest
from fixes.scene import Scene, a_scene

from support.server.servers import a_server

pytestmark = pytest.mark.system
CONFIG = "[outbound]\nallow = ['127.0.0.0/8']\n"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("callers")
    with a_server(directory, CONFIG) as server:
        yield a_scene(directory, server)


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "file:///etc/passwd", "\u201chttps://hooks.example.com/\u201d"])
@pytest.mark.parametrize("asked", ["hub endpoint create wh --webhook", "webhook create wh"])
def test_a_url_that_is_not_called_is_told_with_the_command_that_was_typed(scene: Scene, asked: str, url: str) -> None:
    done = scene.type(f"birthmark {asked} '{url}'")
    assert done.returncode != 0
    assert f"birthmark {asked} https://hooks.example.com/birthmark" in " ".join(done.stderr.split())
