"""What topic rules keep and heed of each member of their requests, and what they refuse by its name.

The actions come from the service model: of those for which something stands each member is kept and read back, or
refused with the action's name; every other action is refused by its name.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import botocore.session

from birthmark.awsiot.wire.topic_rules import KINDS
from support.aws.function_server import ARN as FUNCTION

Case = Callable[[Any], None]
ARN = "arn:aws:iot:us-east-1:000000000000:"
SERVERS = '[servers.echo]\nurl = "nats://127.0.0.1:4222"\n'
VALUES: Mapping[str, Any] = {
    "functionArn": f"{FUNCTION}echo",
    "destinationArn": f"{ARN}ruledestination/vpc/echo",
    "url": "https://hooks.example.com/kept",
    "confirmationUrl": "https://hooks.example.com/kept",
    "cannedAcl": "private",
    "separator": "\n",
    "qos": 1,
}
NUMBERS = count(1)
UNSERVED = {
    "http": ("auth", "enableBatching", "batchConfig"),
    "kafka": ("key", "partition", "headers"),
    "firehose": ("batchMode",),
    "lambda": (),
}
_SHAPE = botocore.session.get_session().get_service_model("iot").shape_for("Action")


def a_name() -> str:
    return f"kept_{next(NUMBERS)}"


def value_of(name: str, shape: Any) -> Any:
    """Return what a member may be, as small as it may be."""
    if name in VALUES:
        return VALUES[name]
    plain: Any = max(1, shape.metadata.get("min", 1)) if shape.type_name != "boolean" else True
    match shape.type_name:
        case "structure":
            plain = {one: value_of(one, shape.members[one]) for one in shape.required_members}
        case "list":
            plain = [value_of(name, shape.member)]
        case "map":
            plain = {"client": "kept"}
        case "string":
            plain = shape.enum[0] if shape.enum else "kept".ljust(shape.metadata.get("min", 0), "0")
        case _:
            pass
    return plain


def with_member(path: list[str], shape: Any) -> dict[str, Any]:
    """Return the least structure that has the member of a path."""
    made: dict[str, Any] = {one: value_of(one, shape.members[one]) for one in shape.required_members}
    name, *rest = path
    made[name] = with_member(rest, shape.members[name]) if rest else value_of(name, shape.members[name])
    return made


def paths(shape: Any, place: str = "") -> Iterator[str]:
    for name, member in shape.members.items():
        if member.type_name == "structure":
            yield from paths(member, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def payload(**more: Any) -> dict[str, Any]:
    return {"sql": "SELECT * FROM 'kept'", "actions": [], **more}


def _is_served(path: str) -> bool:
    kind, member = path.split(".")[:2]
    return kind in KINDS and member not in UNSERVED.get(kind, ())


def _written(a: Any, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    name = a_name()
    if operation == "ReplaceTopicRule":
        a.iot.create_topic_rule(ruleName=name, topicRulePayload=payload())
    a.call(operation, ruleName=name, topicRulePayload=given)
    found: dict[str, Any] = a.iot.get_topic_rule(ruleName=name)["rule"]
    a.iot.delete_topic_rule(ruleName=name)
    return found


def _kept(operation: str, given: dict[str, Any], a: Any) -> None:
    assert _written(a, operation, given).items() >= given.items()


def _tagged(a: Any) -> None:
    name = a_name()
    a.iot.create_topic_rule(ruleName=name, topicRulePayload=payload(), tags="site=7")
    arn = a.iot.get_topic_rule(ruleName=name)["ruleArn"]
    assert a.iot.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "site", "Value": "7"}]
    a.iot.delete_topic_rule(ruleName=name)


def _listed(a: Any) -> None:
    names, pages = (a_name(), a_name()), a.iot.get_paginator("list_topic_rules")
    for name, is_off in zip(names, (True, False), strict=True):
        a.iot.create_topic_rule(ruleName=name, topicRulePayload=payload(ruleDisabled=is_off))
    found = [
        {one["ruleName"] for one in pages.paginate(**asked).build_full_result()["rules"]} & set(names)
        for asked in ({"ruleDisabled": True}, {"ruleDisabled": False}, {"topic": "kept"}, {"topic": "other"})
    ]
    assert found == [{names[0]}, {names[1]}, set(names), set()]
    for name in names:
        a.iot.delete_topic_rule(ruleName=name)


def _destination(a: Any) -> None:
    url = f"https://hooks.example.com/{a_name()}"
    configuration = {"httpUrlConfiguration": {"confirmationUrl": url}}
    made = a.iot.create_topic_rule_destination(destinationConfiguration=configuration)["topicRuleDestination"]
    assert made["httpUrlProperties"] == {"confirmationUrl": url}
    a.iot.delete_topic_rule_destination(arn=made["arn"])


def _made_for(operation: str, a: Any) -> dict[str, Any]:
    name = a_name()
    if operation == "ReplaceTopicRule":
        a.iot.create_topic_rule(ruleName=name, topicRulePayload=payload())
    return {"ruleName": name, "topicRulePayload": payload()}


_ACTION = {"republish": {"topic": "kept/again", "roleArn": "arn:aws:iam::000000000000:role/r"}}
_PLAIN: Mapping[str, Any] = {
    "sql": "SELECT a FROM 'kept'",
    "description": "kept",
    "actions": [_ACTION],
    "ruleDisabled": True,
    "awsIotSqlVersion": "2016-03-23",
}
_WRITES = ("CreateTopicRule", "ReplaceTopicRule")
_OF_VPC = {"subnetIds": ["subnet-1"], "securityGroups": ["sg-1"], "vpcId": "vpc-1", "roleArn": "arn:aws:iam::1:role/r"}
_OF_INFLUX = {
    "endpoint": "https://influx.example.com",
    "influxDBVersion": "V2",
    "secretId": "s",
    "secretType": "SecretString",
    "secretKey": "k",
}
KEPT: dict[str, dict[str, Case]] = {
    operation: {
        **{
            f"topicRulePayload.{name}": partial(_kept, operation, payload(**{name: one}))
            for name, one in _PLAIN.items()
        },
        **{
            f"topicRulePayload.errorAction.{path}": partial(
                _kept, operation, payload(errorAction=with_member(path.split("."), _SHAPE))
            )
            for path in paths(_SHAPE)
            if _is_served(path)
        },
    }
    for operation in _WRITES
}
KEPT["CreateTopicRule"]["tags"] = _tagged
KEPT["ListTopicRules"] = {"topic": _listed, "ruleDisabled": _listed}
KEPT["CreateTopicRuleDestination"] = {"destinationConfiguration.httpUrlConfiguration.confirmationUrl": _destination}
REFUSED: dict[str, tuple[Callable[[Any], dict[str, Any]], dict[str, dict[str, Any]]]] = {
    operation: (
        partial(_made_for, operation),
        {
            f"topicRulePayload.errorAction.{path}": {
                "topicRulePayload": payload(errorAction=with_member(path.split("."), _SHAPE))
            }
            for path in paths(_SHAPE)
            if not _is_served(path)
        },
    )
    for operation in _WRITES
}
REFUSED["CreateTopicRuleDestination"] = (
    lambda _: {
        "destinationConfiguration": {
            "httpUrlConfiguration": {"confirmationUrl": f"https://hooks.example.com/{a_name()}"}
        }
    },
    {
        f"destinationConfiguration.{kind}.{name}": {"destinationConfiguration": {kind: whole}}
        for kind, whole in (("vpcConfiguration", _OF_VPC), ("influxDBConfiguration", _OF_INFLUX))
        for name in whole
    },
)
WORDS: dict[str, str] = {
    f"topicRulePayload.errorAction.{path}": f"The rule action {path.split('.')[0]}"
    for path in paths(_SHAPE)
    if not _is_served(path)
}
