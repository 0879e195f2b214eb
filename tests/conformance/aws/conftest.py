"""A running server, its AWS account by the real boto3, and things with a key in a file."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aws_device import Enrolled, document
from birthmark.testing.cloud import Cloud
from servers import RunningServer, a_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("aws"), is_warm=False) as running:
        yield running


@pytest.fixture
def cloud(server: RunningServer) -> Cloud:
    return Cloud.at(server.data)


@pytest.fixture
def client(cloud: Cloud) -> Callable[..., Any]:
    """Make boto3 clients of the server's account."""
    return cloud.boto3


@pytest.fixture
def iot(cloud: Cloud) -> Any:
    return cloud.boto3()


@pytest.fixture
def enroll(cloud: Cloud) -> Callable[..., Enrolled]:
    def make(name: str, *statements: dict[str, Any]) -> Enrolled:
        return Enrolled(cloud.aws_thing(name, policy=document(*statements) if statements else ""))

    return make
