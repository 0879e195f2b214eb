"""docs/reference/agent-config.md names every key that the reader knows."""

import re
from pathlib import Path

import birthmark.agent.config
from birthmark.agent.config import parse

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "agent-config.md").read_text()
KEY = re.compile(r"""(?:take|take_key|table|need|need_table|_span)\([^)]*?"(\w+)\"""")
PAIR = re.compile(r"""take_pair\(\w+, "(\w+)", "(\w+)\"""")


def keys() -> set[str]:
    room = Path(birthmark.agent.config.__file__).parent
    sources = [path.read_text() for path in room.glob("*.py")]
    found = {key for text in sources for key in KEY.findall(text)}
    return found | {key for text in sources for pair in PAIR.findall(text) for key in pair}


def test_every_key_that_is_read_is_on_the_page() -> None:
    assert len(keys()) > 35
    missing = {key for key in keys() if not re.search(rf"(?<![a-z_]){key}(?![a-z_])", PAGE)}
    assert not missing


def test_every_key_that_is_ignored_is_on_the_page() -> None:
    assert not {key for key in parse._IGNORED if f"`{key}`" not in PAGE}
