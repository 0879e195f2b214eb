"""The AWS account of the cloud by the real boto3, and things with a key in a file."""

from collections.abc import Callable
from typing import Any

import pytest

from aws_device import Enrolled, document
from birthmark.testing.cloud import Cloud


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
