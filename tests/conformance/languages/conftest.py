"""Clients of other languages: programs over the vendors' and Eclipse's packages, built from their public registries."""

import pytest

from support.languages.programs import Program, Signer

JAVA_3_1_1 = [Program("java", "PahoMqtt3"), Program("java", "HiveMqtt3")]
JAVA_5 = [Program("java", "PahoMqtt5"), Program("java", "HiveMqtt5")]
MQTT_3_1_1 = [Program("go", "mqtt3"), Program("rust", "mqtt3"), *JAVA_3_1_1]
MQTT_5 = [Program("go", "mqtt5"), Program("rust", "mqtt5"), *JAVA_5]
AWS_DEVICE_SDKS = [Program("java", "AwsMqtt3"), Program("java", "AwsMqtt5")]
"""AWS's device SDK for Java."""
NO_KEY_IDS = ("java", "atecc608")
"""SunPKCS11 finds keys by their ID; those that Microchip's PKCS#11 library lists for an ATECC608 have none."""
WITH_TOKENS = [Program("go", "mqtt3"), Program("go", "mqtt5"), *JAVA_3_1_1, *JAVA_5]
"""Clients that sign with a key in a PKCS#11 token."""
SIGNERS = [(one, kind) for one in WITH_TOKENS for kind in ("se050", "atecc608") if (one.language, kind) != NO_KEY_IDS]
"""These clients, each with a kind of secure element."""
AWS_SIGNERS = [*SIGNERS, *((one, kind) for one in AWS_DEVICE_SDKS for kind in ("se050", "atecc608"))]
AWS_JOBS_SDKS = [Program("rust", "aws"), Program("java", "Aws")]
AWS_SDKS = [Program("go", "aws"), *AWS_JOBS_SDKS]
EVENT_HUBS_SDKS = [Program("go", "eventhubs"), Program("rust", "eventhubs"), Program("java", "EventHubs")]


def _among(request: pytest.FixtureRequest) -> Program:
    program: Program = request.param
    return program


def _name(program: Program) -> str:
    return f"{program.language}-{program.name}"


@pytest.fixture(params=[*MQTT_3_1_1, *MQTT_5, *AWS_DEVICE_SDKS], ids=_name)
def aws_client(request: pytest.FixtureRequest) -> Program:
    """Every MQTT client."""
    return _among(request)


@pytest.fixture(params=MQTT_3_1_1, ids=_name)
def hub_client(request: pytest.FixtureRequest) -> Program:
    """Every MQTT client that can be a device of a hub: a hub speaks MQTT 3.1.1."""
    return _among(request)


def _name_signer(signer: Signer) -> str:
    client, kind = signer
    return f"{_name(client)}-{kind}"


@pytest.fixture(params=AWS_SIGNERS, ids=_name_signer)
def aws_signer(request: pytest.FixtureRequest) -> Signer:
    signer: Signer = request.param
    return signer


@pytest.fixture(params=[one for one in SIGNERS if one[0] in MQTT_3_1_1], ids=_name_signer)
def hub_signer(request: pytest.FixtureRequest) -> Signer:
    signer: Signer = request.param
    return signer


@pytest.fixture(params=AWS_SDKS, ids=_name)
def aws_sdk(request: pytest.FixtureRequest) -> Program:
    """Every AWS SDK, as an operator."""
    return _among(request)


@pytest.fixture(params=AWS_JOBS_SDKS, ids=_name)
def aws_jobs_sdk(request: pytest.FixtureRequest) -> Program:
    """Every AWS SDK with a program that runs jobs, as a thing."""
    return _among(request)


@pytest.fixture(params=[Program("go", "blobs")], ids=_name)
def storage_sdk(request: pytest.FixtureRequest) -> Program:
    """Every storage SDK."""
    return _among(request)


@pytest.fixture(params=EVENT_HUBS_SDKS, ids=_name)
def event_hubs_sdk(request: pytest.FixtureRequest) -> Program:
    """Every Event Hubs SDK, as a back end."""
    return _among(request)
