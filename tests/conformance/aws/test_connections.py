"""Connections of clients as the data plane tells of them and ends them, by boto3."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import Enrolled

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-data")


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def is_gone(data: Any, client: str) -> bool:
    try:
        data.get_connection(clientId=client)
    except data.exceptions.ResourceNotFoundException:
        return True
    return False


def test_a_connection_is_told_of_with_its_subscriptions_and_deleted(data: Any, enroll: Enroll) -> None:
    with enroll("looked-at").device() as device:
        device("connect")
        for topic in ("a/#", "b"):
            assert "ok" in device("subscribe", topic=topic)
        assert data.get_connection(clientId="looked-at")["connected"]
        found = data.list_subscriptions(clientId="looked-at")["subscriptions"]
        assert [one["topicFilter"] for one in found] == ["a/#", "b"]
        data.delete_connection(clientId="looked-at", cleanSession=True)
    until(lambda: is_gone(data, "looked-at"))
    assert refused(data.delete_connection, clientId="nobody") == "ResourceNotFoundException"


def test_retained_messages_are_listed(data: Any, enroll: Enroll) -> None:
    for topic in ("kept/1", "kept/2"):
        data.publish(topic=topic, qos=1, retain=True, payload=b"hello")
    found = {one["topic"]: one["payloadSize"] for one in data.list_retained_messages()["retainedTopics"]}
    assert (found["kept/1"], found["kept/2"]) == (5, 5)
    data.publish(topic="kept/1", qos=1, retain=True, payload=b"")
    assert "kept/1" not in {one["topic"] for one in data.list_retained_messages()["retainedTopics"]}
