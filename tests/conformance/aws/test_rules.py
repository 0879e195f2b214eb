"""Topic rules by boto3 and paho: what is selected arrives where the rule's action says, and nowhere else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_clients import Account, until
from servers import RunningServer, a_server

pytestmark = pytest.mark.system
ROLE = "arn:aws:iam::000000000000:role/rules"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("rules")) as running:
        yield running


@pytest.fixture
def account(server: RunningServer, tmp_path: Path) -> Iterator[Account]:
    made = Account(server, tmp_path)
    yield made
    made.close()


def a_rule(account: Account, name: str, sql: str, *actions: dict[str, Any], **more: Any) -> None:
    payload = {"sql": sql, "actions": list(actions), "awsIotSqlVersion": "2016-03-23", **more}
    account.iot.create_topic_rule(ruleName=name, topicRulePayload=payload)


def republish(topic: str, **more: Any) -> dict[str, Any]:
    return {"republish": {"topic": topic, "roleArn": ROLE, **more}}


def test_what_a_rule_selects_is_republished(account: Account) -> None:
    a_rule(account, "hot", "SELECT temperature AS t FROM 'in/+' WHERE temperature > 30", republish("out/${topic(2)}"))
    (listener,) = account.subscribed("out/#", 1)
    listener.publish("in/one", json.dumps({"temperature": 20}), 1)
    listener.publish("in/two", json.dumps({"temperature": 40}), 1)
    until(lambda: listener.got == [("out/two", '{"t":40}')])
