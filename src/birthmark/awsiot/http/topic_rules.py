"""Topic rules and the destinations of their HTTP actions: the operations of operators."""

from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import parse_header_tags
from birthmark.awsiot.model import MemberNotServedError, RuleDestination, TopicRule
from birthmark.awsiot.rules.permissions import PLACE, right_for
from birthmark.awsiot.rules.topic_rules import without_secrets
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.rule_destinations import KIND
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.untrusted_text import masked_query


class HttpUrlConfiguration(msgspec.Struct, rename={"url": "confirmationUrl"}):
    url: str


class DestinationConfiguration(msgspec.Struct, rename={"http": "httpUrlConfiguration"}):
    http: HttpUrlConfiguration | None = None


class TopicRuleOperations:
    """The operations on rules and destinations."""

    def __init__(self, aws: AwsIot) -> None:
        self._rules = aws.rules
        self._destinations = aws.rules.destinations

    # ---- rules

    async def create_topic_rule(self, call: AwsRequest) -> None:
        tags = parse_header_tags(call, call["ruleName"])
        await self._rules.create(call["ruleName"], _payload(call), tags=tags, actor=call.actor)

    async def get_topic_rule(self, call: AwsRequest) -> Any:
        known = await self._rules.get(call["ruleName"])
        return {
            "ruleArn": call.account.arn("rule", known.name),
            "rule": _rule_json(known, may_change=_may_change(call)),
        }

    async def list_topic_rules(self, call: AwsRequest) -> Any:
        is_disabled = call.flag("ruleDisabled") if call.carries("ruleDisabled") else None
        page = await self._rules.page(call.after, call.size, topic=call.get("topic"), is_disabled=is_disabled)
        found = [
            {
                "ruleArn": call.account.arn("rule", one.name),
                "ruleName": one.name,
                "topicPattern": one.filter or "",
                "createdAt": one.rule.created_at.timestamp(),
                "ruleDisabled": one.rule.is_disabled,
            }
            for one in page.items
        ]
        return call.paged("rules", found, page)

    async def replace_topic_rule(self, call: AwsRequest) -> None:
        await self._rules.replace(call["ruleName"], _payload(call), actor=call.actor)

    async def delete_topic_rule(self, call: AwsRequest) -> None:
        await self._rules.delete(call["ruleName"], actor=call.actor)

    async def enable_topic_rule(self, call: AwsRequest) -> None:
        await self._rules.switch(call["ruleName"], is_disabled=False, actor=call.actor)

    async def disable_topic_rule(self, call: AwsRequest) -> None:
        await self._rules.switch(call["ruleName"], is_disabled=True, actor=call.actor)

    # ---- destinations

    async def create_topic_rule_destination(self, call: AwsRequest) -> Any:
        given = call.part("destinationConfiguration", DestinationConfiguration)
        if given is None or given.http is None:
            raise MemberNotServedError(
                member="destinationConfiguration without httpUrlConfiguration", operation=call.operation.name
            )
        made = await self._destinations.create(given.http.url, actor=call.actor)
        return {"topicRuleDestination": _destination_json(call, made)}

    async def get_topic_rule_destination(self, call: AwsRequest) -> Any:
        known = await self._destinations.get(_id(call))
        return {"topicRuleDestination": _destination_json(call, known)}

    async def list_topic_rule_destinations(self, call: AwsRequest) -> Any:
        page = await self._destinations.page(call.after, call.size)
        found = []
        for one in page.items:
            told = _destination_json(call, one)
            told["httpUrlSummary"] = told.pop("httpUrlProperties")
            found.append(told)
        return call.paged("destinationSummaries", found, page)

    async def update_topic_rule_destination(self, call: AwsRequest) -> None:
        await self._destinations.update(_id(call), call["status"], actor=call.actor)

    async def delete_topic_rule_destination(self, call: AwsRequest) -> None:
        await self._destinations.delete(_id(call), actor=call.actor)

    async def confirm_topic_rule_destination(self, call: AwsRequest) -> None:
        await self._destinations.confirm(call["confirmationToken"])


def _payload(call: AwsRequest) -> Mapping[str, Any]:
    given = call.part("topicRulePayload", dict[str, Any])
    if given is None:
        raise BodyInvalidError(detail="topicRulePayload is missing")
    return given


def _may_change(call: AwsRequest) -> bool:
    """Say whether who asks may change rules: an access key of the account, or a person with the right."""
    return call.grant.caller is None or call.grant.caller.rights.allow(right_for("CreateTopicRule"), PLACE)


def _rule_json(known: TopicRule, *, may_change: bool) -> dict[str, Any]:
    payload = known.payload if may_change else without_secrets(known.payload)
    return {
        "ruleName": known.name,
        "sql": payload["sql"],
        "description": payload.get("description", ""),
        "createdAt": known.created_at.timestamp(),
        "actions": payload["actions"],
        "ruleDisabled": known.is_disabled,
        "awsIotSqlVersion": payload.get("awsIotSqlVersion", "2015-10-08"),
        **({} if payload.get("errorAction") is None else {"errorAction": payload["errorAction"]}),
    }


def _destination_json(call: AwsRequest, known: RuleDestination) -> dict[str, Any]:
    told: dict[str, Any] = {
        "arn": call.account.arn(KIND, known.id),
        "status": known.status.value,
        "createdAt": known.created_at.timestamp(),
        "lastUpdatedAt": known.modified_at.timestamp(),
        "httpUrlProperties": {"confirmationUrl": known.url if _may_change(call) else masked_query(known.url)},
    }
    return told if not known.reason else told | {"statusReason": known.reason}


def _id(call: AwsRequest) -> str:
    return call.account.parse_arn(call["arn"], KIND)[1]
