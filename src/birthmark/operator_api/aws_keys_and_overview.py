"""Operator API of AWS IoT: access keys, and an overview of the account.

All other operations use the AWS APIs.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import AccessKey
from birthmark.awsiot.service import AwsIot
from birthmark.broker import Namespace
from birthmark.broker.model import BrokerMessage
from birthmark.mqtt.topics import is_valid_filter, split_shared
from birthmark.operator_api import aws_jobs, aws_provisioning, aws_registry, aws_rules_and_streams, aws_shadows
from birthmark.operator_api.api_router import SIGN_OF_LIFE_S, ApiRequest, Endpoint, LineStream, PageQuery, Rows
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.store import from_micros
from birthmark.untrusted_json_and_text import readable

_SIGNATURE = re.compile(r"(signature=)[A-Za-z0-9_-]+")


class NewKey(msgspec.Struct):
    """An access key with its description and permissions: all, or those of a policy."""

    name: str = ""
    policy: dict[str, Any] | None = None


class MonitorQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Messages to monitor: a topic filter; topics that start with $ must be named explicitly."""

    filter: str


def endpoints(aws: AwsIot, space: Namespace) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws`."""

    async def keys(_asked: ApiRequest) -> Rows:
        return Rows([_key_view(key) for key in aws.keys.all()])

    async def add_key(request: ApiRequest) -> Any:
        policy = None if request.body.policy is None else json.dumps(request.body.policy)
        made = await aws.keys.add(request.body.name, actor=request.actor, policy=policy)
        return _key_view(made) | {"secret_access_key": made.secret}

    async def remove_key(request: ApiRequest) -> None:
        await aws.keys.remove(request["id"], actor=request.actor)

    async def things(request: ApiRequest) -> Rows:
        page = await aws.overview.things(request.query.after, request.query.limit)
        views = [{"thing": t.name, "type": t.type_name, "certificates": ids} for t, ids in page.items]
        return Rows(views, page.last)

    async def certificates(request: ApiRequest) -> Rows:
        page = await aws.overview.certificates(request.query.after, request.query.limit)
        views = [
            {
                "certificate": known.id,
                "common_name": known.certificate.subject_cn,
                "status": known.status.value,
                "mode": known.mode.value,
                "not_after": known.certificate.not_after.isoformat(),
                "things": things,
                "policies": policies,
            }
            for known, things, policies in page.items
        ]
        return Rows(views, page.last)

    async def monitor(request: ApiRequest) -> LineStream:
        wanted = request.query.filter
        share, rest = split_shared(wanted)
        if share is not None:
            raise OperatorRequestError(detail=f"shared subscriptions are not supported here: use {rest[:256]}")
        if not is_valid_filter(wanted):
            raise OperatorRequestError(detail=f"{wanted[:256]} is not a topic filter")
        return LineStream(_seen(space, wanted))

    return [
        Endpoint("GET", "/aws/keys", Right.READ, "List access keys, without their secrets.", keys),
        Endpoint("POST", "/aws/keys", Right.ADMINISTER, "Create an access key.", add_key, NewKey, status=201),
        Endpoint("DELETE", "/aws/keys/{id}", Right.ADMINISTER, "Delete an access key.", remove_key, status=204),
        Endpoint("GET", "/aws/things", Right.READ, "List things.", things, query=PageQuery),
        Endpoint("GET", "/aws/certificates", Right.READ, "List certificates.", certificates, query=PageQuery),
        Endpoint(
            "GET", "/aws/monitor", Right.READ, "Stream messages, one JSON line each.", monitor, query=MonitorQuery
        ),
        *aws_registry.endpoints(aws, space),
        *aws_provisioning.endpoints(aws),
        *aws_jobs.endpoints(aws),
        *aws_rules_and_streams.endpoints(aws),
        *aws_rules_and_streams.stream_endpoints(aws),
        *aws_shadows.endpoints(aws),
    ]


async def _seen(space: Namespace, topic_filter: str) -> AsyncIterator[Mapping[str, Any]]:
    """Yield messages as they are published; empty parts as keep-alive messages."""
    with space.messages.watch(topic_filter) as viewer:
        yield {"items": [], "lost": 0}
        while True:
            messages, lost = await viewer.take(SIGN_OF_LIFE_S)
            at = from_micros(space.now()).isoformat()
            yield {"items": [_message_view(at, message) for message in messages], "lost": lost}


def _message_view(at: str, message: BrokerMessage) -> dict[str, Any]:
    body, encoding = readable(message.payload)
    body = _SIGNATURE.sub(r"\1…", body)  # of a file's URL, which only the device gets
    return {
        "at": at,
        "topic": message.topic,
        "body": body,
        "encoding": encoding,
        "qos": message.qos,
        "retain": message.retain,
        "client": message.publisher,
    }


def _key_view(key: AccessKey) -> dict[str, Any]:
    may = "everything" if key.policy is None else "what its policy allows"
    told = {"access_key_id": key.id, "name": key.name, "may": may, "created": key.created_at.isoformat()}
    return told | {"policy": None if key.policy is None else json.loads(key.policy)}
