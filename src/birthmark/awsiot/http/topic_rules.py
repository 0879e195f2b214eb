"""Operator operations on topic rules and on the destinations of their HTTP actions."""

from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import parse_header_tags
from birthmark.awsiot.model import MemberNotServedError, RuleDestination, TopicRule
from birthmark.awsiot.rules.operation_rights import PLACE, right_for
from birthmark.awsiot.rules.topic_rule_redaction import without_secrets
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.rule_destinations import KIND
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.untrusted_json_and_text import masked_query


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

    async def create_topic_rule(self, request: AwsRequest) -> None:
        tags = parse_header_tags(request, request["ruleName"])
        await self._rules.create(request["ruleName"], _payload(request), tags=tags, actor=request.actor)

    async def get_topic_rule(self, request: AwsRequest) -> Any:
        known = await self._rules.get(request["ruleName"])
        return {
            "ruleArn": request.account.arn("rule", known.name),
            "rule": _rule_json(known, may_change=_may_change(request)),
        }

    async def list_topic_rules(self, request: AwsRequest) -> Any:
        is_disabled = request.flag("ruleDisabled") if request.has_member("ruleDisabled") else None
        page = await self._rules.page(request.after, request.size, topic=request.get("topic"), is_disabled=is_disabled)
        found = [
            {
                "ruleArn": request.account.arn("rule", one.name),
                "ruleName": one.name,
                "topicPattern": one.filter or "",
                "createdAt": one.rule.created_at.timestamp(),
                "ruleDisabled": one.rule.is_disabled,
            }
            for one in page.items
        ]
        return request.paged("rules", found, page)

    async def replace_topic_rule(self, request: AwsRequest) -> None:
        await self._rules.replace(request["ruleName"], _payload(request), actor=request.actor)

    async def delete_topic_rule(self, request: AwsRequest) -> None:
        await self._rules.delete(request["ruleName"], actor=request.actor)

    async def enable_topic_rule(self, request: AwsRequest) -> None:
        await self._rules.set_disabled(request["ruleName"], is_disabled=False, actor=request.actor)

    async def disable_topic_rule(self, request: AwsRequest) -> None:
        await self._rules.set_disabled(request["ruleName"], is_disabled=True, actor=request.actor)

    # ---- destinations

    async def create_topic_rule_destination(self, request: AwsRequest) -> Any:
        given = request.part("destinationConfiguration", DestinationConfiguration)
        if given is None or given.http is None:
            raise MemberNotServedError(
                member="destinationConfiguration without httpUrlConfiguration", operation=request.operation.name
            )
        made = await self._destinations.create(given.http.url, actor=request.actor)
        return {"topicRuleDestination": _destination_json(request, made)}

    async def get_topic_rule_destination(self, request: AwsRequest) -> Any:
        known = await self._destinations.get(_id(request))
        return {"topicRuleDestination": _destination_json(request, known)}

    async def list_topic_rule_destinations(self, request: AwsRequest) -> Any:
        page = await self._destinations.page(request.after, request.size)
        found = []
        for one in page.items:
            told = _destination_json(request, one)
            told["httpUrlSummary"] = told.pop("httpUrlProperties")
            found.append(told)
        return request.paged("destinationSummaries", found, page)

    async def update_topic_rule_destination(self, request: AwsRequest) -> None:
        await self._destinations.update(_id(request), request["status"], actor=request.actor)

    async def delete_topic_rule_destination(self, request: AwsRequest) -> None:
        await self._destinations.delete(_id(request), actor=request.actor)

    async def confirm_topic_rule_destination(self, request: AwsRequest) -> None:
        await self._destinations.confirm(request["confirmationToken"])


def _payload(request: AwsRequest) -> Mapping[str, Any]:
    given = request.part("topicRulePayload", dict[str, Any])
    if given is None:
        raise BodyInvalidError(detail="topicRulePayload is missing")
    return given


def _may_change(request: AwsRequest) -> bool:
    """Return whether the caller may change rules: an access key of the account or a user with the right."""
    return request.grant.caller is None or request.grant.caller.rights.allow(right_for("CreateTopicRule"), PLACE)


def _rule_json(rule: TopicRule, *, may_change: bool) -> dict[str, Any]:
    payload = rule.payload if may_change else without_secrets(rule.payload)
    return {
        "ruleName": rule.name,
        "sql": payload["sql"],
        "description": payload.get("description", ""),
        "createdAt": rule.created_at.timestamp(),
        "actions": payload["actions"],
        "ruleDisabled": rule.is_disabled,
        "awsIotSqlVersion": payload.get("awsIotSqlVersion", "2015-10-08"),
        **({} if payload.get("errorAction") is None else {"errorAction": payload["errorAction"]}),
    }


def _destination_json(request: AwsRequest, destination: RuleDestination) -> dict[str, Any]:
    told: dict[str, Any] = {
        "arn": request.account.arn(KIND, destination.id),
        "status": destination.status.value,
        "createdAt": destination.created_at.timestamp(),
        "lastUpdatedAt": destination.modified_at.timestamp(),
        "httpUrlProperties": {
            "confirmationUrl": destination.url if _may_change(request) else masked_query(destination.url)
        },
    }
    return told if not destination.reason else told | {"statusReason": destination.reason}


def _id(request: AwsRequest) -> str:
    return request.account.parse_arn(request["arn"], KIND)[1]
