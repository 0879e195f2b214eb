"""What tests of Azure's SDKs have in common."""

import gc
from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443


@pytest.fixture
def sdk_sockets_collected() -> Iterator[None]:
    """Collect the sockets that azure-eventhub leaves open here, not in a later test."""
    yield
    gc.collect()


@pytest.fixture(params=["mqtt", "websocket"])
def transport(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """MQTT, and MQTT in WebSockets."""
    name: str = request.param
    if name != "mqtt":
        needs_443(cloud)
    return name
