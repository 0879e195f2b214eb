"""The pytest plugin: fixtures of a local cloud for IoT devices, and of what goes wrong there.

A server is started where a test first asks for one, once for each process: with pytest-xdist once for each worker.
Nothing is loaded before. How to use them: docs/howto/test-kit.md.
"""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from birthmark.testing.cloud import AwsThing, AzureDevice, ChipFiles, Cloud, EstDevice, KitDevice

_EXTRA = "the fixtures of birthmark need what `pip install 'birthmark[pytest]'` brings, and {} is missing"


class FaultyLine:
    """The line between devices and the server."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def cut(self) -> None:
        """End every connection by RST, and take no new one, until `mend`."""
        self._cloud.set_line("cut")

    def stall(self) -> None:
        """Let nothing move, in either direction, until `mend`: connections stay, and nobody is told."""
        self._cloud.set_line("stall")

    def drop(self, after_bytes: int = 0) -> None:
        """End every connection by RST once, at once or when devices sent so many bytes more; new ones are taken."""
        self._cloud.set_line("break", after_bytes)

    def mend(self) -> None:
        """Let all through again."""
        self._cloud.set_line("through")


class WrongClock:
    """Clocks that are off."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def __call__(self, by: str) -> None:
        """Put the server's clock off, until the end of the test: "+90d", "-1h", "0"."""
        self._cloud.set_clock(by)

    def device(self, by: str) -> dict[str, str]:
        """Return variables of a subprocess whose clock is off: "-2y". It takes Debian's package `faketime`."""
        from birthmark.testing.cloud import clock_of_a_device

        return clock_of_a_device(by)


class RootRollover:
    """The exchange of the CA's root, step by step; each returns how it stands."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def start(self) -> dict[str, Any]:
        """Make the new root: both are trusted, the old one signs."""
        return self._cloud.rollover("start")

    def next(self) -> dict[str, Any]:
        """Let the new root sign; and then be alone."""
        return self._cloud.rollover("next")

    def back(self) -> dict[str, Any]:
        """Take the last step back."""
        return self._cloud.rollover("back")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add what the server refused during a test to the report of its failure."""
    outcome = yield
    report = outcome.get_result()
    cloud = getattr(item, "funcargs", {}).get("birthmark_cloud")
    if report.failed and report.when != "teardown" and cloud is not None and (told := cloud.format_refusals()):
        report.sections.append(("Birthmark refused", told))


@pytest.fixture(scope="session")
def birthmark_config() -> str:
    """What the cloud's server is configured with, as TOML: nothing, until you give another fixture this name."""
    return ""


@pytest.fixture(scope="session")
def birthmark_server(birthmark_config: str, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cloud]":
    """The cloud of this process, as tests left it: for those who look after it themselves. See `birthmark_cloud`."""
    try:
        from birthmark.testing.cloud import Cloud
        from birthmark.testing.process import TestServer
    except ModuleNotFoundError as error:
        pytest.fail(_EXTRA.format(error.name), pytrace=False)
    if not isinstance(birthmark_config, str):
        pytest.fail(f"birthmark_config must return TOML as text, not {birthmark_config!r}", pytrace=False)
    file = tmp_path_factory.mktemp("birthmark") / "server.toml"
    file.write_text(birthmark_config)
    server = TestServer(file)
    server.start()
    yield Cloud(server)
    server.stop()


@pytest.fixture
def birthmark_cloud(birthmark_server: "Cloud", monkeypatch: pytest.MonkeyPatch) -> "Cloud":
    """A cloud that is as new, and this test's alone: DPS, IoT Hub, AWS IoT Core, EST and a CA.

    While the test runs, the environment of its process leads there, too: `PROVISIONING_HOST`, `AWS_ENDPOINT_URL_IOT`,
    `IOTHUB_CONNECTION_STRING`, `SSL_CERT_FILE` and the like.
    """
    birthmark_server.begin()
    for name, value in birthmark_server.variables.items():
        monkeypatch.setenv(name, value)
    for name in birthmark_server.UNSET:
        monkeypatch.delenv(name, raising=False)
    return birthmark_server


@pytest.fixture
def azure_device(birthmark_cloud: "Cloud") -> "AzureDevice":
    """A device that is enrolled at the provisioning service by its certificate, and did not register yet."""
    return birthmark_cloud.azure_device()


@pytest.fixture
def aws_thing(birthmark_cloud: "Cloud") -> "AwsThing":
    """A thing with an active certificate and a policy that allows everything."""
    return birthmark_cloud.aws_thing()


@pytest.fixture
def est_identity(birthmark_cloud: "Cloud") -> "EstDevice":
    """A device with a certificate that it got by EST."""
    return birthmark_cloud.est_identity()


@pytest.fixture
def chip(birthmark_cloud: "Cloud") -> "ChipFiles":
    """A software SE050, with its maker's certificate."""
    return birthmark_cloud.chip()


@pytest.fixture
def expired(birthmark_cloud: "Cloud") -> "Callable[[KitDevice | None], None]":
    """`expired(device)`: its certificate is over."""
    return birthmark_cloud.expire


@pytest.fixture
def revoked(birthmark_cloud: "Cloud") -> "Callable[[KitDevice | None], None]":
    """`revoked(device)`: everything of it is taken back."""
    return birthmark_cloud.revoke


@pytest.fixture
def refuse(birthmark_cloud: "Cloud") -> "Callable[..., None]":
    """`refuse("iothub.device_disabled", device)`: the server refuses it so from now on."""
    return birthmark_cloud.refuse


@pytest.fixture
def throttled(birthmark_cloud: "Cloud") -> "Callable[..., None]":
    """`throttled(lasts="30s", day=False)`: others use up what the tiers take for so long."""
    return birthmark_cloud.throttle


@pytest.fixture
def wrong_clock(birthmark_cloud: "Cloud") -> WrongClock:
    """`wrong_clock("+90d")`: the server's clock is off. `wrong_clock.device("-2y")` is for a subprocess."""
    return WrongClock(birthmark_cloud)


@pytest.fixture
def cut_line(birthmark_cloud: "Cloud") -> FaultyLine:
    """The line to the server, to `cut`, `stall`, `drop` and `mend`."""
    return FaultyLine(birthmark_cloud)


@pytest.fixture
def rollover(birthmark_cloud: "Cloud") -> RootRollover:
    """The exchange of the CA's root: `start`, `next`, `back`."""
    return RootRollover(birthmark_cloud)
