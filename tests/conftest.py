"""Fixtures shared by all tests. Real services are started on loopback and stopped at the end of the run."""

import gc
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from birthmark.store.schema_migration import VERSION, script_for
from support.server import scaled
from support.services.postgres import a_postgres, free_port

__all__ = ["free_port"]


# Other tests run beside them: how long an example takes says nothing. A run that failed fails again with the same
# examples; `--hypothesis-profile=random` looks for new ones.
for profile, is_repeatable in {"suite": True, "random": False}.items():
    hypothesis.settings.register_profile(
        profile, deadline=None, derandomize=is_repeatable, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
hypothesis.settings.load_profile("suite")

gc.disable()  # what is collected stays: to look through it took a third of the collection, and a sixth of the tests

# A shell has its jobs ignore Ctrl-C, and so would every program that a test starts, and presses it at.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST_FIRST = (
    "system/packages/",
    "system/test_soak",
    "system/fixes/",
    "system/test_tutorials",
    "system/test_demos",
    "system/",
    "conformance/",
    "integration/",
)
APART = ("system/test_tutorials", "system/test_demos", "system/test_soak")
"""Modules whose tests share nothing."""


class ByServer(LoadScopeScheduling):  # type: ignore[misc] # xdist's class has no types
    """Keeps what shares a server or packages in one worker; the long modules are cut, by room or test by test."""

    def _split_scope(self, nodeid: str) -> str:
        place, _, name = nodeid.removeprefix("tests/").partition("::")
        if place.startswith(APART):
            return name
        if place == "system/fixes/test_fixes.py":
            return f"fixes of {name.partition('[')[2].partition('.')[0]}"
        if place.startswith("system/packages/"):
            return "packages"  # each builds what the others need
        return place


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what takes long first; leave out what is about one process where servers have several workers."""
    for item in items:
        if (why := scaled.why_not(item.nodeid.removeprefix("tests/"))) is not None:
            item.add_marker(pytest.mark.skip(reason=why))
    items.sort(
        key=lambda item: next((n for n, begin in enumerate(LONGEST_FIRST) if place_of(item).startswith(begin)), 9)
    )


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def place_of(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of this run's own; yields the URL of its maintenance database."""
    with a_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database."""
    return empty_database(postgres_server)


def empty_database(postgres_server: str) -> str:
    """Make an empty database, and return its URL."""
    return _made(postgres_server, f"t{uuid.uuid4().hex}", "template1")


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a database with this version's schema, which others are copied from."""
    url = _made(postgres_server, "birthmark_schema", "template1")
    script = f"{VERSION};\n{script_for('postgresql', None)}"
    _psql(url, "--single-transaction", "--set=ON_ERROR_STOP=1", script=script)
    return "birthmark_schema"


def _made(postgres_server: str, name: str, template: str) -> str:
    _psql(postgres_server, "--command", f"CREATE DATABASE {name} TEMPLATE {template}")
    return postgres_server.rsplit("/", 1)[0] + f"/{name}"


def _psql(url: str, *options: str, script: str = "") -> None:
    subprocess.run(["psql", "--no-psqlrc", "--quiet", *options, url], check=True, input=script, text=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the server and the agent do."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of a test's own, in which nothing is yet, on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'birthmark.db'}"
    server, template = map(request.getfixturevalue, ("postgres_server", "postgres_template"))
    return _made(server, f"t{uuid.uuid4().hex}", template)


@pytest.fixture(scope="session", autouse=True)
def state_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands note for the user of this machine out of that user's files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
