"""The test kit at a server that runs by itself, as a plant's or a container's does."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from birthmark.errors import BirthmarkError
from birthmark.testing.cloud import Cloud
from support.server.servers import RunningServer, a_server

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS:DeprecationWarning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("plant")) as running:
        yield running


@pytest.fixture(scope="module")
def birthmark_server(server: RunningServer) -> Cloud:
    return Cloud.at(server.data)


@pytest.fixture
def cloud(birthmark_cloud: Cloud) -> Cloud:
    return birthmark_cloud


def test_a_device_is_made_there_and_its_messages_are_seen(cloud: Cloud) -> None:
    device = cloud.azure_device()
    assert device.register().status == "assigned"
    client = device.client()
    client.connect()
    client.send_message("hello")
    client.shutdown()
    assert [message["body"] for message in device.messages(at_least=1)] == ["hello"]


def test_a_device_is_refused_there_as_asked(cloud: Cloud) -> None:
    device = cloud.azure_device()
    cloud.refuse("dps.enrollment_disabled", device)
    with pytest.raises(Exception, match="Credentials invalid"):
        device.register()
    assert device.why()["code"] == "dps.enrollment_disabled"


def test_what_two_runs_make_is_of_different_names(server: RunningServer) -> None:
    assert len({Cloud.at(server.data).aws_thing().name for _ in range(2)}) == 2


def test_what_two_runs_make_at_once_is_each_ones_own(cloud: Cloud) -> None:
    """As two workers of xdist do it."""
    runs = cloud, Cloud.at(cloud.data)
    devices = [run.azure_device() for run in runs for _ in range(2)]
    assert [device.register().status for device in devices] == ["assigned"] * 4
    assert len({run.chip().directory for run in runs}) == 2


def test_threads_ask_in_turn_there_too(cloud: Cloud) -> None:
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: cloud.azure_device(), range(60)))
    assert len({device.key_file for device in made}) == len({device.name for device in made}) == 60


def test_a_test_that_begins_leaves_there_what_others_made(cloud: Cloud) -> None:
    thing = cloud.aws_thing()
    cloud.begin()
    assert cloud.boto3().describe_thing(thingName=thing.name)["thingName"] == thing.name


WHOLE: dict[str, Callable[[Cloud], object]] = {
    "reset": lambda cloud: cloud.reset(),
    "clock": lambda cloud: cloud.set_clock("+90d"),
    "line": lambda cloud: cloud.set_line("cut"),
    "throttle": lambda cloud: cloud.throttle(),
    "messages": lambda cloud: cloud.published(),
    "the clock by a certificate": lambda cloud: cloud.expire(cloud.aws_thing()),
    "the tiers by a refusal": lambda cloud: cloud.refuse("dps.tier_throttled", cloud.azure_device()),
}


@pytest.mark.parametrize("change", WHOLE.values(), ids=WHOLE)
def test_what_would_change_it_for_all_is_refused(cloud: Cloud, change: Callable[[Cloud], object]) -> None:
    with pytest.raises(BirthmarkError) as refused:
        change(cloud)
    assert refused.value.code == "testing.runs_by_itself"
