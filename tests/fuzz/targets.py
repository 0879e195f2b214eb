"""Every parser of bytes that strangers, other servers or suppliers send: the table of what is fuzzed.

A target passes when only documented errors come out of it (`BirthmarkError`, `ProtocolError`, `AmqpError`),
in time and space.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from birthmark.audit.signed_heads import parse_head
from birthmark.auth.connection_strings import parse_connection_string
from birthmark.awsiot.wire.index_query import parse_query
from birthmark.device_transports.urls import parse_url
from birthmark.doctor.rules import openssl_config
from birthmark.dps import wire as dps
from birthmark.dps.rules.queries import read_query as read_enrollments_query
from birthmark.fleet import enrollment_template
from birthmark.iothub import wire as hub
from birthmark.keys.pkcs11_uri import parse_pkcs11_uri
from birthmark.pki.certificates import parse_thumbprint
from birthmark.pki.fast_certificate_parser import parse_plain
from birthmark.pki.names_and_registration_ids import parse_registration_id
from birthmark.pki.tpm_importable_key import parse_sealed
from birthmark.pki.tpm_public_key import parse_tpm_public
from birthmark.secure_elements.atecc.simulator import packet
from birthmark.secure_elements.dps_assignment_codec import read_memory
from birthmark.secure_elements.token_object_management import guess
from birthmark.server.cluster.node_identity_and_invitation import made as made_machine
from birthmark.server.cluster.node_identity_and_invitation import parse as parse_machine
from birthmark.server.cluster.node_identity_and_invitation import render as render_machine
from birthmark.server.cluster.sealed_files import KEY_BYTES, files_in
from birthmark.swarm.model import TargetKind
from birthmark.swarm.scenario.example import example
from fuzz import amqp, bundle, certificates, corpus, manifest, protocols, rules
from fuzz.mutate import Mutate, mutate_bytes, mutate_der, mutate_json, mutate_text, tlv
from support.azure.sas_tokens import make_sas
from support.chips.tpm_vectors import ECC_EK, RSA_EK, RSA_SRK
from support.pki.pki_builders import key_pem


@dataclass(frozen=True)
class Target:
    """A parser, what to begin with, and how to spoil it."""

    name: str
    mutate: Mutate
    seeds: Sequence[bytes]
    parse: Callable[[bytes], object]


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


_CERTIFICATES = corpus.read("certificate")
_ROOT, _ISSUING, _DEVICE, _, _CHIP = _CERTIFICATES[:5]
_PLAIN = [one for one in _CERTIFICATES if parse_plain(one) is not None]
_REQUESTS = corpus.read("request")
_CSR_ATTRIBUTES = (
    bytes.fromhex("3000"),
    bytes.fromhex("302606072b06010101011606092a864886f70d01090706082a8648ce3d0403023006060355042a0c00"),
    bytes.fromhex("301d301b06092a864886f70d01090e310e300c300a06082b06010505070302"),
)
_REQUEST, _ISSUED = (
    base64.b64encode(_REQUESTS[0]).decode(),
    [base64.b64encode(one).decode() for one in _CERTIFICATES[:2]],
)
_REGISTRATIONS = (
    {"registrationId": "device-1", "csr": _REQUEST, "payload": {}},
    {"operationId": "5.a.b", "status": "assigned", "registrationState": {"issuedCertificateChain": _ISSUED}},
)
_CONFIGURATIONS: tuple[object, ...] = (
    {"id": "a", "content": {"deviceContent": {"properties.desired.a.b": 1}}, "targetCondition": "*", "priority": 1},
    {
        "content": {"moduleContent": {"properties.desired": {"a": None}}},
        "targetCondition": "from devices.modules where moduleId = 'm'",
    },
    {"content": {"modulesContent": {"$edgeAgent": {"properties.desired": {"modules": {"m": {}}}}}}},
    {
        "content": {"modulesContent": {"$edgeAgent": {"properties.desired.modules.m": {}}}},
        "metrics": {"queries": {"m": "select x from devices"}},
    },
)
_CREDENTIALS = (
    {"id": "device-1", "csr": _REQUEST, "replace": "*"},
    {"correlationId": "c", "certificates": _ISSUED},
    {"errorCode": 400040, "message": "m", "trackingId": "t", "info": {"requestId": "7"}},
)
_SAS = make_sas("0ne00ABCDEF/registrations/d", protocols.KEY, 1780315200, "registration").encode()
_SHARED = (msgspec.msgpack.encode({"root.pem": b"pem", "root.key": b"key"}),)
_KEY = key_pem(corpus.DEVICE_KEY).encode()
_KEY_TEXTS = (_KEY, base64.b64encode(_KEY), _KEY.replace(b"PRIVATE KEY", b"CERTIFICATE"))
_INVITATION = (render_machine(made_machine("0f" * 12, bytes(KEY_BYTES))),)
_URIS = (
    b"pkcs11:token=t;object=o;type=private?pin-source=file:///run/pin&module-path=/usr/lib/x.so",
    b"pkcs11:id=%01%02;serial=12;slot-id=3;x-a=b",
)
_HTTP = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
)
_OPENSSL = (
    b"openssl_conf = a\n[a]\nproviders = b\n[b]\ndefault = c\n[c]\nactivate = 1 # comment\n",
    b"[ p ]\npkcs11-module-path = /usr/lib/x.so\npkcs11-module-token-pin = file:/pin\n",
)
_SIGNED = (
    b"GET /things?maxResults=5&a=b%20c HTTP/1.1\nauthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE123456789/"
    b"20260601/eu-west-1/iot/aws4_request, SignedHeaders=host;x-amz-date, Signature="
    + b"ab"
    * 32
    + b"\nhost: localhost:8443\n"
    b"x-amz-date: 20260601T120000Z\n\n{}",
    b"GET /mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE123456789%2F20260601%2Feu-west-1%2Fiot%2F"
    b"aws4_request&X-Amz-Date=20260601T120000Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature="
    + b"ab" * 32
    + b"\nhost: localhost\n",
)
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["iot:Connect"], "Resource": "arn:aws:iot:us-east-1:0:client/${iot:ClientId}"},
        {
            "Sid": "a",
            "Effect": "Deny",
            "NotAction": "iot:*",
            "NotResource": ["arn:aws:iot:us-east-1:0:topic/a/*?"],
            "Condition": {
                "StringLike": {"iot:Certificate.Subject.CommonName": ["a*", "${*}"]},
                "IpAddress": {"aws:SourceIp": "192.0.2.0/24"},
                "NumericLessThan": {"aws:EpochTime": 5},
                "DateGreaterThan": {"aws:CurrentTime": "2026-06-01T12:00:00Z"},
                "ForAnyValue:StringEquals": {"iot:ConnectAttributes": ["PersistentConnect"]},
                "Bool": {"iot:Connection.Thing.IsAttached": True},
            },
        },
    ],
}
_JOBS = (
    {"status": "IN_PROGRESS", "statusDetails": {"step": "1"}, "expectedVersion": 1, "clientToken": "t"},
    {"status": "FAILED", "executionNumber": "1", "includeJobExecutionState": True, "stepTimeoutInMinutes": -1},
    {"maximumPerMinute": 5, "criteriaList": [{"failureType": "ALL", "numberOfRetries": 2}], "u": "${aws:iot:s3-x}"},
)
_SHADOWS = (
    {"state": {"desired": {"a": {"b": [1, {"c": 2}]}}, "reported": {"a": {"b": 1}}}, "clientToken": "t", "version": 1},
    {"state": {"desired": {"a": None}, "reported": None}},
)
_AWS = (
    {"attributePayload": {"attributes": {"a": "b"}, "merge": True}, "thingTypeName": "t", "expectedVersion": 1},
    {"certificatePem": _pem(_DEVICE).decode(), "caCertificatePem": "x", "status": "ACTIVE", "setAsActive": True},
    {"caCertificate": "x", "certificateMode": "SNI_ONLY", "registrationConfig": {"roleArn": "r"}},
    {"policyDocument": json.dumps(_POLICY), "target": "arn:aws:iot:r:0:cert/ab", "principal": "p"},
)
_EK = base64.b64encode(RSA_EK).decode()
_ENROLLMENTS = (
    {"registrationId": "d", "payload": {"a": [1]}},
    {
        "registrationId": "d",
        "deviceId": "D",
        "attestation": {
            "type": "x509",
            "x509": {"clientCertificates": {"primary": {"certificate": _pem(_DEVICE).decode()}, "secondary": None}},
        },
        "capabilities": {"iotEdge": True},
        "provisioningStatus": "enabled",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "allocationPolicy": "hashed",
        "iotHubs": ["h"],
        "initialTwin": {"tags": {}, "properties": {"desired": {}}},
    },
    {
        "enrollmentGroupId": "g",
        "attestation": {
            "type": "x509",
            "x509": {"signingCertificates": {"primary": {"certificate": base64.b64encode(_ISSUING).decode()}}},
        },
    },
    {"enrollmentGroupId": "g", "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "a2V5"}}},
    {"enrollmentGroupId": "g", "attestation": {"type": "x509", "x509": {"caReferences": {"primary": "ca"}}}},
    {"registrationId": "d", "attestation": {"type": "tpm", "tpm": {"endorsementKey": _EK, "storageRootKey": None}}},
    {"registrationId": "d", "tpm": {"endorsementKey": _EK, "storageRootKey": _EK}},
    {"operationId": "o", "status": "assigned", "registrationState": {"assignedHub": "h", "deviceId": "d"}},
    {"errorCode": 401002, "trackingId": "t", "message": "m"},
)
_DEVICES = (
    {"deviceId": "d", "status": "enabled", "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "a2V5"}}},
    {
        "deviceId": "d",
        "statusReason": "r",
        "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB" * 20}},
        "capabilities": {"iotEdge": True},
    },
)
_SCENARIO = (example(TargetKind.LOCAL).encode(), b"[group.a]\ndevices = 5\nrenew = '80%'\n[identities]\nfrom = 'est'\n")
_TOML = (
    b"""hostname = "my-device"

[provisioning]
source = "dps"
global_endpoint = "https://127.0.0.7:8443"
id_scope = "0ne00ABCDEF"

[provisioning.attestation]
method = "x509"
registration_id = "my-device"

[provisioning.attestation.identity_cert]
method = "est"
subject = { CN = "device", C = "CH" }

[provisioning.attestation.identity_cert.auto_renew]
rotate_key = true
threshold = "80%"
retry = "4%"

[cert_issuance.est]
trusted_certs = ["file:///data/trust.pem"]

[cert_issuance.est.auth]
username = "estuser"
password = "estpwd"

[cert_issuance.est.urls]
default = "https://127.0.0.7:8085/.well-known/est"
""",
    b"""[provisioning]
source = "manual"
iothub_hostname = "h"
device_id = "d"

[provisioning.authentication]
method = "x509"
identity_cert = "file:///c.pem"
identity_pk = "pkcs11:token=t;object=o"

[aziot_keys]
pkcs11_lib_path = "/usr/lib/x.so"

[preloaded_keys]
a = "file:///a.key"
b = "pkcs11:token=t;object=o"
""",
)
_HEAD = {
    "chain": "main",
    "seq": 5,
    "at": 1780315200000000,
    "digest": "ab" * 32,
    "key": "cd" * 32,
    "signature": "ef" * 64,
    "others": '[["worker-2",7,"' + "ab" * 32 + '"]]',
}
_COMPRESSED = (
    bytes(range(64)) + bytes.fromhex("c9869c2a0030a000"),
    b"\xff" * 64 + bytes.fromhex("0844a0f60010a000"),
)
_PACKETS = (packet(bytes.fromhex("30000000")), packet(bytes.fromhex("02800000")), packet(bytes.fromhex("41800000")))
_MEMORIES = (
    b'{"v":1,"n":3,"h":"hub.example","d":"dev-001","s":"0ne00ABCDEF"}'.ljust(416, b"\0"),
    b"sn0123456789ABCDEF01" + b"hub.example".ljust(48, b"\0") + b"theirs",
)
_PROOF = {
    "nonce": base64.b64encode(b"12345678").decode(),
    "scheme": "ecdsa-sha256",
    "signature": "MEQCIA==",
    "public_key": "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n",
}


def _json(*documents: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(document).encode() for document in documents)


_ALL = (
    Target("mqtt-3.1.1", mutate_bytes, protocols.streams(4), protocols.mqtt_codec(4)),
    Target("mqtt-5", mutate_bytes, protocols.streams(5), protocols.mqtt_codec(5)),
    Target("mqtt-server", mutate_bytes, protocols.streams(4) + protocols.streams(5), protocols.mqtt_server),
    Target("mqtt-server-5", mutate_bytes, protocols.streams(5)[2:], protocols.mqtt_server_5),
    Target("mqtt-client", mutate_bytes, protocols.streams(4, of_server=True), protocols.mqtt_client),
    Target("amqp-value", mutate_bytes, amqp.VALUES, amqp.value),
    Target("amqp-performative", mutate_bytes, amqp.PERFORMATIVES, amqp.performative),
    Target("amqp-message", mutate_bytes, amqp.MESSAGES, amqp.message),
    Target("amqp-frames", mutate_bytes, amqp.STREAMS, amqp.frames),
    Target("amqp-sasl", mutate_bytes, (*amqp.INITS, *amqp.RESPONSES), amqp.sasl),
    Target("amqp-server", mutate_bytes, amqp.STREAMS, amqp.server),
    Target("amqp-client", mutate_bytes, amqp.CLIENT_STREAMS, amqp.client),
    Target("certificate", mutate_der, _CERTIFICATES, certificates.certificate),
    Target("plain-certificate", certificates.mutate_plain, _PLAIN, certificates.plain),
    Target("pem", mutate_text, (_pem(_DEVICE), _pem(_DEVICE) + _pem(_ISSUING)), certificates.certificate_text),
    Target("chain", mutate_der, (tlv(0x30, _DEVICE + _ISSUING + _ROOT),), certificates.chain),
    Target("csr", mutate_der, _REQUESTS, certificates.request),
    Target("csr-signed", mutate_der, _REQUESTS[:3], certificates.signed_request),
    Target("cms", mutate_der, corpus.read("cms"), certificates.cms),
    Target("pkcs7", mutate_der, corpus.read("cms"), certificates.pkcs7),
    Target("key-text", mutate_text, _KEY_TEXTS, certificates.key_text),
    Target("ocsp", mutate_der, corpus.read("ocsp"), certificates.ocsp_request),
    Target("crl", mutate_der, corpus.read("crl"), certificates.crl),
    Target(
        "est-body", mutate_text, [*map(base64.encodebytes, (*_REQUESTS, *corpus.read("cms")))], certificates.est_body
    ),
    Target("est-csrattrs", mutate_der, _CSR_ATTRIBUTES, certificates.csr_attributes),
    Target("est-basic", mutate_text, (b"Basic ZGV2aWNlOnNlY3JldA==", b"application/pkcs10; a=b"), certificates.basic),
    Target("tpm-public", mutate_bytes, (RSA_EK, RSA_SRK, ECC_EK), lambda data: parse_tpm_public(data, "key").name),
    Target("tpm-sealed", mutate_bytes, protocols.sealed_keys(), parse_sealed),
    Target("sas", mutate_text, (_SAS, _SAS.replace(b"&skn", b"&sig")), protocols.sas_token),
    Target("sigv4", mutate_text, _SIGNED, protocols.signature_v4),
    Target(
        "connection-string",
        mutate_text,
        (b"HostName=h;SharedAccessKeyName=p;SharedAccessKey=a2V5a2V5",),
        protocols.text(parse_connection_string),
    ),
    Target(
        "property-bag",
        mutate_text,
        (b"a=1&b=2&c", b"%24.ct=application%2Fjson&%24.ce=utf-8&x=%20%C3%A9"),
        protocols.text(protocols.property_bag),
    ),
    Target(
        "dps-names",
        mutate_text,
        (
            b"0ne00ABCDEF/registrations/dev-001/api-version=2019-03-31&ClientVersion=a%2Fb",
            b"$dps/registrations/PUT/iotdps-register/?$rid=a-1",
            b"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=b&operationId=5.ab%2Ec",
            b"$dps/registrations/res/202/?$rid=a&retry-after=3",
        ),
        protocols.text(
            dps.is_dps_username, dps.parse_username, dps.parse_topic, protocols.response_topic, parse_registration_id
        ),
    ),
    Target(
        "hub-names",
        mutate_text,
        (
            b"hub.example/dev-001/?api-version=2021-04-12&DeviceClientType=a%2Fb",
            b"hub.example/dev-001/mod/?api-version=2021-04-12",
            b"$iothub/twin/GET/?$rid=1",
            b"$iothub/twin/PATCH/properties/reported/?$rid=2&$version=1",
        ),
        protocols.text(hub.is_hub_username, lambda text: hub.parse_topic(text, "d"), hub.parse_username),
    ),
    Target(
        "aws-names",
        mutate_text,
        (b"a/b/c", b"$aws/things/t/shadow/update", b"$share/g/a/+/#"),
        protocols.text(protocols.aws_topics),
    ),
    Target("rule-statement", mutate_text, rules.STATEMENTS, rules.statement),
    Target("rule-template", mutate_text, rules.TEMPLATES, rules.template),
    Target("route-condition", mutate_text, rules.CONDITIONS, rules.condition),
    Target(
        "aws-search",
        mutate_text,
        (
            b'thingName:pump* AND (attributes.site:7 OR NOT shadow.reported.on:true) "two words"',
            b"attributes.load:[1 TO 9] attributes.load > 4 connectivity.connected:false",
        ),
        protocols.text(parse_query),
    ),
    Target(
        "azure-query",
        mutate_text,
        (
            b"SELECT * FROM devices WHERE tags.site = 'it''s' AND (NOT properties.reported.on OR tags.n >= -1.5e3)",
            b"SELECT TOP 5 tags.[[a b]].c AS x, COUNT() AS n FROM devices.modules GROUP BY tags['a b'].c",
            b"SELECT * FROM enrollments WHERE registrationId IN ['a', \"b\", 0x1f, null] AND contains(etag, 'p')",
        ),
        protocols.text(
            protocols.hub_query,
            lambda text: read_enrollments_query(text, "enrollments"),
        ),
    ),
    Target("aws-policy", mutate_json, _json(_POLICY), protocols.aws_policy),
    Target("aws-json", mutate_json, _json(*_AWS), protocols.aws_json),
    Target("aws-template", mutate_json, _json(*protocols.TEMPLATES), protocols.aws_template),
    Target("aws-cbor", mutate_bytes, protocols.CBOR, protocols.aws_cbor),
    Target("aws-provision", mutate_json, _json(protocols.PROVISION), protocols.aws_provision),
    Target("aws-job", mutate_json, _json(*_JOBS), protocols.aws_job),
    Target("aws-shadow", mutate_json, _json(*_SHADOWS), protocols.aws_shadow),
    Target("dps-json", mutate_json, _json(*_ENROLLMENTS), protocols.dps_json),
    Target("dps-issuing", mutate_json, _json(*_REGISTRATIONS), protocols.dps_issuing),
    Target("hub-configuration", mutate_json, _json(*_CONFIGURATIONS), protocols.hub_configuration),
    Target(
        "blob-requests",
        mutate_text,
        (
            b"<BlockList><Latest>YQ==</Latest><Uncommitted>Yg==</Uncommitted></BlockList>",
            b"sv=2021-12-02&sr=b&si=id&se=2026-06-01T13%3A00%3A00Z&sp=cw&sig=AAAA",
            b"https://hub.example/storage/registry?sv=2021-12-02&sr=c&sp=rw&sig=AAAA",
            b"Mon, 01 Jun 2026 12:00:00 GMT",
            b'{"id":"d","importMode":"createOrUpdate","tags":{},"properties":{"desired":{},"reported":{}}}',
            b'{"type":"import","inputBlobContainerUri":"https://h/storage/c","outputBlobContainerUri":"https://h"}',
        ),
        protocols.blob_requests,
    ),
    Target("hub-credentials", mutate_json, _json(*_CREDENTIALS), protocols.hub_credentials),
    Target(
        "dps-allocation",
        mutate_json,
        _json(
            {
                "iotHubHostName": "hub.example",
                "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": [1]}}},
                "payload": {"c": None},
            }
        ),
        protocols.allocation,
    ),
    Target(
        "hub-digital-twin",
        mutate_json,
        _json(
            [
                {"op": "add", "path": "/fan/speed", "value": 3},
                {"op": "replace", "path": "/fan", "value": {"$metadata": {}, "mode": {"night": True}}},
                {"op": "remove", "path": "/n"},
            ]
        ),
        protocols.digital_twin_patch,
    ),
    Target("hub-job", mutate_json, _json(*protocols.HUB_JOBS), protocols.hub_job),
    Target("hub-json", mutate_json, _json(*_DEVICES), protocols.hub_json),
    Target("pkcs11-uri", mutate_text, _URIS, protocols.text(parse_url, parse_pkcs11_uri)),
    Target(
        "url",
        mutate_text,
        (b"https://user@h.example:8443/a?b=c", b"https://[::1]/"),
        protocols.text(parse_url, parse_thumbprint),
    ),
    Target("chip-memory", mutate_bytes, _MEMORIES, read_memory),
    Target("chip-data", mutate_bytes, (*_MEMORIES, b'{"a": 1}', _DEVICE), guess),
    Target("compressed-certificate", mutate_bytes, _COMPRESSED, protocols.rebuilt),
    Target("atecc-packet", mutate_bytes, _PACKETS, protocols.atecc_packet),
    Target("reference-key", mutate_text, corpus.read("reference"), protocols.reference_key),
    Target(
        "est-pacing",
        mutate_text,
        (
            b"2026-10-21T07:00:00Z/2026-10-21T09:00:00+00:00\n",
            b"Wed, 21 Oct 2026 07:28:00 GMT\nWed, 21 Oct 2026 07:30:00 GMT",
        ),
        protocols.est_pacing,
    ),
    Target("http-answer", mutate_bytes, _HTTP, protocols.http_answer),
    Target("openssl-conf", mutate_text, _OPENSSL, protocols.text(openssl_config.parse)),
    Target("agent-config", mutate_text, _TOML, protocols.agent_config),
    Target("enroll-template", mutate_text, (enrollment_template.example().encode(),), protocols.template),
    Target("swarm-scenario", mutate_text, _SCENARIO, protocols.swarm_scenario),
    Target("manifest", mutate_json, manifest.file_seeds(), manifest.read_file),
    Target("manifest-signed", mutate_json, (manifest.PAYLOAD,), manifest.signed_payload),
    Target("manifest-chain", mutate_der, (tlv(0x30, _CHIP + _ISSUING),), manifest.signed_certificates),
    Target("bundle", mutate_text, (bundle.WHOLE,), bundle.read_file),
    Target("bundle-signed", mutate_json, bundle.SAID, bundle.signed_line),
    Target("proxy-header", mutate_bytes, protocols.PROXY_HEADERS, protocols.proxy_header),
    Target("host", mutate_text, (b"localhost:8443", b"[::1]:443", b"a.example\nb.example"), protocols.host),
    Target("shared-files", mutate_bytes, _SHARED, lambda data: files_in(data, "ca")),
    Target("invitation", mutate_json, _INVITATION, lambda data: parse_machine(data, Path("invitation.json"))),
    Target("audit-head", mutate_json, _json(_HEAD), parse_head),
    Target("possession-proof", mutate_json, _json(_PROOF), protocols.proof),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
