"""MQTT, tokens, names, JSON and configuration, as strangers or files bring them."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from birthmark.agent.config import parse_config
from birthmark.auth import sas, sigv4
from birthmark.awsiot import wire as aws
from birthmark.awsiot.http.app import GROUPS
from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS
from birthmark.awsiot.model import Job, JobStatus, Shadow
from birthmark.awsiot.rules import job_executions, mqtt_protocol_limits, provisioning_templates, shadows
from birthmark.awsiot.rules.policy import ConnectionPermissions, parse_policy
from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.awsiot.wire import jobs as job_wire
from birthmark.awsiot.wire import provisioning
from birthmark.awsiot.wire import shadows as shadow_wire
from birthmark.awsiot.wire.cbor import CborError, decode, encode
from birthmark.blob_storage.model import BlobAccount
from birthmark.blob_storage.rules import BlobConditions, find_unmet_condition
from birthmark.blob_storage.wire import parse_block_list, parse_metadata, parse_sas
from birthmark.device_transports.urls import UrlInvalidError
from birthmark.documents import DocumentSection, merged, query_evaluator
from birthmark.dps import enrollment_document
from birthmark.dps import wire as dps
from birthmark.dps.rules import enrollment_validation as enrollments
from birthmark.dps.rules.custom_allocation import parse_choice, payload_text
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.est.client import _retry_after_s as pacing_retry_after
from birthmark.est.wire import parse_window as pacing_window
from birthmark.fleet.enrollment_template import parse_template
from birthmark.iothub import wire as hub
from birthmark.iothub.model import Configuration, ConfigurationKind, Twin
from birthmark.iothub.rules import configuration_overlays as overlays
from birthmark.iothub.rules import configurations as configuration_rules
from birthmark.iothub.rules import scheduled_jobs as hub_job_rules
from birthmark.iothub.rules import twin_query_plans as hub_queries
from birthmark.iothub.rules.digital_twins import desired_by, digital_twin
from birthmark.iothub.rules.twins import begun, desire
from birthmark.iothub.wire import configurations
from birthmark.iothub.wire import scheduled_jobs as hub_jobs
from birthmark.iothub.wire.registry_jobs import parse_container_uri, parse_import_line, parse_registry_job
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.keys.se050_reference_keys import parse_reference_key, reference_public_key
from birthmark.mqtt import codec
from birthmark.mqtt.engine import MqttEngine, MqttLimits, MqttRole
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import (
    LEVEL_5,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
)
from birthmark.mqtt.properties import Properties, PropertyId
from birthmark.net.host_header_syntax import RequireAuthority
from birthmark.net.proxy_protocol import HEAD_BYTES, SIGNATURE, ProxyHeaderError, rest_of, source_of
from birthmark.pki.certificates import parse_der
from birthmark.pki.tpm_importable_key import seal_hmac_key
from birthmark.pki.tpm_public_key import parse_tpm_public
from birthmark.secure_elements.atecc.certificate_rebuild import SIGNER, TNGTLS, TRUSTFLEX, TemplateSubject, whole
from birthmark.secure_elements.atecc.compressed_certificate import parse_compressed
from birthmark.secure_elements.atecc.simulator import CONFIG_BYTES, OTP_BYTES, SLOT_BYTES, ChipMemory, SoftwareChip
from birthmark.secure_elements.possession import PossessionProof, check_proof
from birthmark.swarm.http_wire import AnswerBrokenError, AnswerReader
from birthmark.swarm.scenario.parser import parse_scenario
from birthmark.untrusted_json_and_text import read_json
from fuzz.certificates import DEVICE_CERTIFICATE
from support.aws.account import a_call
from support.azure.sas_tokens import make_sas
from support.chips.tpm_vectors import ECC_EK, ECC_SRK, RSA_EK, RSA_SRK
from support.fakes import NOON, SeededEntropy

KEY = b"k" * 32
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
_MOST_BYTES = 64 * 1024
_LIMITS = MqttLimits(max_packet_bytes=4096)
OFFERED: Properties = (
    (PropertyId.RECEIVE_MAXIMUM, 30),
    (PropertyId.MAXIMUM_QOS, 1),
    (PropertyId.TOPIC_ALIAS_MAXIMUM, 2),
    (PropertyId.SUBSCRIPTION_IDS_AVAILABLE, 0),
)
_CONNECTION = facts_of(DEVICE_CERTIFICATE, ConnectionContext(DEVICE_CERTIFICATE, "pump-1", "192.0.2.7", "localhost"))


def mqtt_codec(level: int) -> Callable[[bytes], None]:
    """Cut and read; what is read must be written and read again as the same."""

    def parse(data: bytes) -> None:
        framer = Framer(4096)
        framer.receive_data(data[: len(data) // 2])
        _read_frames(framer, level)
        framer.receive_data(data[len(data) // 2 :])
        _read_frames(framer, level)

    return parse


def _read_frames(framer: Framer, level: int) -> None:
    while (frame := framer.next_frame()) is not None:
        packet = codec.decode(*frame, level)
        spoken = packet.level if isinstance(packet, Connect) else level
        with contextlib.suppress(LocalProtocolError):  # we say less than we understand
            again = Framer(1 << 20)
            again.receive_data(codec.encode(packet, spoken))
            found = again.next_frame()
            assert found is not None
            assert codec.decode(*found, spoken) == packet


def mqtt_server(data: bytes) -> None:
    """A stream from a client, in two pieces; the server says yes to everything."""
    engine = MqttEngine(MqttRole.SERVER, _LIMITS)
    for at, piece in enumerate((data[: len(data) // 3], data[len(data) // 3 :])):
        engine.receive_data(piece, float(at))
        while (event := engine.next_event()) is not None:
            with contextlib.suppress(LocalProtocolError):
                _answer(engine, event)
    _ = (engine.data_to_send(), engine.deadline)


def _answer(engine: MqttEngine, event: object) -> None:
    match event:
        case Connect(level=level):
            engine.send(ConnAck(properties=OFFERED if level == LEVEL_5 else ()))
        case Publish(topic=topic, payload=payload, packet_id=int() as packet_id, properties=properties):
            engine.ack([packet_id])
            engine.publish(topic, payload, 1, properties=properties)
        case Subscribe(packet_id=packet_id, filters=filters):
            engine.send(SubAck(packet_id, tuple(0 for _ in filters)))
        case _:
            pass  # it wants no answer


class _CodecOnly(MqttEngine):
    """An engine whose fast path finds nothing."""

    def next_burst(self) -> list[Publish]:
        return []


def mqtt_server_5(data: bytes) -> None:
    """What a client of MQTT 5 sends behind its CONNECT: the fast path hears and says what the codec does."""
    heard = _talk(MqttEngine(MqttRole.SERVER, _LIMITS), data)
    assert heard == _talk(_CodecOnly(MqttRole.SERVER, _LIMITS), data)
    if heard[1]:
        raise RemoteProtocolError(heard[1])


def _talk(engine: MqttEngine, data: bytes) -> tuple[list[object], str, bytes]:
    """Return what the server hears, why it ends, and what it says; it acknowledges at the end."""
    greeting: Properties = ((PropertyId.TOPIC_ALIAS_MAXIMUM, 3), (PropertyId.MAXIMUM_PACKET_SIZE, 300))
    engine.receive_data(codec.encode(Connect("d", level=LEVEL_5, properties=greeting)), 0.0)
    while (event := engine.next_event()) is not None:
        _answer(engine, event)
    heard: list[object] = []
    why = ""
    try:
        engine.receive_data(data, 1.0)
        while (event := engine.next_event()) is not None:
            heard.append(event)
    except RemoteProtocolError as error:
        why = error.reason
    with contextlib.suppress(LocalProtocolError):
        for one in heard:
            _answer(engine, one)
    return heard, why, engine.data_to_send()


def mqtt_client(data: bytes) -> None:
    """A stream from a server that a client is connected to."""
    engine = MqttEngine(MqttRole.CLIENT, _LIMITS)
    engine.send(Connect("d", level=5 if len(data) % 2 else 4))
    engine.receive_data(data[:4], 0.0)
    engine.receive_data(data[4:], 1.0)
    while (event := engine.next_event()) is not None:
        with contextlib.suppress(LocalProtocolError):
            _answer(engine, event)
    _ = engine.data_to_send()


_TEXT: Properties = (
    (PropertyId.PAYLOAD_FORMAT, 1),
    (PropertyId.MESSAGE_EXPIRY, 60),
    (PropertyId.CONTENT_TYPE, "text/plain"),
    (PropertyId.RESPONSE_TOPIC, "a/b"),
    (PropertyId.CORRELATION_DATA, b"1"),
    (PropertyId.USER_PROPERTY, ("a", "b")),
    (PropertyId.USER_PROPERTY, ("a", "c")),
)
_SAID_IN_5: tuple[Packet, ...] = (
    Publish("topic", b"1", 1, packet_id=7, properties=((PropertyId.TOPIC_ALIAS, 1),)),
    Publish("", b"2", 1, packet_id=8, properties=((PropertyId.TOPIC_ALIAS, 1),)),
    Publish("", b"3", properties=((PropertyId.TOPIC_ALIAS, 1), *_TEXT)),
    Subscribe(9, (("$share/g/a/+", 0x2D),)),
    PubAck(1, 0x10),
)


def streams(level: int, *, of_server: bool = False) -> tuple[bytes, ...]:
    """Return some packets each alone, and one whole conversation."""
    up: list[Any] = [
        Connect("d", clean_start=True, keep_alive_s=60, username="h/d/?api-version=1", password=b"p", level=level),
        Subscribe(1, (("a/+/#", 1), ("b", 0))),
        Publish("devices/d/messages/events/a=1&b", b"{}", 1, packet_id=2),
        Publish("t", b"x" * 200),
        Disconnect(),
    ]
    if level == LEVEL_5:
        up[2:2] = _SAID_IN_5
    down: list[Any] = [ConnAck(), SubAck(1, (1, 0)), Publish("a/b", b"down", 1, packet_id=1), PubAck(2)]
    parts = [codec.encode(packet, level) for packet in (down if of_server else up)]
    return (b"".join(parts), parts[0] + parts[-2] * 20, *parts)


def sas_token(data: bytes) -> None:
    """Read, checked, and once more with a good signature for what it says."""
    text = data.decode("utf-8", "replace")
    token = sas.parse_sas(text)
    with contextlib.suppress(BirthmarkError):
        sas.check_sas(token, [b"other", KEY], NOON)
    token = sas.parse_sas(make_sas(token.resource, KEY, token.expiry_s, token.policy))
    sas.check_sas(token, [KEY], NOON)
    sas.check_resource(token, ["0ne00ABCDEF/registrations/d", "localhost"])


def signature_v4(data: bytes) -> None:
    """Head of a request as text: request line, headers, body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, _, target = first.partition(" ")
    path, _, query = target.partition("?")
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    request = sigv4.SignedRequest(method, path, query, headers, body)
    sigv4.is_signed(headers[0][1] if headers else "", query)
    signature = sigv4.parse_signature(request)
    right = sigv4._digest(request, signature, SECRET, frozenset())
    for claimed in (replace(signature, digest=right), signature):
        sigv4.check_signature(request, claimed, SECRET, NOON, services={"iot"})


def text(*parsers: Callable[[str], Any]) -> Callable[[bytes], None]:
    """Every parser sees the text; the last one's refusal counts."""

    def parse(data: bytes) -> None:
        told = data.decode("utf-8", "replace")
        for one in parsers[:-1]:
            with contextlib.suppress(BirthmarkError, UrlInvalidError):
                one(told)
        parsers[-1](told)

    return parse


def property_bag(told: str) -> None:
    bag = hub.parse_property_bag(told)
    assert hub.parse_property_bag(hub.render_property_bag(bag)) == bag or "" in bag
    hub.message_of("d", bag, b"", 0)


def response_topic(told: str) -> None:
    dps.parse_retry_after(told)
    dps.parse_response_topic(told)


def aws_topics(told: str) -> None:
    checks: tuple[Callable[[], object], ...] = (
        lambda: mqtt_protocol_limits.check_client_id(told, is_kept=True),
        lambda: mqtt_protocol_limits.check_filter("d", told),
        lambda: mqtt_protocol_limits.check_publish("d", told, 10, 1),
    )
    for check in checks:
        with contextlib.suppress(BirthmarkError):
            check()


def aws_policy(data: bytes) -> None:
    parse_policy.cache_clear()
    policy = parse_policy("p", data.decode("utf-8", "replace"))
    for action, resource in (("iot:Connect", "client/pump-1"), ("iot:Publish", "topic/a/b"), ("iot:Subscribe", "x")):
        ConnectionPermissions([policy], _CONNECTION).decide(action, f"arn:aws:iot:us-east-1:0:{resource}", NOON)


TEMPLATES: Sequence[Any] = (
    {
        "Parameters": {"Name": {"Type": "String"}, "Place": {"Type": "String", "Default": "plant"}},
        "Mappings": {"Lines": {"plant": {"line": "4", "names": ["x", "y"]}}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Fn::Join": ["-", [{"Ref": "Name"}, {"Fn::FindInMap": ["Lines", "plant", "line"]}]]},
                    "AttributePayload": {"a": {"Fn::Select": ["0", {"Fn::Split": ["-", {"Ref": "Name"}]}]}},
                    "ThingGroups": ["v1"],
                },
                "OverrideSettings": {"AttributePayload": "MERGE"},
            },
            "policy": {
                "Type": "AWS::IoT::Policy",
                "Properties": {"PolicyDocument": {"Statement": [{"Fn::Sub": "${Name} ${thing}"}]}},
            },
        },
        "DeviceConfiguration": {"a": ["b", {"Ref": "Place"}]},
    },
)
PROVISION = {"certificateOwnershipToken": "t", "parameters": {"SerialNumber": "1"}, "certificateSigningRequest": "x"}
CBOR = (encode(PROVISION), encode({"a": [1, -1, None, True, b"x", 1.5]}), bytes.fromhex("bf61610161629f0203ffff"))


def aws_template(data: bytes) -> None:
    provisioning_templates.parse_template.cache_clear()
    provisioning_templates.parse_template(data.decode("utf-8", "replace")).plan({"Name": "a-b", "Place": "x" * 100})


def aws_cbor(data: bytes) -> None:
    with contextlib.suppress(CborError):
        encode(decode(data))
    provisioning.parse_provision(data, "cbor")


def aws_provision(data: bytes) -> None:
    provisioning.parse_csr_request(data, "json")
    provisioning.parse_provision(data, "json")


_AWS_SERVED = [one for one in OPERATIONS if any(hasattr(group, one.verb) for group in GROUPS)]
_AWS_PARTS: Sequence[type] = (aws.AttributePayload, aws.RegistrationConfig)


def aws_json(data: bytes) -> None:
    """Every member of every body that the control plane takes, and the structures in them."""
    for operation in _AWS_SERVED:
        call = a_call(operation, body=data)
        for member in operation.members:
            with contextlib.suppress(BirthmarkError):
                match member.type:
                    case "string":
                        call.get(member.name)
                    case "boolean":
                        call.flag(member.name)
                    case "integer" | "long":
                        call.number(member.name)
                    case _:
                        call.part(member.name, dict)
    for part in _AWS_PARTS:
        with contextlib.suppress(BirthmarkError):
            aws.parse_body(data, part)


def aws_shadow(data: bytes) -> None:
    """A request about a shadow, and all that is said of what it does to one."""
    request = shadow_wire.parse_request(data)
    update = shadows.parse_update(request, Shadow("t"))
    before = Shadow("t")
    for _ in range(2):
        after = shadows.apply_update(before, msgspec.structs.replace(update, version=None), request.size, 1_000_000)
        shadow_wire.sections_of(shadow_wire.sections_body(after.desired, after.reported))
        for body in (
            shadow_wire.shadow_json(after, 1, request.token),
            shadow_wire.update_json(after, update.patch, 1, request.token),
            shadow_wire.documents_json(before, after, 1, request.token),
            shadow_wire.delta_json(after, 1, request.token),
        ):
            msgspec.json.decode(body or b"{}")
        before = after


def aws_job(data: bytes) -> None:
    """A device's request about a job and all that is said of it, a job's document, and how one goes out."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(BirthmarkError):
        job_wire.find_unsupported_placeholder(job_wire.parse_document(text))
    for kind in job_wire.SETTINGS.values():
        with contextlib.suppress(BirthmarkError):
            aws.parse_body(data, kind)
    job_wire.token_of(data)
    update = job_wire.parse_request(data, is_update=True)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(*("j", "{}", None, {}, False, None, JobStatus.IN_PROGRESS, False, None, None, now, now, None, 0, now, 1))
    made = job_executions.apply_device_update(job_executions.create_first_execution(job, "t", now), update, job, now)
    for told in (job_wire.execution(made, "{}", now), job_wire.state(made), job_wire.lists([made], ("a", "b"))):
        msgspec.json.decode(job_wire.body(told, now, update.client_token))


def dps_json(data: bytes) -> None:
    for parse in (dps.parse_registration, dps.parse_operation, dps.parse_error):
        with contextlib.suppress(BirthmarkError):
            parse(data)
    known = enrollments.complete(enrollment_document.parse_document(data), None, SeededEntropy(7))
    enrollments.certificates_of(known)
    enrollments.enrollment_of(known)
    enrollment_document.document_view(known)


def sealed_keys() -> tuple[bytes, ...]:
    """Keys sealed for TPMs of both kinds."""
    pairs = ((RSA_EK, RSA_SRK), (ECC_EK, ECC_SRK))
    return tuple(
        seal_hmac_key(KEY, parse_tpm_public(endorsement, "key"), parse_tpm_public(root, "key"), SeededEntropy(9))
        for endorsement, root in pairs
    )


def hub_json(data: bytes) -> None:
    hub.parse_device_body(data)


def hub_configuration(data: bytes) -> None:
    """Read a configuration; apply a valid one twice, which changes nothing the second time."""
    request = configurations.parse_configuration(data)
    configuration_rules.check_request(request.id or "", request)
    if request.kind is None:
        return
    made = Configuration(
        *("hub", "id", "etag", request.kind, request.priority, request.target_condition, request.content, NOON, NOON)
    )
    configuration_rules.system_queries(made)
    modules = {name: Twin("hub", f"d/{name}") for name in ("$edgeAgent", "$edgeHub")}
    if request.kind is ConfigurationKind.DEPLOYMENT:
        found = overlays.compose_deployment(modules, [made])
        modules = {
            name: overlays.with_composition(twin, found.desired.get(name), found.states if "A" in name else {}, 1)
            for name, twin in modules.items()
        }
        again = overlays.compose_deployment(modules, [made])
        assert all(again.desired[name] == modules[name].desired.values for name in modules if name in again.desired)
        return
    twin = Twin("hub", "d")
    found = overlays.compose(twin, [made])
    twin = overlays.with_composition(twin, found.desired[""], found.states, 1)
    again = overlays.compose(twin, [made])
    assert overlays.with_composition(twin, again.desired[""], again.states, 2) is twin


def blob_requests(data: bytes) -> None:
    """Read bytes as what clients of the blob storage send: a block list, a signature, headers, a line of an import."""
    told = data.decode("latin-1")
    query = dict(parse_qsl(told, keep_blank_values=True))
    account, now = BlobAccount("hub", (b"key",)), datetime(2026, 6, 1, tzinfo=UTC)
    for parse in (
        lambda: parse_block_list(data),
        lambda: parse_sas(account, "uploads", "d1/f", query, now),
        lambda: parse_metadata({f"x-ms-meta-{name}": value for name, value in query.items()}),
        lambda: find_unmet_condition(BlobConditions(if_modified_since=told), None),
        lambda: parse_container_uri(told, "hub", "inputBlobContainerUri"),
        lambda: parse_import_line(data),
        lambda: parse_registry_job(data),
    ):
        with contextlib.suppress(BirthmarkError):
            parse()


def hub_credentials(data: bytes) -> None:
    """What a device asks its hub for, and what a hub answers a device."""
    for parse in (hub.parse_issued, hub.parse_credential_error):
        with contextlib.suppress(BirthmarkError):
            parse(data)
    hub.parse_credential_topic(data.decode("utf-8", "replace"))
    hub.parse_credential_request(data)


def dps_issuing(data: bytes) -> None:
    """A registration with a request, and its answer with a chain."""
    with contextlib.suppress(BirthmarkError):
        answer = dps.parse_operation(data).registration_state
        dps.parse_chain([] if answer is None else answer.issued_certificate_chain)
    dps.csr_of(dps.parse_registration(data))


def est_pacing(data: bytes) -> None:
    """What an EST server says about when, in its headers."""
    first, _, second = data.decode("latin-1").partition("\n")
    pacing_window(first)
    pacing_retry_after({"retry-after": first, "date": second})


def agent_config(data: bytes) -> None:
    parse_config(Path("/etc/aziot/config.toml"), data.decode("utf-8", "replace"))


def template(data: bytes) -> None:
    parse_template(data.decode("utf-8", "ignore"), Path("template.toml"))


def swarm_scenario(data: bytes) -> None:
    parse_scenario(Path("swarm.toml"), data.decode("utf-8", "replace"))


PROXY_HEADERS = (
    SIGNATURE + bytes.fromhex("2111000c") + bytes.fromhex("c0000201cb007101c00022b3"),
    SIGNATURE + bytes.fromhex("2121002b") + bytes(36) + bytes.fromhex("04000463726333"),
    SIGNATURE + bytes.fromhex("20000000"),
)


def proxy_header(data: bytes) -> None:
    """As a door reads it: sixteen bytes, and as many as they announce."""
    head, rest = data[:HEAD_BYTES], data[HEAD_BYTES:]
    with contextlib.suppress(ProxyHeaderError):  # what the door catches
        source_of(head, rest[: rest_of(head)])


def http_answer(data: bytes) -> None:
    """In two pieces, as a connection may bring it."""
    reader, half = AnswerReader(_MOST_BYTES), len(data) // 2
    with contextlib.suppress(AnswerBrokenError):  # what the adapter catches
        if reader.receive(data[:half]) is None and reader.receive(data[half:]) is None:
            reader.end()


def rebuilt(data: bytes) -> None:
    """From a chip's slot to a certificate that is parsed."""
    short = parse_compressed(data)
    for template in (SIGNER, TNGTLS, TRUSTFLEX):
        parse_der(whole(template, short, TemplateSubject(bytes(64), bytes(9), "0" * 12), bytes(20)))


def atecc_packet(data: bytes) -> None:
    memory = ChipMemory(bytes(CONFIG_BYTES), bytes(OTP_BYTES), [bytes(size) for size in SLOT_BYTES])
    answer = SoftwareChip(memory, bytes).answer(data)
    assert answer[0] == len(answer)


def reference_key(data: bytes) -> None:
    parse_reference_key(data)
    reference_public_key(data)
    uri_in(data)


def host(data: bytes) -> None:
    """Through the gate that every request passes."""
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        seen.append("app")

    async def send(message: Any) -> None:
        seen.append(message)

    headers = [(b"host", one) for one in data.split(b"\n")]
    gate = RequireAuthority(app, lambda error, _address, _peer: seen.append(error.explain_cause()))
    passed = gate({"type": "http", "headers": headers, "client": ("192.0.2.1", 1)}, send, send)  # type: ignore[arg-type]  # a scope and channels by hand
    with contextlib.suppress(StopIteration):
        passed.send(None)
    assert seen


def proof(data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # what the command catches
        check_proof(msgspec.json.decode(data, type=PossessionProof), b"12345678")


def allocation(data: bytes) -> None:
    """Read what a program that chooses a hub answers."""
    choice = parse_choice(data, ("hub.example", "second.example"), host="h", enrollment="e", registration_id="d")
    payload_text(choice.payload)
    with contextlib.suppress(InvalidRequestError):
        begun(Twin("hub", "d"), dict(choice.twin or {}), 1)


def digital_twin_patch(data: bytes) -> None:
    """Read a JSON Patch of a digital twin, and apply what it means."""
    component = {"__t": "c", "speed": 3}
    twin = Twin("hub", "d", {}, merged(DocumentSection(), {"fan": component, "n": 1}, 1))
    meant = desired_by(twin, read_json(data, object, hub.BodyInvalidError))
    digital_twin(desire(twin, {"properties": {"desired": meant}}, 2))


HUB_JOBS: tuple[Any, ...] = (
    {
        "jobId": "j",
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "look", "payload": {"a": [1]}, "responseTimeoutInSeconds": "30"},
        "queryCondition": "from devices.modules where moduleId = 'm'",
        "startTime": "2026-01-01T12:00:00.0000000Z",
        "maxExecutionTimeInSeconds": 60,
    },
    {
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "deviceId": "d", "tags": {"a": 1}, "properties": {"desired": {"b": {"c": None}}}},
        "queryCondition": "tags.site = 'north'",
        "startTime": None,
    },
)


def hub_job(data: bytes) -> None:
    """Read a scheduled job, and show it as clients see it."""
    order = hub_jobs.parse_job_order(data, "j")
    made = hub_job_rules.create_job("hub", "j", order, "service", NOON)
    json.dumps(hub_jobs.job_json(made, NOON))
    hub_jobs.parse_job_filter(order.condition[:20], order.condition[-9:])


def hub_query(text: str) -> None:
    """Read a query of a hub, plan it, and ask a twin what it asks."""
    query = hub_queries.read_query(text)
    hub_queries.plan(query.where)
    tags = {"site": "it's", "n": 1, "a b": {"c": [1]}}
    twin = {"deviceId": "d", "tags": tags, "properties": {"reported": {"on": True}}}
    query_evaluator.fits(query.where, twin)
    if query.is_summed:
        summing = query_evaluator.GroupedRows(query)
        summing.add(twin)
        summing.rows()
    else:
        query_evaluator.row_of(query, twin)
