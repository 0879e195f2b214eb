"""What tests of Azure's SDKs have in common."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443


@pytest.fixture(params=["mqtt", "websocket"])
def transport(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """MQTT, and MQTT in WebSockets."""
    name: str = request.param
    if name != "mqtt":
        needs_443(cloud)
    return name
