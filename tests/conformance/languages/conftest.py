"""Clients of other languages: programs over the vendors' and Eclipse's packages, built from their public registries."""

import pytest

from support.languages.programs import Program

MQTT_3_1_1 = [Program("go", "mqtt3"), Program("rust", "mqtt3")]
MQTT_5 = [Program("go", "mqtt5"), Program("rust", "mqtt5")]
WITH_TOKENS = [Program("go", "mqtt3"), Program("go", "mqtt5")]
"""Clients that sign with a key in a PKCS#11 token."""
AWS_SDKS = [Program("go", "aws"), Program("rust", "aws")]
EVENT_HUBS_SDKS = [Program("go", "eventhubs"), Program("rust", "eventhubs")]


def _among(request: pytest.FixtureRequest) -> Program:
    program: Program = request.param
    return program


def _name(program: Program) -> str:
    return f"{program.language}-{program.name}"


@pytest.fixture(params=[*MQTT_3_1_1, *MQTT_5], ids=_name)
def aws_client(request: pytest.FixtureRequest) -> Program:
    """Every MQTT client."""
    return _among(request)


@pytest.fixture(params=MQTT_3_1_1, ids=_name)
def hub_client(request: pytest.FixtureRequest) -> Program:
    """Every MQTT client that can be a device of a hub: a hub speaks MQTT 3.1.1."""
    return _among(request)


@pytest.fixture(params=WITH_TOKENS, ids=_name)
def aws_token_client(request: pytest.FixtureRequest) -> Program:
    return _among(request)


@pytest.fixture(params=[one for one in WITH_TOKENS if one in MQTT_3_1_1], ids=_name)
def hub_token_client(request: pytest.FixtureRequest) -> Program:
    return _among(request)


@pytest.fixture(params=AWS_SDKS, ids=_name)
def aws_sdk(request: pytest.FixtureRequest) -> Program:
    """Every AWS SDK, as an operator."""
    return _among(request)


@pytest.fixture(params=EVENT_HUBS_SDKS, ids=_name)
def event_hubs_sdk(request: pytest.FixtureRequest) -> Program:
    """Every Event Hubs SDK, as a back end."""
    return _among(request)
