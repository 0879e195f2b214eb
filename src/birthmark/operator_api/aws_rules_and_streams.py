"""The operator interface of AWS IoT's topic rules, and of the streams that they write to."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import TopicRule
from birthmark.awsiot.rules.operation_rights import PLACE
from birthmark.awsiot.rules.topic_rule_redaction import masked_address, without_secrets
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.topic_rules import TopicRules
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.broker.rules.stream_partitions_and_positions import PositionInvalidError, parse_positions
from birthmark.errors import add_fix_command
from birthmark.message_routing.delivery_model import QueuedDelivery
from birthmark.message_routing.failed_delivery_queue import DeliveryPartition
from birthmark.message_routing.sinks.local_streams import StreamRecord
from birthmark.net.fair_scheduler import collect_page, iterate_async
from birthmark.operator_api.api_router import ApiRequest, Endpoint, LineStream, PageQuery, Rows
from birthmark.operator_api.message_stream_pages import StreamPosition, StreamQuery, beginning, pages
from birthmark.operator_api.name_validation import parse_name
from birthmark.outbound.http_client import UrlInvalidError
from birthmark.outbound.ssrf_guard import PlainRefusedError
from birthmark.store import from_micros
from birthmark.untrusted_json_and_text import readable

_CALLED = "birthmark server settings --where 'key=outbound*'"


class NewRule(msgspec.Struct, forbid_unknown_fields=True):
    """A rule to create; `payload` has the format of CreateTopicRule."""

    rule: str
    payload: dict[str, Any]


class RuleTrialBody(msgspec.Struct, forbid_unknown_fields=True):
    """A sample message, with the statement or the rule to test."""

    topic: Annotated[str, msgspec.Meta(max_length=512)]
    payload: str
    sql: str | None = None
    rule: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    client: Annotated[str, msgspec.Meta(max_length=128)] = "tester"


class NewStream(msgspec.Struct, forbid_unknown_fields=True):
    """A stream."""

    stream: str


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws rule`."""
    rules = aws.rules

    async def listing(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        page = await rules.page(query.after, query.limit, topic=None, is_disabled=None)
        lanes = await rules.queue.counts()
        return Rows([_view(aws, one.rule, one.filter, lanes) for one in page.items], page.last)

    async def one_rule(request: ApiRequest) -> Any:
        known = await rules.ready(request["name"])
        lanes = await rules.queue.counts(known.name)
        whole = _view(aws, known.rule, known.filter, lanes)
        whole["actions"] = [_action(aws, known.name, number, one, lanes) for number, one in enumerate(known.actions)]
        return whole | {"lag_s": round(rules.engine.lag_s, 3), "payload": without_secrets(known.rule.payload)}

    async def create(request: ApiRequest) -> Any:
        called = add_fix_command(_CALLED, UrlInvalidError, PlainRefusedError)
        with add_fix_command("birthmark aws rule create --help", BodyInvalidError), called:
            made = await rules.create(request.body.rule, request.body.payload, actor=request.actor)
        return _view(aws, made, (await rules.ready(made.name)).filter, {})

    async def enable(request: ApiRequest) -> Any:
        await rules.set_disabled(request["name"], is_disabled=False, actor=request.actor)
        return {"rule": request["name"], "enabled": True}

    async def disable(request: ApiRequest) -> Any:
        await rules.set_disabled(request["name"], is_disabled=True, actor=request.actor)
        return {"rule": request["name"], "enabled": False}

    async def remove(request: ApiRequest) -> None:
        await rules.delete(request["name"], actor=request.actor)

    async def dead(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        name = (await rules.get(request["name"])).name
        found = await rules.queue.dead(name, query.after, query.limit)
        shown = await collect_page(iterate_async(map(_dead, found)), lambda view: 2 * len(view["body"]))
        is_last = len(shown) == len(found) < query.limit
        return Rows(shown, None if is_last else found[len(shown) - 1].id)

    async def replay(request: ApiRequest) -> Any:
        return {"queued": await rules.replay(request["name"], actor=request.actor)}

    one, change, test = "/aws/rules/{name}", Right.ADMINISTER, partial(_tried, rules)
    return [
        Endpoint("GET", "/aws/rules", Right.READ, "List topic rules.", listing, query=PageQuery),
        Endpoint("GET", one, Right.READ, "Return a topic rule with its queued deliveries.", one_rule),
        Endpoint("POST", "/aws/rules", change, "Create a topic rule.", create, NewRule, status=201),
        Endpoint("POST", "/aws/rules-test", Right.READ, "Test a rule with a message.", test, RuleTrialBody),
        Endpoint("POST", f"{one}/enable", change, "Enable a rule.", enable),
        Endpoint("POST", f"{one}/disable", change, "Disable a rule.", disable),
        Endpoint("GET", f"{one}/dead", Right.READ, "List the dead letters of a rule.", dead, query=PageQuery),
        Endpoint("POST", f"{one}/replay", Right.OPERATE, "Resend the dead letters of a rule.", replay),
        Endpoint("DELETE", one, change, "Delete a rule and its queued deliveries.", remove, status=204),
    ]


def stream_endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws stream`."""
    streams = aws.streams

    async def listing(request: ApiRequest) -> Rows:
        page = await streams.page(request.query.after, request.query.limit)
        return Rows([{"stream": one.name, "created": one.created_at.isoformat()} for one in page.items], page.last)

    async def create(request: ApiRequest) -> Any:
        made = await streams.create(request.body.stream, actor=request.actor)
        return {"stream": made.name, "created": made.created_at.isoformat()}

    async def remove(request: ApiRequest) -> None:
        await streams.remove(request["name"], actor=request.actor)

    async def read(request: ApiRequest) -> LineStream:
        query: StreamQuery = request.query
        found = await streams.find(request["name"])
        with add_fix_command(f"birthmark aws stream read {request['name']} --since 10m", PositionInvalidError):
            return LineStream(pages(found, await beginning(found, query), query, _entry))

    async def note_place(request: ApiRequest) -> None:
        place = parse_positions(request.body.after)
        await (await streams.find(request["name"])).set_position(parse_name(request["group"]), place)

    one = "/aws/streams/{name}"
    return [
        Endpoint("GET", "/aws/streams", Right.READ, "List streams.", listing, query=PageQuery),
        Endpoint("POST", "/aws/streams", Right.ADMINISTER, "Create a stream.", create, NewStream, status=201),
        Endpoint(
            "GET", f"{one}/stream", Right.READ, "Read a stream, one JSON line per record.", read, query=StreamQuery
        ),
        Endpoint(
            "PUT",
            f"{one}/groups/{{group}}",
            Right.OPERATE,
            "Store the position of a consumer group.",
            note_place,
            StreamPosition,
            status=204,
        ),
        Endpoint("DELETE", one, Right.ADMINISTER, "Delete a stream.", remove, status=204),
    ]


async def _tried(rules: TopicRules, request: ApiRequest) -> Any:
    given: RuleTrialBody = request.body
    with add_fix_command("birthmark aws rule test --help", BodyInvalidError):
        told = await rules.dry_run(given.sql, given.rule, given.topic, given.payload.encode(), given.client)
    if request.caller.rights.allow(Right.ADMINISTER, PLACE):
        return told
    return {**told, "actions": [one | {"address": masked_address(one["address"])} for one in told["actions"]]}


def _view(aws: AwsIot, rule: TopicRule, topic: str | None, lanes: Mapping[str, DeliveryPartition]) -> dict[str, Any]:
    own = [lane for name, lane in lanes.items() if name.rpartition("/")[0] == rule.name]
    return {
        "rule": rule.name,
        "enabled": not rule.is_disabled,
        "topic": topic or "",
        "matched": aws.rules.engine.matched[rule.name],
        "sent": aws.rules.count_deliveries(rule.name),
        "waiting": sum(one.count - one.dead for one in own),
        "dead": sum(one.dead for one in own),
        "created": rule.created_at.isoformat(),
        "sql": rule.payload["sql"],
    }


def _action(aws: AwsIot, rule: str, number: int, action: Any, lanes: Mapping[str, DeliveryPartition]) -> dict[str, Any]:
    name = f"{rule}/{number}"
    lane, queue = lanes.get(name, DeliveryPartition()), aws.rules.queue
    return {
        "action": action.kind,
        "sent": aws.rules.engine.gone[name] + queue.carried[name],
        "waiting": lane.count - lane.dead,
        "dead": lane.dead,
        "dropped": queue.dropped[name],
    }


def _dead(delivery: QueuedDelivery) -> dict[str, Any]:
    body, encoding = readable(delivery.body)
    return {
        "at": "" if delivery.dead_at is None else delivery.dead_at.isoformat(),
        "action": delivery.kind,
        "topic": delivery.origin.get("topic", ""),
        "client": delivery.origin.get("client", ""),
        "tries": delivery.tries,
        "problem": delivery.problem,
        "body": body,
        "encoding": encoding,
        "address": {name: str(text) for name, text in masked_address(delivery.address).items() if name != "headers"},
    }


def _entry(record: StreamRecord) -> dict[str, Any]:
    body, encoding = readable(record.body)
    return {
        "at": from_micros(record.enqueued_micros).isoformat(),
        "key": record.device_id,
        "body": body,
        "encoding": encoding,
    }
