"""Prepared topic rules and their evaluation. Pure; random values and shadow lookups are injected."""

import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birthmark.awsiot.model import TopicRule
from birthmark.awsiot.rules.reserved_topics import BASIC_INGEST
from birthmark.awsiot.wire import topic_rules as wire
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules import sql
from birthmark.message_routing.write_ahead_log import LoggedMessage
from birthmark.mqtt.properties import PropertyId
from birthmark.untrusted_json_and_text import split_url

MAX_TRAIL = 6
"""Maximum number of rules in a chain of republished messages."""
_ERROR = "error"
_MAX_TOLD = 200


class SqlInvalidError(InvalidRequestError):
    """The rule's SQL or a substitution template in an action is not valid."""

    code = "awsiot.rule_sql_invalid"
    message = "The rule's {where} is not valid: {detail}"
    fix = (
        "See docs/reference/rules-sql.md for the syntax. Test what a statement selects from a message: `birthmark aws "
        "rule test --sql \"SELECT * FROM 'a/b'\" --topic a/b --payload '{{}}'`"
    )
    detail: str
    where: str


class UnknownRuleError(NotFoundError):
    """The rule does not exist."""

    code = "awsiot.unknown_rule"
    message = "Rule {rule} not found"
    fix = "List rules: `birthmark aws rule ls`"
    rule: str


class RuleExistsError(ConflictError):
    """A rule with this name exists already."""

    code = "awsiot.rule_exists"
    message = "Rule {rule} already exists"
    fix = (
        "Replace the existing rule (`aws iot replace-topic-rule help`), or choose another name. List the names in "
        "use: `birthmark aws rule ls`"
    )
    rule: str


class RulesFullError(PolicyError):
    """The account has the maximum number of rules, destinations or streams."""

    code = "awsiot.rules_full"
    cause = "The account has {count} {what}, the maximum."
    fix = (
        "Delete an unused rule, stream, or destination. List all three: `birthmark aws rule ls`, `birthmark aws "
        "stream ls`, `aws iot list-topic-rule-destinations`"
    )
    count: int
    what: str


class RuleLoopError(PolicyError):
    """A republished message returned to the same rule, or passed too many rules."""

    code = "awsiot.rule_loop"
    cause = "The rule {rule} stopped processing a message to {topic} because its rules form a loop: {trail}."
    fix = (
        "Republish to a topic that matches neither the rule's own topic filter nor the filters of the following "
        "rules. List rules with their filters: `birthmark aws rule ls`"
    )
    rule: str
    topic: str
    trail: str


class RuleFailedError(PolicyError):
    """A rule could not process a message."""

    code = "awsiot.rule_failed"
    cause = "The rule {rule} could not process a message to {topic}: {reason}."
    fix = "Check the rule and the device's message. Show the rule: `birthmark aws rule show {rule}`"
    reason: str
    rule: str
    thing: str
    topic: str


class RuleActionFailedError(PolicyError):
    """A rule action failed."""

    code = "awsiot.rule_action_failed"
    cause = "The action {action} of the rule {rule} failed for a message to {topic}: {reason}."
    fix = "List the rule's dead letters: `birthmark aws rule dead-letters {rule}`"
    action: str
    reason: str
    rule: str
    thing: str
    topic: str


@dataclass(frozen=True, slots=True)
class Action:
    """One action with prepared templates, by address field."""

    kind: str
    what: wire.Kind
    templates: Mapping[str, sql.SubstitutionTemplate]


@dataclass(frozen=True, slots=True)
class PreparedRule:
    """A prepared rule."""

    rule: TopicRule
    statement: sql.SqlStatement
    actions: Sequence[Action]
    error_action: Action | None
    account_id: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name

    @property
    def filter(self) -> str | None:
        """Topic filter of the rule."""
        return self.statement.filter


def prepare_rule(rule: TopicRule, account_id: str) -> PreparedRule:
    """Return a prepared rule. Raise `SqlInvalidError` and the errors of `wire`."""
    payload, meter = wire.parse_payload(rule.payload), sql.new_meter()
    try:
        version = sql.parse_version(payload.aws_iot_sql_version)
        statement = sql.parse(payload.sql, version, meter)
    except sql.SqlMistake as error:
        raise SqlInvalidError(where="sql", detail=str(error)) from error
    actions = [_action(one, version, meter) for one in payload.actions]
    on_error = None if payload.error_action is None else _action(payload.error_action, version, meter)
    return PreparedRule(rule, statement, actions, on_error, account_id)


def _action(values: dict[str, Any], version: sql.Version, meter: sql.Meter) -> Action:
    what = wire.parse_action(values)
    templates: dict[str, sql.SubstitutionTemplate] = {}
    for name, text in _texts(what):
        try:
            templates[name] = sql.parse_template(text, version, meter)
        except sql.SqlMistake as error:
            raise SqlInvalidError(where=f"template for {name}", detail=str(error)) from error
    if isinstance(what, wire.Http) and what.confirmation_url is None and not templates["url"].is_constant:
        raise SqlInvalidError(where="url", detail="a url with a template requires confirmationUrl")
    return Action(wire.name_of(what), what, templates)


def _texts(kind: wire.Kind) -> Sequence[tuple[str, str]]:
    """Return the texts of an action that may contain templates, with their names in an address."""
    found: list[tuple[str, str]] = []
    match kind:
        case wire.Republish():
            found = [("topic", kind.topic), *([] if kind.headers is None else _headers(kind.headers))]
        case wire.Http():
            found = [("url", kind.url), *((f"header {one.key}", one.value) for one in kind.headers or ())]
        case wire.S3():
            found = [("bucket", kind.bucket_name), ("key", kind.key)]
        case wire.Kinesis():
            found = [("stream", kind.stream_name), ("key", kind.partition_key or "")]
        case wire.Firehose():
            found = [("stream", kind.delivery_stream_name)]
        case wire.Kafka():
            found = [("topic", kind.topic)]
        case wire.Lambda():  # only by ARN
            pass
    return found


def _headers(headers: wire.RepublishHeaders) -> Sequence[tuple[str, str]]:
    named = {
        "payload format": headers.payload_format_indicator,
        "content type": headers.content_type,
        "response topic": headers.response_topic,
        "correlation": headers.correlation_data,
        "expiry": headers.message_expiry,
    }
    found = [(name, text) for name, text in named.items() if text is not None]
    for number, pair in enumerate(headers.user_properties or ()):
        found += [(f"user key {number}", pair.key), (f"user value {number}", pair.value)]
    return found


def message_of(noted: LoggedMessage, account_id: str) -> RoutableMessage:
    """Return a message as seen by SQL statements."""
    plain: dict[int, Any] = {}
    pairs: list[tuple[str, str]] = []
    for key, value in noted.properties:
        if key == PropertyId.USER_PROPERTY:
            pairs.append((value[0], value[1]))
        else:
            plain[int(key)] = value
    return RoutableMessage(
        topic=noted.topic,
        payload=noted.payload,
        client_id=noted.device_id or None,
        principal=noted.principal or None,
        account_id=account_id,
        timestamp_ms=noted.enqueued_micros // 1000,
        qos=noted.qos,
        retain=noted.is_retained,
        user_properties=tuple(pairs),
        content_type=plain.get(PropertyId.CONTENT_TYPE),
        response_topic=plain.get(PropertyId.RESPONSE_TOPIC),
        correlation_data=plain.get(PropertyId.CORRELATION_DATA),
        payload_format_indicator=plain.get(PropertyId.PAYLOAD_FORMAT),
    )


@dataclass(frozen=True, slots=True)
class RuleMessage:
    """One message with the values for its templates."""

    message: RoutableMessage
    origin: Mapping[str, Any]
    entropy: Entropy
    lookups: sql.Lookups = sql.NO_SHADOWS
    variables: Mapping[str, Any] = field(default_factory=dict)
    meter: sql.Meter = field(default_factory=sql.new_meter)

    def fill(self, template: sql.SubstitutionTemplate) -> str:
        """Return a template's value for this message."""
        known: dict[str, Any] = {"entropy": self.entropy, "lookups": self.lookups, "variables": self.variables}
        known["meter"] = self.meter
        return sql.fill(template, self.message, **known)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """Result of a rule for a message."""

    payload: bytes | None = None
    """None if the statement does not select the message."""
    letters: Sequence[Delivery] = ()


def apply_rule(
    ready: PreparedRule, noted: LoggedMessage, entropy: Entropy, lookups: sql.Lookups, meter: sql.Meter
) -> RuleOutcome:
    """Return the result of a rule. Raise `RuleLoopError`, `RuleFailedError`, `sql.ShadowWantedError`."""
    name = ready.name
    if name in noted.trail or len(noted.trail) >= MAX_TRAIL:
        told = " > ".join((*noted.trail, name))
        raise RuleLoopError(rule=name, topic=noted.topic[:_MAX_TOLD], trail=told)
    message = message_of(noted, ready.account_id)
    try:
        selected = sql.evaluate(ready.statement, message, entropy=entropy, lookups=lookups, meter=meter)
        if selected is None:
            return RuleOutcome()
        case = RuleMessage(message, _origin(noted), entropy, lookups, selected.variables, meter)
        body = selected.payload
        letters = [_letter(f"{name}/{number}", action, case, body) for number, action in enumerate(ready.actions)]
        return RuleOutcome(body, letters)
    except sql.TooMuchError as error:
        facts: dict[str, Any] = {"thing": noted.device_id, "topic": noted.topic[:_MAX_TOLD]}
        raise RuleFailedError(rule=name, reason=error.what.removesuffix("."), **facts) from error


def error_delivery(ready: PreparedRule, failed: Delivery, reason: str, entropy: Entropy) -> Delivery | None:
    """Return the delivery for a permanently failed delivery of a rule; None if the rule has no error action.

    The body follows the developer guide, "Error handling", for error actions: message, topic, and failure.
    """
    action, lane = ready.error_action, f"{ready.name}/{_ERROR}"
    if action is None or failed.lane == lane:
        return None
    origin = dict(failed.origin)
    body = {
        "ruleName": ready.name,
        "topic": origin["topic"],
        "clientId": origin["client"] or "N/A",
        "base64OriginalPayload": origin["payload"],
        "failures": [
            {
                "failedAction": f"{failed.kind[0].upper()}{failed.kind[1:]}Action",
                "failedResource": _resource(failed),
                "errorMessage": reason,
            }
        ],
    }
    message = RoutableMessage(origin["topic"], json.dumps(body).encode(), origin["client"] or None)
    try:
        return _letter(lane, action, RuleMessage(message, origin, entropy), message.payload)
    except (sql.TooMuchError, sql.ShadowWantedError):
        return None


def _resource(delivery: Delivery) -> str:
    address = delivery.address
    return str(next((address[one] for one in ("topic", "url", "key", "stream", "arn") if one in address), ""))


def _origin(noted: LoggedMessage) -> dict[str, Any]:
    """Return a message's origin for error actions and diagnostics."""
    return {
        "topic": noted.topic,
        "client": noted.device_id,
        "payload": base64.b64encode(noted.payload).decode(),
        "trail": list(noted.trail),
    }


def _letter(lane: str, action: Action, case: RuleMessage, body: bytes) -> Delivery:
    filled = {name: case.fill(one) for name, one in action.templates.items()}
    address: dict[str, Any] = dict(filled)
    match action.what:
        case wire.Republish(qos=qos):
            address = {"topic": filled["topic"], "qos": qos, "properties": _properties(filled)}
        case wire.Http(confirmation_url=confirmed, url=url):
            headers = {name.removeprefix("header "): text for name, text in filled.items() if name != "url"}
            address = {"url": filled["url"], "confirmed": confirmed or url, "headers": headers}
        case wire.Firehose(separator=separator):
            address["separator"] = separator or ""
        case wire.Kafka(destination_arn=arn) | wire.Lambda(function_arn=arn):
            address["arn"] = arn
        case _:
            pass
    return Delivery(lane, action.kind, address, body, case.origin)


def _properties(filled: Mapping[str, str]) -> list[list[Any]]:
    """Return the MQTT 5 properties of a republished message, in the form stored in deliveries."""
    found: list[list[Any]] = []
    if (text := filled.get("payload format")) is not None:
        found.append([int(PropertyId.PAYLOAD_FORMAT), int(text in {"1", "UTF8_DATA"})])
    for name, key in (("content type", PropertyId.CONTENT_TYPE), ("response topic", PropertyId.RESPONSE_TOPIC)):
        if filled.get(name):
            found.append([int(key), filled[name]])
    if filled.get("correlation"):
        found.append([int(PropertyId.CORRELATION_DATA), filled["correlation"]])
    if (text := filled.get("expiry", "")).isascii() and text.isdigit():
        found.append(["expiry", min(int(text), 0xFFFFFFFF)])
    number = 0
    while (key_text := filled.get(f"user key {number}")) is not None:
        found.append([int(PropertyId.USER_PROPERTY), key_text, filled[f"user value {number}"]])
        number += 1
    return found


def is_same_origin(url: str, confirmed: str) -> bool:
    """Return whether a URL has the scheme, host, and port of a confirmed one."""
    with contextlib.suppress(ValueError):
        one, other = split_url(url), split_url(confirmed)
        return (one.scheme, one.hostname, one.port) == (other.scheme, other.hostname, other.port)
    return False


def basic_ingest(topic: str) -> tuple[str, str] | None:
    """Return rule and topic of a basic ingest topic; None for other topics."""
    if not topic.startswith(BASIC_INGEST):
        return None
    name, _, rest = topic.removeprefix(BASIC_INGEST).partition("/")
    return (name, rest) if name else None
