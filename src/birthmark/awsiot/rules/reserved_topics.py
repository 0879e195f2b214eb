"""Reserved topics that begin with `$`: service requests and allowed subscriptions (developer guide, "Reserved topics").

Only the service publishes on its response topics.
"""

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum

from birthmark.broker.model import BrokerMessage
from birthmark.net.mqtt_service_interface import CloseReason

EVENTS = "$aws/events/"
BASIC_INGEST = "$aws/rules/"
"""Prefix of basic ingest, followed by the only rule that receives the message and the topic that it sees."""
PRESENCE = f"{EVENTS}presence/"
SUBSCRIPTIONS = f"{EVENTS}subscriptions/"
_ANSWERS = re.compile(
    r"\$aws/(?:certificates/(?:create|create-from-csr|\+)|provisioning-templates/[^/#]+/provision)"
    r"/(?:json|cbor|\+)/(?:accepted|rejected|\+)|\$aws/(?:certificates|provisioning-templates/[^/#]+(?:/provision)?)/#"
)
_OF_THING = re.compile(r"\$aws/things/[^/#]+/(?P<service>[^/]+)(?:/.*)?")
_QUESTIONS = frozenset({"get", "create", "create-from-csr"})
_EVENTS = frozenset(
    {
        "presence",
        "subscriptions",
        "thing",
        "thingType",
        "thingTypeAssociation",
        "thingGroup",
        "thingGroupHierarchy",
        "thingGroupMembership",
        "certificates",
        "job",
        "jobExecution",
        "+",
        "#",
    }
)
_SUBTREES = frozenset({"shadow", "jobs", "+", "#"})


class ReservedService(Enum):
    """Services and their request topics."""

    SHADOW = re.compile(r"\$aws/things/(?P<thing>[^/]+)/shadow(?:/name/(?P<name>[^/]+))?/(?P<verb>get|update|delete)")
    JOBS = re.compile(
        r"\$aws/things/(?P<thing>[^/]+)/jobs/(?:(?P<job>[^/]+)/(?!start-next)|(?!update))(?P<verb>get|start-next|update)"
    )
    REPORTS = re.compile(
        r"\$aws/things/(?P<thing>[^/]+)/(?P<verb>defender/metrics/(?:json|cbor)|greengrass(?:v2)?/health/json)"
    )
    """Reports that stock agents send to services that are not implemented: accepted and dropped."""
    CERTIFICATES = re.compile(r"\$aws/certificates/(?P<verb>create|create-from-csr)/(?P<form>json|cbor)")
    PROVISION = re.compile(r"\$aws/provisioning-templates/(?P<template>[^/]+)/(?P<verb>provision)/(?P<form>json|cbor)")


_SERVICES = tuple(ReservedService)  # going through the class costs more than matching


def request_of(topic: str) -> tuple[ReservedService, Mapping[str, str | None]] | None:
    """Return the service that a topic addresses and the topic's parameters; None if it addresses none."""
    for service in _SERVICES:
        if (found := service.value.fullmatch(topic)) is not None:
            return service, found.groupdict()
    return None


def is_query_only(topic: str) -> bool:
    """Return whether a topic only queries, so that it has no effect without a subscriber to the response."""
    if topic.startswith(BASIC_INGEST):
        return False
    found = request_of(topic)
    return found is None or found[1]["verb"] in _QUESTIONS


def is_answered_over_https(topic: str) -> bool:
    """Return whether HTTPS Publish accepts a reserved topic: AWS accepts some over MQTT only (measured 2026-09)."""
    found = request_of(topic)
    return found is None or found[0] not in {ReservedService.JOBS, ReservedService.REPORTS}


def is_answer(topic_filter: str) -> bool:
    """Return whether a filter matches only provisioning responses."""
    return _ANSWERS.fullmatch(topic_filter) is not None


def may_subscribe(topic_filter: str) -> bool:
    """Return whether a filter that begins with `$` stays within events, provisioning responses, shadows, or jobs.

    Policies restrict it further.
    """
    if topic_filter.startswith(EVENTS):
        return topic_filter.removeprefix(EVENTS).partition("/")[0] in _EVENTS
    if is_answer(topic_filter):
        return True
    found = _OF_THING.fullmatch(topic_filter)
    return found is not None and found["service"] in _SUBTREES


REASONS: Mapping[CloseReason, str] = {
    CloseReason.DISCONNECT: "CLIENT_INITIATED_DISCONNECT",
    CloseReason.DISCONNECT_WITH_WILL: "CLIENT_INITIATED_DISCONNECT",
    CloseReason.LOST: "CONNECTION_LOST",
    CloseReason.KEEP_ALIVE: "MQTT_KEEP_ALIVE_TIMEOUT",
    CloseReason.PROTOCOL: "CLIENT_ERROR",
    CloseReason.REFUSED: "FORBIDDEN_ACCESS",
    CloseReason.TAKEN_OVER: "DUPLICATE_CLIENTID",
    CloseReason.ADMINISTRATIVE: "SERVER_INITIATED_DISCONNECT",
    CloseReason.ENDED: "CUSTOMAUTH_TTL_EXPIRATION",
    CloseReason.ASKED: "API_INITIATED_DISCONNECT",
    CloseReason.STOPPING: "SERVER_INITIATED_DISCONNECT",
    CloseReason.SERVER: "SERVER_INITIATED_DISCONNECT",
}


def presence(client_id: str, what: str, *, at_ms: int, **details: object) -> BrokerMessage | None:
    """Return the connect or disconnect event of a client; None for a client ID that is invalid in a topic."""
    if "#" in client_id or "+" in client_id:
        return None
    event = {"clientId": client_id, "timestamp": at_ms, "eventType": what, **details}
    return BrokerMessage(f"{PRESENCE}{what}/{client_id}", json.dumps(event).encode(), 1)


def subscription(client_id: str, what: str, topics: Sequence[str], *, at_ms: int, **details: object) -> BrokerMessage:
    """Return the subscribe or unsubscribe event of a client."""
    event = {"clientId": client_id, "timestamp": at_ms, "eventType": what, "topics": list(topics), **details}
    return BrokerMessage(f"{SUBSCRIPTIONS}{what}/{client_id}", json.dumps(event).encode(), 1)
