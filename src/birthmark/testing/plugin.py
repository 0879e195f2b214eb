"""The pytest plugin: fixtures of a local cloud for IoT devices, and of its faults.

A server starts when a test first requests one, once per process: with pytest-xdist once per worker. Nothing is loaded
before. Usage: docs/howto/test-kit.md.
"""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from birthmark.testing.cloud import AwsThing, AzureDevice, ChipFiles, Cloud, EstDevice, KitDevice

_EXTRA = "the fixtures of birthmark require the packages of `pip install 'birthmark[pytest]'`, and {} is missing"


class FaultyLine:
    """The connection between devices and the server."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def cut(self) -> None:
        """Reset every connection, and accept no new ones, until `restore`."""
        self._cloud.set_line("cut")

    def stall(self) -> None:
        """Stop all traffic in both directions, until `restore`: connections stay open without an error."""
        self._cloud.set_line("stall")

    def drop(self, after_bytes: int = 0) -> None:
        """Reset every connection once, immediately or after `after_bytes` more bytes from devices.

        New connections are accepted.
        """
        self._cloud.set_line("break", after_bytes)

    def restore(self) -> None:
        """Restore the connection."""
        self._cloud.set_line("through")

    mend = restore
    """Former name of `restore`."""


class WrongClock:
    """Shifted clocks."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def __call__(self, by: str) -> None:
        """Shift the server's clock until the end of the test: "+90d", "-1h", "0"."""
        self._cloud.set_clock(by)

    def device(self, by: str) -> dict[str, str]:
        """Return variables for a subprocess with a shifted clock: "-2y". Requires Debian's package `faketime`."""
        from birthmark.testing.cloud import clock_of_a_device

        return clock_of_a_device(by)


class RootRollover:
    """The root rollover of the CA, step by step; each step returns its state."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud

    def start(self) -> dict[str, Any]:
        """Create the new root: both are trusted, and the old one signs."""
        return self._cloud.rollover("start")

    def next(self) -> dict[str, Any]:
        """Have the new root sign; at the next step, trust only the new root."""
        return self._cloud.rollover("next")

    def back(self) -> dict[str, Any]:
        """Undo the last step."""
        return self._cloud.rollover("back")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add the server's refusals during a test to the report of its failure."""
    outcome = yield
    report = outcome.get_result()
    cloud = getattr(item, "funcargs", {}).get("birthmark_cloud")
    if report.failed and report.when != "teardown" and cloud is not None and (told := cloud.format_refusals()):
        report.sections.append(("Birthmark refused", told))


@pytest.fixture(scope="session")
def birthmark_config() -> str:
    """Server configuration of the cloud as TOML: empty by default; override this fixture to change it."""
    return ""


@pytest.fixture(scope="session")
def birthmark_server(birthmark_config: str, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cloud]":
    """Return the cloud of this process without a reset, for tests that manage its state. See `birthmark_cloud`."""
    try:
        from birthmark.testing.cloud import Cloud
        from birthmark.testing.server_process import TestServer
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
    """Return a fresh cloud for this test only: DPS, IoT Hub, AWS IoT Core, EST and a CA.

    During the test, the environment of its process points to it, too: `PROVISIONING_HOST`, `AWS_ENDPOINT_URL_IOT`,
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
    """Return a device that is enrolled at the provisioning service with its certificate, and not yet registered."""
    return birthmark_cloud.azure_device()


@pytest.fixture
def aws_thing(birthmark_cloud: "Cloud") -> "AwsThing":
    """Return a thing with an active certificate and a policy that allows everything."""
    return birthmark_cloud.aws_thing()


@pytest.fixture
def est_identity(birthmark_cloud: "Cloud") -> "EstDevice":
    """Return a device with a certificate issued over EST."""
    return birthmark_cloud.est_identity()


@pytest.fixture
def event_hub_reader(birthmark_cloud: "Cloud") -> "Iterator[Any]":
    """Return azure-eventhub's `EventHubConsumerClient` of the hub's telemetry."""
    reader = birthmark_cloud.event_hub_reader()
    yield reader
    reader.close()


@pytest.fixture
def chip(birthmark_cloud: "Cloud") -> "ChipFiles":
    """Return a simulated SE050 with its manufacturer's certificate."""
    return birthmark_cloud.chip()


@pytest.fixture
def expired(birthmark_cloud: "Cloud") -> "Callable[[KitDevice | None], None]":
    """`expired(device)`: make its certificate expire."""
    return birthmark_cloud.expire


@pytest.fixture
def revoked(birthmark_cloud: "Cloud") -> "Callable[[KitDevice | None], None]":
    """`revoked(device)`: revoke all its credentials."""
    return birthmark_cloud.revoke


@pytest.fixture
def refuse(birthmark_cloud: "Cloud") -> "Callable[..., None]":
    """`refuse("iothub.device_disabled", device)`: have the server refuse it from now on."""
    return birthmark_cloud.refuse


@pytest.fixture
def throttled(birthmark_cloud: "Cloud") -> "Callable[..., None]":
    """`throttled(lasts="30s", day=False)`: consume the quotas of the tiers for this time."""
    return birthmark_cloud.throttle


@pytest.fixture
def wrong_clock(birthmark_cloud: "Cloud") -> WrongClock:
    """`wrong_clock("+90d")`: shift the server's clock. `wrong_clock.device("-2y")` is for a subprocess."""
    return WrongClock(birthmark_cloud)


@pytest.fixture
def cut_line(birthmark_cloud: "Cloud") -> FaultyLine:
    """Return the connection to the server, with `cut`, `stall`, `drop` and `restore`."""
    return FaultyLine(birthmark_cloud)


@pytest.fixture
def rollover(birthmark_cloud: "Cloud") -> RootRollover:
    """Return the root rollover of the CA: `start`, `next`, `back`."""
    return RootRollover(birthmark_cloud)
