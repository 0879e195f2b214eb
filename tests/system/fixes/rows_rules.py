"""Topic rules of AWS IoT: made by operators, and applied to what is published."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from fixes.desk import Desk, Row, steps
from fixes.rows_aws import call

from birthmark.operator_api.client.server_discovery_and_api_client import client_for

ARN = "arn:aws:iot:us-east-1:000000000000:"
ROLE = "arn:aws:iam::000000000000:role/rules"
_URL = "https://hooks.example.com/fix"


def ruled(name: str, sql: str, *actions: dict[str, Any], **more: Any) -> Callable[[Desk], Any]:
    payload = {"sql": sql, "actions": list(actions), "awsIotSqlVersion": "2016-03-23", **more}
    return call("create_topic_rule", ruleName=name, topicRulePayload=payload)


def destination(url: str) -> Callable[[Desk], Any]:
    configuration = {"httpUrlConfiguration": {"confirmationUrl": url}}
    return call("create_topic_rule_destination", destinationConfiguration=configuration)


def refused_for(rule: str, code: str, topic: str, body: object) -> Callable[[Desk], Any]:
    """Return what publishes, and fails when the server says why a rule did nothing with it."""

    def act(desk: Desk) -> None:
        desk.path("body").write_text(json.dumps(body))
        desk.type(f"aws iot-data publish --topic {topic} --qos 1 --payload fileb://body")
        for _ in range(50):
            if any(one["code"] == code for one in desk.server.rows("why", "--limit", "50")):
                raise RuntimeError(f"{rule}: {code}")
            time.sleep(0.2)

    return act


def many_streams(desk: Desk) -> None:
    client, made = client_for(desk.server.data), list[str]()
    try:
        for number in range(500):
            client.post("/aws/streams", {"stream": f"fix-many-{number}"})
            made.append(f"fix-many-{number}")
        desk.type("birthmark aws stream create fix-too-many")
    finally:
        for name in made:
            client.delete(f"/aws/streams/{name}")


def no_destination_is_enabled(desk: Desk) -> None:
    (one,) = [
        one
        for one in desk.iot.list_topic_rule_destinations()["destinationSummaries"]
        if one["httpUrlSummary"]["confirmationUrl"] == f"{_URL}/status"
    ]
    desk.iot.update_topic_rule_destination(arn=one["arn"], status="ENABLED")


_KAFKA = {"kafka": {"destinationArn": f"{ARN}ruledestination/vpc/nowhere", "topic": "x", "clientProperties": {}}}
_S3 = {"s3": {"bucketName": "fix", "key": "${key}", "roleArn": ROLE}}
_SNS = {"sns": {"targetArn": "arn:aws:sns:us-east-1:000000000000:x", "roleArn": ROLE}}
_THERE = ruled("fix_there", "SELECT * FROM 'x'")
_MANY = ", ".join(["a"] * 16)

RULES: Mapping[str, Row] = {
    "awsiot.unknown_rule": Row(call("get_topic_rule", ruleName="fix_nobody"), is_instead=True),
    "awsiot.rule_exists": Row(_THERE, _THERE, is_instead=True),
    "awsiot.rule_action_not_served": Row(ruled("fix_sns", "SELECT * FROM 'x'", _SNS), is_instead=True),
    "awsiot.rule_loop": Row(
        refused_for("fix_loop", "awsiot.rule_loop", "fix/loop/a", {}),
        ruled("fix_loop", "SELECT * FROM 'fix/loop/+'", {"republish": {"topic": "fix/loop/b", "roleArn": ROLE}}),
        is_instead=True,
    ),
    "awsiot.rules_full": Row(many_streams, is_instead=True),
    "awsiot.rule_sql_invalid": Row(ruled("fix_sql", "SELECT FROM"), is_instead=True),
    "awsiot.rule_server_not_mapped": Row(ruled("fix_server", "SELECT * FROM 'x'", _KAFKA), is_instead=True),
    "awsiot.rule_failed": Row(
        refused_for("fix_failed", "awsiot.rule_failed", "fix/failed", {"a": list(range(5000))}),
        ruled("fix_failed", f"SELECT [{_MANY}] AS x FROM 'fix/failed'"),
        is_instead=True,
    ),
    "awsiot.rule_action_failed": Row(
        refused_for("fix_action", "awsiot.rule_action_failed", "fix/action", {"key": "../x"}),
        ruled("fix_action", "SELECT * FROM 'fix/action'", _S3),
        is_instead=True,
    ),
    "awsiot.unknown_rule_destination": Row(
        call("get_topic_rule_destination", arn=f"{ARN}ruledestination/http/nobody"), is_instead=True
    ),
    "awsiot.rule_destination_exists": Row(destination(_URL), destination(_URL), is_instead=True),
    "awsiot.rule_destination_status": Row(no_destination_is_enabled, destination(f"{_URL}/status"), is_instead=True),
    "awsiot.stream_exists": Row(
        lambda desk: desk.type("birthmark aws stream create fix-there"),
        lambda desk: desk.type("birthmark aws stream create fix-there"),
        is_instead=True,
    ),
    "awsiot.stream_name": Row(lambda desk: desk.type("birthmark aws stream create 'no name'"), is_instead=True),
    "awsiot.unknown_stream": Row(
        steps(lambda desk: desk.type("birthmark aws stream read fix-nobody --since beginning")), is_instead=True
    ),
}
