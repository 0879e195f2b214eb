"""The AWS account of the cloud by the real boto3, and things with a key in a file."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from birthmark.testing.cloud import Cloud
from support.aws.clients import Account
from support.aws.device import Enrolled, document
from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer


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


@pytest.fixture
def account(server: RunningServer) -> Iterator[Account]:
    """A certificate that may do everything, when each worker takes it."""
    until_workers_are_ready(server)
    made = Account(server)
    yield made
    made.close()
