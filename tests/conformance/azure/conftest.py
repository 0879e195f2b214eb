"""What tests of Azure's SDKs have in common."""

import gc
import ssl
from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443


@pytest.fixture
def sdk_sockets_closed() -> Iterator[None]:
    """Close the sockets that azure-eventhub leaves open, whoever still refers to them: a later test would fail."""
    before = sockets()
    yield
    for socket in sockets() - before:
        socket.close()


def sockets() -> set[ssl.SSLSocket]:
    return {one for one in gc.get_objects() if isinstance(one, ssl.SSLSocket)}


@pytest.fixture(params=["mqtt", "websocket"])
def transport(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """MQTT, and MQTT in WebSockets; others by parametrization."""
    name: str = request.param
    if name not in {"mqtt", "amqp"}:
        needs_443(cloud)
    return name


@pytest.fixture(params=["mqtt", "websocket", "amqp", "amqp_websocket"])
def node_transport(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """Every protocol that the device SDK for Node.js has."""
    name: str = request.param
    if name.endswith("websocket"):
        needs_443(cloud)
    return name
