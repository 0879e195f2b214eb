"""docs/reference/limits.md says what the code does: every row of it, and every setting."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import birthmark
from birthmark import clock
from birthmark.audit import latest
from birthmark.auth import sas, sigv4
from birthmark.awsiot import model
from birthmark.awsiot.http import files
from birthmark.awsiot.mqtt import acknowledging as aws_acks
from birthmark.awsiot.mqtt import connection as aws_connection
from birthmark.awsiot.mqtt import connections as aws_mqtt
from birthmark.awsiot.rules import authorizing, documents, jobs, policy, shadows, terms, topic_rules, topics
from birthmark.awsiot.rules import sessions as sessions_of_devices
from birthmark.awsiot.rules import templates as template_rules
from birthmark.awsiot.service import (
    buckets,
    claims,
    data_streams,
    first_contact,
    index,
    job_files,
    policies,
    strangers,
    tags,
    tasks,
    templates,
    thing_groups,
)
from birthmark.awsiot.store import jobs as job_store
from birthmark.awsiot.store import topic_rules as rule_store
from birthmark.awsiot.wire import cbor, search
from birthmark.awsiot.wire import jobs as job_wire
from birthmark.awsiot.wire import provisioning as provisioning_wire
from birthmark.awsiot.wire import shadows as shadow_wire
from birthmark.awsiot.wire import topic_rules as rule_wire
from birthmark.broker import appends, attached, routing, stream, underway, viewing
from birthmark.broker.rules import limits
from birthmark.ca import answers, ordering
from birthmark.console import desk
from birthmark.console import refusals as console_refusals
from birthmark.console.web import live, taking
from birthmark.console.web.enroll import bounds as drops
from birthmark.documents import answers as query_answers
from birthmark.documents import queries as query_language
from birthmark.dps import document as dps_document
from birthmark.dps import mqtt as dps_mqtt
from birthmark.dps import wire as dps_wire
from birthmark.dps.rules import issuing, tpm
from birthmark.dps.service import queries as dps_queries
from birthmark.dps.service import registrations, webhooks
from birthmark.est import store as est_store
from birthmark.est import wire as est_wire
from birthmark.est.model import EstSettings
from birthmark.est.service import EstService, approvals
from birthmark.est.service.callers import Callers
from birthmark.feed import notices
from birthmark.iothub.mqtt import connection as hub_connection
from birthmark.iothub.mqtt import connections as hub_connections
from birthmark.iothub.mqtt import telemetry as hub_telemetry
from birthmark.iothub.rules import credentials as hub_credentials
from birthmark.iothub.rules import messages
from birthmark.iothub.rules import terms as hub_terms
from birthmark.iothub.service import finding as hub_finding
from birthmark.iothub.service import modules as hub_modules
from birthmark.iothub.service import queries as hub_queries
from birthmark.iothub.service import routes as hub_routing
from birthmark.iothub.service import telemetry
from birthmark.iothub.wire import messages as hub_messages
from birthmark.iothub.wire import routes as hub_routes
from birthmark.manifests import splitting
from birthmark.manifests.bundle import wire as bundle
from birthmark.mqtt import aliases, engine, properties, receipts
from birthmark.mqtt.engine import Limits as MqttLimits
from birthmark.mqtt.session import EACH_BYTES
from birthmark.net import backlog, budget, connection, http, listener, pieces, upgrade
from birthmark.net import errors as net_errors
from birthmark.net.limits import Limits
from birthmark.outbound import questions, sender
from birthmark.people import asking, oidc, once, passwords, sessions, sign_in
from birthmark.pki import certificates, chains, csr, extensions, name_constraints, ocsp
from birthmark.refusals import ledger, presented
from birthmark.refusals.rate_limits import RateLimits
from birthmark.routing import queue
from birthmark.routing import shares as rule_shares
from birthmark.routing.carriers import files as rule_files
from birthmark.routing.rules.conditions import deciding
from birthmark.routing.rules.sql import parsing as sql_parsing
from birthmark.routing.rules.sql import run as sql_run
from birthmark.routing.rules.sql import values as sql_values
from birthmark.server import body_limits, descriptors, finding, quiet, signing_share
from birthmark.swarm import report as swarm_report
from birthmark.swarm.scenario import parse as swarm_scenario

PAGE = (Path(birthmark.__file__).parents[2] / "docs" / "reference" / "limits.md").read_text()
SETTINGS = {field.name: field.default for field in fields(Limits)}
ROWS = {
    (section.splitlines()[0], cells[0]): cells[1]
    for section in PAGE.split("\n## ")[1:]
    for line in section.splitlines()
    if line.startswith("| ") and not line.startswith(("| name", "| limit", "| what", "| path"))
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def size(count: Any) -> str:
    """Return bytes as the page writes them."""
    return f"{count // 1048576} MiB" if count % 1048576 == 0 else f"{count // 1024} KiB"


def number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def share_of(service: type[Any], name: str) -> str:
    """Return a limiter's share as the page writes it."""
    limiter = service.__dataclass_fields__[name].default_factory()
    return f"{limiter.burst} in a row, then one in {limiter.every_s:g} s"


MQTT, SHARES, TRANSPORT = MqttLimits(), RateLimits(), "Transport"
DROPPED = "Lists that are dropped at the console"
# (section, row) -> what its second cell begins with, from the code.
EXPECTED: dict[tuple[str, str], str] = {
    (TRANSPORT, "certificates a client shows"): (
        f"{size(net_errors.MAX_CHAIN_BYTES)} in all, {size(certificates.MAX_NAME_BYTES)} for a subject or issuer"
    ),
    (TRANSPORT, "TLS records in a row without data, such as changes of keys"): number(connection._MAX_BARREN),
    ("HTTP", "a chunked body with its framing and trailers"): (
        f"{http._RAW_FACTOR} times the body, and {size(SETTINGS['max_header_bytes'])}"
    ),
    ("HTTP", "requests sent ahead of an answer"): number(http._MAX_AHEAD),
    **{("HTTP", f"`{path.decode()}`"): f"{limit // 1024} KiB" for path, limit in body_limits.BODY_LIMITS},
    ("HTTP", "any other"): size(body_limits.OTHERWISE),
    ("HTTP", "`/enroll/drop`, of the console"): size(drops.MAX_DROP_BYTES),
    (DROPPED, "files of one list"): f"{size(drops.MAX_FILES_BYTES)}, {drops.MAX_FILES} files",
    (DROPPED, "certificates of signers, stations and roots"): size(drops.MAX_TRUST_BYTES),
    (DROPPED, "rows of one list"): number(drops.MAX_ROWS),
    (DROPPED, "lists that are here"): (
        f"{drops.MOST_DROPS}, {drops.MOST_OF_ONE} of a user; {drops.MOST_RECEIVED} are read at a time, one of a user, "
        f"and {drops.MOST_AT_ONCE} looked at or run"
    ),
    (DROPPED, "how long they stay"): (
        f"{drops.KEPT.seconds // 60} minutes after a look, {drops.KEPT_DONE.days * 24} h after a run"
    ),
    ("MQTT", "frames of a WebSocket before CONNECT is answered"): number(upgrade.MAX_STRANGER_FRAMES),
    ("MQTT", "pings and pongs of a WebSocket in a minute"): number(upgrade.MAX_PINGS),
    ("MQTT", "bytes that wait of an unfinished WebSocket message"): size(pieces.PIECE_BYTES),
    ("MQTT", "packet"): size(MQTT.max_packet_bytes),
    ("MQTT", "filters in one SUBSCRIBE"): number(MQTT.max_filters),
    ("MQTT", "messages in flight to a client"): (
        f"{MQTT.max_in_flight}, and {MQTT.max_queued} or {size(MQTT.max_queued * EACH_BYTES)} waiting"
    ),
    ("MQTT", "messages from a client that wait for their PUBACK (3.1.1)"): number(receipts.MAX_OWED),
    ("MQTT", "properties of a packet (MQTT 5)"): number(properties.MAX_PROPERTIES),
    ("MQTT", "topic aliases of a connection, from the server (MQTT 5)"): number(aliases.MAX_ALIASES),
    ("MQTT", "PINGREQ that came before earlier answers left"): number(engine._MAX_PINGS),
    (TRANSPORT, "work for one connection before others have their turn"): (
        f"{backlog.SLICE_S * 1000:g} ms, and {backlog.TURN_S * 1000:g} ms for all that want more"
    ),
    ("MQTT", "keep alive"): (
        f"1.5 times what the client asked for, at most {int(1.5 * hub_connections.MAX_KEEP_ALIVE_S) + 2} s (Azure), "
        f"{aws_mqtt.MIN_KEEP_ALIVE_S} to {aws_mqtt.MAX_KEEP_ALIVE_S} s (AWS)"
    ),
    ("MQTT", "IoT Hub message"): size(messages.MAX_MESSAGE_BYTES),
    ("MQTT", "IoT Hub subscriptions of a device"): number(hub_connection.MAX_SUBSCRIPTIONS),
    ("MQTT", "messages of one key for stored sessions, waiting for the database"): (
        f"{size(underway.UNWRITTEN_BYTES)}, and {underway.ROW_BYTES} bytes for each session that gets one"
    ),
    ("MQTT", "IoT Hub messages of one connection waiting for the database"): (
        f"{hub_telemetry.WINDOW}, or {size(hub_telemetry.WINDOW_BYTES)}"
    ),
    ("DPS", "`optionalDeviceInformation` of an enrollment"): f"{size(dps_document.MAX_INFORMATION_BYTES)} of JSON",
    ("DPS", "storage root keys that came for a TPM and did not prove themselves"): (
        f"the last {tpm.MAX_ROOTS}, of one address {tpm.MAX_ROOTS_OF_ONE}, which sends new ones as registrations below"
    ),
    ("DPS", "a challenge to a TPM"): f"answered within {tpm.CHALLENGE_S // 60} min",
    ("DPS", "connections of one registration over MQTT"): number(dps_mqtt.MAX_OF_ONE),
    ("DPS", "an answer of a program that chooses hubs (`customAllocationDefinition`)"): (
        f"{size(questions.MAX_ANSWER_BYTES)} of JSON, in {questions.PATIENCE_S:g} s; asked "
        f"{len(webhooks.PAUSES_S) + 1} times where it is busy; {questions.MOST_AT_ONCE} questions to one at a time at "
        f"a worker, {questions.MOST_WAITING} with those that wait"
    ),
    ("DPS", "changes that a device makes to its own modules, at each worker"): (
        f"{hub_modules.BURST} in a row, then one in {hub_modules.EVERY_S} s"
    ),
    ("DPS", "registrations of one device"): f"{registrations.BURST} in a row, then one in {registrations.EVERY_S} s",
    ("AWS IoT", "client id"): f"{topics.MAX_CLIENT_ID_BYTES} bytes",
    ("AWS IoT", "topic or filter"): f"{topics.MAX_TOPIC_BYTES} bytes, {topics.MAX_SLASHES} slashes",
    ("AWS IoT", "message"): size(topics.MAX_PAYLOAD_BYTES),
    ("AWS IoT", "filters in one SUBSCRIBE, on a connection"): f"{topics.MAX_FILTERS}, {topics.MAX_SUBSCRIPTIONS}",
    ("AWS IoT", "packet (MQTT 5)"): size(aws_mqtt.MAX_PACKET_BYTES),
    ("AWS IoT", "messages from a client that wait for their PUBACK (MQTT 5)"): number(aws_mqtt.RECEIVE_MAXIMUM),
    ("AWS IoT", "topic aliases of a client (MQTT 5)"): number(aws_mqtt.TOPIC_ALIAS_MAXIMUM),
    ("AWS IoT", "state of a shadow"): (f"{size(shadows.MAX_BYTES)} as compact JSON, {shadow_wire.MAX_LEVELS} levels"),
    ("AWS IoT", "shadows with a name, of one thing"): f"{shadows.MAX_SHADOWS}",
    ("AWS IoT", "shadow: its name, a `clientToken`"): f"64 characters, {shadow_wire.MAX_TOKEN_BYTES} bytes",
    ("AWS IoT", "keep alive"): (
        f"{aws_mqtt.MIN_KEEP_ALIVE_S} to {aws_mqtt.MAX_KEEP_ALIVE_S} s; 0 is {aws_mqtt.MAX_KEEP_ALIVE_S}"
    ),
    ("AWS IoT", "stored session"): (
        f"{aws_mqtt.PERSISTENT_S / 3600:g} hour after the connection ended; in MQTT 5 as the client asks, at most "
        f"{aws_connection.MAX_EXPIRY_S // 86400} days"
    ),
    ("AWS IoT", "receivers that a message, or a burst, goes to at once"): number(routing.PORTION),
    ("AWS IoT", "sessions that one commit writes messages for"): (
        f"{appends.MAX_SESSIONS}, and {appends.MAX_SESSIONS} of those that very many get"
    ),
    ("AWS IoT", "stored sessions"): number(limits.MAX_SESSIONS),
    ("AWS IoT", "messages held back while a client's policies are read again"): (
        f"{attached.MAX_HELD}, or {size(attached.MAX_HELD_BYTES)}"
    ),
    ("AWS IoT", "messages waiting in a stored session"): number(limits.MAX_WAITING),
    ("AWS IoT", "retained messages"): number(limits.MAX_RETAINED),
    ("AWS IoT", "publishes of one connection waiting for the database"): number(aws_acks.WINDOW),
    ("AWS IoT", "policy document"): f"{policy.MAX_DOCUMENT_CHARS} characters without white space",
    ("AWS IoT", "policies on a certificate, versions of a policy"): (
        f"{policies.MAX_ATTACHED}, {policies.MAX_VERSIONS}"
    ),
    ("AWS IoT", "attributes of a thing"): number(model.MAX_ATTRIBUTES),
    ("AWS IoT", "an answer of a function (`[functions]`)"): (
        f"{size(questions.MAX_ANSWER_BYTES)} of JSON, in {questions.PATIENCE_S:g} s; {questions.MOST_AT_ONCE} calls of "
        f"one at a time at a worker, {questions.MOST_WAITING} with those that wait"
    ),
    ("AWS IoT", "calls of a custom authorizer's function that let nobody in"): (
        f"{strangers.OF_ADDRESS} of an address at once, then one in {1 / strangers.OF_ADDRESS_A_SECOND:g} s; "
        f"{strangers.OF_AUTHORIZER} of all addresses at once, then {strangers.OF_AUTHORIZER_A_SECOND:g} a second, "
        "but for addresses that it let in lately"
    ),
    ("AWS IoT", "how long an authorizer lets in, and until it is asked again"): (
        f"{authorizing.MIN_TIME_S // 60} minutes to {authorizing.MAX_TIME_S // 3600} hours"
    ),
    ("AWS IoT", "policies of an answer; a token; keys that check tokens"): (
        f"{authorizing.MAX_DOCUMENTS}; {authorizing.MAX_TOKEN_CHARS} characters; {authorizing.MAX_KEYS}"
    ),
    ("AWS IoT", "policy of an access key or a role"): f"{policy.MAX_IAM_CHARS} characters without white space",
    ("AWS IoT", "life of a short-lived access key"): (
        f"{sessions_of_devices.MIN_DURATION_S // 60} minutes to {sessions_of_devices.MAX_DURATION_S // 3600} hours"
    ),
    ("AWS IoT", "tags of a resource"): (
        f"{tags.MAX_TAGS}; {tags.MAX_KEY} characters of key, {tags.MAX_VALUE} of value"
    ),
    ("AWS IoT", "thing groups in one line, of a thing, dynamic ones"): (
        f"{thing_groups.MAX_DEPTH}, {thing_groups.MAX_GROUPS}, {thing_groups.MAX_DYNAMIC}"
    ),
    ("Azure routes", "endpoints, routes, enrichments of a hub"): (
        f"{hub_routes.MAX_ENDPOINTS}, {hub_routes.MAX_ROUTES}, {hub_routes.MAX_ENRICHMENTS}"
    ),
    ("Azure routes", "steps that all conditions take for one message, together"): str(deciding.MAX_STEPS),
    ("Azure routes", "messages that wait of one route at one endpoint"): (
        f"{queue.MAX_WAITING}, {size(queue.MAX_WAITING_BYTES)}"
    ),
    ("Azure routes", "messages that were put aside of one route at one endpoint"): str(queue.MAX_DEAD),
    ("Azure routes", "tries of a message, over four minutes"): str(queue.TRIES),
    ("Azure routes", "kept in a stream; for how long"): (
        f"{size(hub_routing.KEEP_BYTES)}; {hub_routing.KEEP_S // 3600} h"
    ),
    ("Azure queries", "query"): (
        f"{query_language.MAX_CHARS} characters, {query_language.MAX_CONDITIONS} conditions, "
        f"{query_language.MAX_VALUES} values, {query_language.MAX_LEVELS} levels"
    ),
    ("Azure queries", "twins that a page of a query looks at; its time"): (
        f"{hub_finding.MAX_READ}, {hub_finding.MAX_S:g} s"
    ),
    ("Azure queries", "rows of a page of twins"): (
        f"{hub_queries.DEFAULT_PAGE}; at most {hub_queries.MAX_PAGE} as asked for, "
        f"{size(hub_queries.MAX_PAGE_BYTES)} as kept and as answered"
    ),
    ("Azure queries", "telemetry, or dead letters, in one answer"): size(backlog.MAX_ANSWER_BYTES),
    ("Azure queries", "enrollments, or things of `SearchIndex`, in one page"): size(backlog.MAX_ANSWER_BYTES),
    ("Azure queries", "groups of a query"): str(query_answers.MAX_GROUPS),
    ("Azure queries", "values of a twin that are indexed; characters of a path, of a value"): (
        f"{hub_terms.MAX_TERMS}; {hub_terms.MAX_PATH}, {hub_terms.MAX_VALUE}"
    ),
    ("Azure queries", "enrollments that a page of a query looks at; its time"): (
        f"{dps_queries.MAX_READ}, {dps_queries.MAX_S:g} s"
    ),
    ("AWS IoT", "search query"): (
        f"{search.MAX_CHARS} characters, {search.MAX_TERMS} terms, {search.MAX_LEVELS} levels"
    ),
    ("AWS IoT", "entries that a page of a search, or statistics, read; its time"): (
        f"{index.MAX_READ}, {index.MAX_S:g} s"
    ),
    ("AWS IoT", "values of a shadow that searches find, characters of one"): (
        f"{terms.MAX_OF_SHADOW}, {search.MAX_VALUE}"
    ),
    ("AWS IoT", "PEM of a certificate that is kept as it was given"): size(model.MAX_PEM),
    ("AWS IoT", "provisioning templates, versions of one; its characters"): (
        f"{templates.MAX_TEMPLATES}, {templates.MAX_VERSIONS}; {template_rules.MAX_TEMPLATE_CHARS}"
    ),
    ("AWS IoT", "parameters of a device; a request over MQTT for a first identity"): (
        f"{size(template_rules.MAX_PARAMETERS_BYTES)}; {size(provisioning_wire.MAX_REQUEST_BYTES)}"
    ),
    (
        "AWS IoT",
        "certificates that devices of one CA [register by themselves](../howto/aws-first-contact.md)",
    ): f"{first_contact.MAX_PER_CA}, {first_contact.PER_SECOND} of them within a second at a worker",
    ("AWS IoT", "certificates for one claim certificate"): f"{claims.BURST} at once, then {claims.PER_SECOND} a second",
    ("AWS IoT", "certificates that one claim certificate was given, and no device uses"): (
        f"{claims.MAX_OWNED}, of {claims.OWNED_FOR.seconds // 3600} hour"
    ),
    ("AWS IoT", "a certificate that `CreateProvisioningClaim` makes"): f"{claims.CLAIM_FOR.seconds // 60} minutes",
    ("AWS IoT", "bulk registrations that run; a line of their file, its lines"): (
        f"{tasks.MAX_RUNNING}; {size(buckets.MAX_LINE_BYTES)}, {buckets.MAX_LINES}"
    ),
    ("AWS IoT", "document of a job; targets of a job"): f"{size(job_wire.MAX_DOCUMENT_BYTES)}; {jobs.MAX_TARGETS}",
    (
        "AWS IoT",
        "presigned URLs in a document; their time; files that a thing, and all things, fetch at once at a worker",
    ): f"{documents.MAX_FILES}; 1 minute to {documents.LIFETIME_S // 3600} hour; "
    f"{job_files.MAX_READING_OF_THING}, {job_files.MAX_READING}",
    ("AWS IoT", "a piece of a file, and how long a thing may take it"): (
        f"{size(files.PIECE_BYTES)}, {files.PIECE_S // 60:.0f} minute"
    ),
    ("AWS IoT", "jobs in progress"): f"{jobs.MAX_ACTIVE}",
    ("AWS IoT", "topic rules; actions of one; destinations; streams"): (
        f"{rule_store.MAX_RULES}; {rule_wire.MAX_ACTIONS}; {rule_store.MAX_DESTINATIONS}; {rule_store.MAX_STREAMS}"
    ),
    ("AWS IoT", "SQL of a rule, its terms; steps and bytes that it takes for one message"): (
        f"{size(sql_parsing.MAX_SQL_BYTES)}, {sql_parsing.MAX_TERMS}; {sql_run.MAX_STEPS}, {size(sql_values.MAX_BYTES)}"
    ),
    ("AWS IoT", "time of topic rules in a second: of one principal, of one rule"): (
        f"{rule_shares.OF_PUBLISHER_S * 1000:g} ms, {rule_shares.OF_RULE_S * 1000:g} ms of the processor"
    ),
    ("AWS IoT", "rules in a row by republishing, a rule that its own message comes back to"): (
        f"{topic_rules.MAX_TRAIL}, once"
    ),
    ("AWS IoT", "tries of what a receiver does not take"): f"{queue.TRIES} in about four minutes",
    ("AWS IoT", "a stream of rules"): (f"{data_streams.KEEP_S // 86400} day, {data_streams.KEEP_BYTES // 1024**3} GiB"),
    ("AWS IoT", "the disk of the folder of buckets, for what rules write"): (
        f"{rule_files.LEAST_FREE:.0%} free, of blocks and of files".replace("%", " %")
    ),
    ("AWS IoT", "files and folders below it that rules and routes fill"): f"{rule_files.MOST_FILES}",
    ("AWS IoT", "pending jobs that a thing is told of"): f"{job_store.MAX_PENDING}, the next ones",
    ("AWS IoT", "status details of a job on a thing; characters of name, of value"): (
        f"{job_wire.MAX_DETAILS}; 128, {job_wire.MAX_DETAIL_CHARS}"
    ),
    ("AWS IoT", "CBOR: levels, items"): f"{cbor.MAX_DEPTH}, {cbor.MAX_ITEMS}",
    ("AWS IoT", "signature's age"): f"{sigv4.SKEW.total_seconds() / 60:g} minutes",
    ("Refusals", "rows, age"): f"{ledger.MAX_ROWS}, {ledger.KEEP.days} days",
    ("Refusals", "rows kept of one address"): number(ledger.MAX_ROWS_OF_ONE),
    ("Refusals", "rows from one address"): f"{SHARES.burst} at once, then {SHARES.per_s} a second",
    ("Refusals", "waiting for the database"): number(ledger.MAX_PENDING),
    ("Refusals", "a message or an explanation, a fact"): f"{ledger.MAX_CHARS}, {ledger._MAX_FACT_CHARS} characters",
    ("Revocation", "OCSP request"): (
        f"{size(ocsp.MAX_REQUEST_BYTES)}, {ocsp.MAX_ASKED} certificates, a nonce of 1 to {ocsp.MAX_NONCE_BYTES} octets"
    ),
    ("Revocation", "OCSP answers signed for one address"): (
        f"{signing_share.EACH[0]} at once, then {signing_share.EACH[1]} a second"
    ),
    ("Revocation", "OCSP answers signed for all together"): (
        f"{signing_share.ALL[0]} at once, then {signing_share.ALL[1]} a second"
    ),
    ("Revocation", "OCSP answers kept"): number(answers.MAX_KEPT),
    ("Parsers", "the extensions of a certificate"): (
        f"{extensions._MOST_EXTENSIONS}, {name_constraints.MAX_CONSTRAINTS} name constraints, "
        f"{extensions._MOST_OID_BYTES} bytes of an object identifier, {size(extensions._OFTEN_BYTES)} of most values"
    ),
    ("Parsers", "certificate"): (
        f"{size(certificates.MAX_CERTIFICATE_BYTES)}; a bundle {size(certificates.MAX_BUNDLE_BYTES)} and "
        f"{certificates.MAX_BUNDLE_CERTIFICATES} certificates"
    ),
    ("Parsers", "chain shown by a device"): f"{chains.MAX_BAG} certificates, depth {chains.MAX_DEPTH}",
    ("Parsers", "manifest entry"): size(splitting.MAX_ENTRY_BYTES),
    ("Parsers", "line of an intake bundle"): f"{size(bundle.MAX_LINE_BYTES)}, {bundle.MAX_CHAIN} certificates",
    ("Parsers", "a board's, an operator's or a station's name"): f"{bundle.MAX_NAME_CHARS} characters",
    ("Parsers", "certificate request"): f"{size(csr.MAX_CSR_BYTES)}, {size(csr.MAX_NAMES_BYTES)} of names",
    ("Parsers", "shared access signature"): f"{sas.MAX_TOKEN_CHARS} characters",
    ("Parsers", "properties of a message"): number(hub_messages.MAX_PROPERTIES),
    ("Parsers", "scenario of a swarm"): f"{size(swarm_scenario.MAX_FILE_BYTES)}, {swarm_scenario.MAX_DEVICES} devices",
    ("Parsers", "report of a swarm, read again"): size(swarm_report.MAX_REPORT_BYTES),
    ("Parsers", "devices in a state, for a page of the operator interface"): f"{finding.MAX_LOOKED} names",
    ("Parsers", "rows of the audit by more than one of actor, action and subject, for a page"): number(
        latest.MAX_LOOKED
    ),
    ("Parsers", "refusals by reason, `birthmark why --reasons`"): f"{console_refusals.MAX_BACK_S // 86_400} days",
    ("Sign-in of people", "wrong passwords of a user from one address"): f"{sign_in._FREE_HERE} at once",
    ("Sign-in of people", "wrong passwords of a user from addresses where nobody signed in as that one"): (
        number(sign_in._FREE_OF_USER)
    ),
    ("Sign-in of people", "wrong passwords of one address"): number(sign_in._FREE_OF_ADDRESS),
    ("Sign-in of people", "passwords that are checked at a time"): (
        f"one for each worker, with {size(passwords.MEMORY_KIB * 1024)}"
    ),
    ("Sign-in of people", "rows of the audit about wrong passwords"): number(sign_in._ROWS),
    ("Sign-in of people", "a session"): (
        f"{sessions.IDLE.seconds // 3600} h since it was used, {sessions.LONGEST.seconds // 3600} h since it began, "
        f"{sessions._MOST_OF_ONE} of a user"
    ),
    ("Sign-in of people", "a link of `birthmark console open`"): f"{sign_in.OPENS_FOR.seconds // 60} minutes",
    ("Sign-in of people", "browsers that follow what happens"): (
        f"{live.MOST_OF_ONE} of one user at a worker, {live.MOST} in all"
    ),
    ("Sign-in of people", "a form of a page"): f"{size(desk._MAX_FORM)}, {desk._MAX_FIELDS} fields",
    ("Sign-in of people", "devices that a page does something to at once"): number(taking.MOST),
    ("Sign-in of people", "commands that wait for a code to be typed"): (
        f"{asking.HOLDS.seconds // 60} minutes; {asking._MOST_OF_ADDRESS} of an address, {asking._MOST} of all"
    ),
    ("Sign-in of people", "codes that somebody mistypes"): number(asking._FREE),
    ("Sign-in of people", "an answer of a provider of OpenID Connect"): (
        f"{size(oidc._MOST_BYTES)}, in {sender.PATIENCE_S:g} s, {oidc._MOST_AT_ONCE} at a time"
    ),
    ("EST", "requests for one name by one who asks"): share_of(EstService, "requests"),
    ("EST", "certificates of one name that are alive"): number(EstSettings().max_live),
    ("EST", "uses of a name's expired certificates, where they count (`est.comeback`)"): share_of(Callers, "comebacks"),
    ("Kept for a time", "refusals"): f"{ledger.KEEP.days} days",
    ("Kept for a time", "certificates presented in refusals, for `device enroll --presented`"): (
        f"the last {presented.MOST}, {presented.MOST_OF_ONE} of an address, in memory"
    ),
    ("Kept for a time", "requests to EST that wait for an operator, or were decided and not fetched"): (
        f"{approvals.KEPT.days} days, {est_store.MAX_WAITING_PER_NAME} of a name by one who asks; "
        f"{approvals.MAX_WAITING_OF_ONE} undecided of one who asks, {approvals.MAX_WAITING} of all"
    ),
    ("Kept for a time", "approved requests that were fetched"): f"{approvals.AGAIN.days} day, for the same key",
    ("Kept for a time", "certificates that a device is issued as Azure does"): (
        f"{ordering.BURST} at once, then one in {ordering.EVERY_S} s"
    ),
    (
        "Kept for a time",
        "a device's request for a certificate at its hub",
    ): f"{hub_credentials.LASTS.seconds} s, one of a connection at a time",
    ("Kept for a time", "a certificate that was issued to a device as Azure does, for the same key to ask again"): (
        f"{min(hub_credentials.REPEATED_WITHIN, issuing.REPEATED_WITHIN).seconds // 3600} hour"
    ),
    ("Kept for a time", "telemetry"): (
        f"{telemetry.KEEP_S // 86400} day, and at most {telemetry.KEEP_BYTES // 1024**3} GiB of a hub"
    ),
    ("Kept for a time", "messages that wait for one `aws monitor`"): (
        f"{viewing.MAX_WAITING}, or {size(viewing.MAX_WAITING_BYTES)}"
    ),
    ("Kept for a time", "telemetry of one commit"): f"{stream.MAX_BURST} messages, or {size(stream.MAX_COMMIT_BYTES)}",
    ("Kept for a time", "who connected, left and was refused, for events"): (
        f"{notices.KEEP.days} days, and {number(notices.MOST)} of a worker; "
        f"{number(notices.MAX_WAITING)} that are not written yet"
    ),
    ("Kept for a time", "answers to requests with an `Idempotency-Key`"): (
        f"{once.KEPT_FOR.days} day, of {once.MAX_ANSWER_CHARS // 1024} KiB at most; "
        f"{number(once.MOST_OF_ONE)} of one who asks"
    ),
    ("Kept for a time", "the version of a deleted shadow"): f"{shadows.REMEMBERED_S // 3600} hours",
}
BYTES: Callable[[str], bool] = re.compile(r"max_.*_bytes(_per_peer)?$").fullmatch  # type: ignore[assignment]  # used as a predicate


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_a_row_of_the_page_is_what_the_code_has(row: tuple[str, str]) -> None:
    name = row[1].strip("`")
    if name in SETTINGS:
        value = SETTINGS[name]
        wanted = size(value) if BYTES(name) else number(value)
    else:
        wanted = EXPECTED[row]
    assert ROWS[row].startswith(wanted), f"the page says {ROWS[row]}, the code {wanted}"


def test_every_setting_and_every_constant_here_has_its_row() -> None:
    named = {name.strip("`") for _, name in ROWS}
    assert set(SETTINGS) - named == set()
    assert set(EXPECTED) - set(ROWS) == set()


@pytest.mark.parametrize(
    "sentence",
    [
        f"goes only after {budget.GRACE_S:g} s",
        f"a reserve of {descriptors.RESERVE} need",
        f"has a sixteenth of `max_connections`, at least {2 * descriptors.HEALTH_CONNECTIONS}, beside those of",
        f"The health port has {descriptors.HEALTH_CONNECTIONS} connections of its own",
        f"read on for at most {connection._LINGER_S:g} s and {size(connection._LINGER_BYTES)}",
        f"EST takes {size(est_wire.MAX_BODY_BYTES)} of request",
        f"and in it a certificate request of {size(csr.MAX_CSR_BYTES)} with {size(csr.MAX_NAMES_BYTES)} of",
        f"subject alternative names, DPS {size(dps_wire.MAX_PAYLOAD_BYTES)}",
        f"AWS {size(topics.MAX_PAYLOAD_BYTES)} of message",
        f"{quiet.EACH[0]} lines of one address at once, then {quiet.EACH[1]} a second",
        f"{quiet.ALL[0]} and {quiet.ALL[1]} for all together",
        f"undisturbed for {clock.STEADY_S / 60:g} minutes",
    ],
)
def test_a_sentence_of_the_page_is_what_the_code_has(sentence: str) -> None:
    assert sentence in " ".join(PAGE.split())


def test_deadlines_are_looked_at_as_often_as_the_page_says() -> None:
    assert listener._SWEEP_S == 0.5
    assert "looked at every half second" in PAGE
    assert hub_connections.MAX_KEEP_ALIVE_S == dps_mqtt.MAX_KEEP_ALIVE_S
