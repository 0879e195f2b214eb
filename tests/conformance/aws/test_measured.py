"""What MiniStack's contributors measured at AWS IoT (ministack 1.5.33, ministackorg/ministack#1755) holds here."""

import json
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.aws.clients import until
from support.aws.device import ARN
from support.pki.pki_builders import Holder, a_ca, a_device
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NUMBERS = count(1)


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-jobs-data")


@pytest.fixture
def thing(iot: Any) -> str:
    name = f"measured-{next(NUMBERS)}"
    iot.create_thing(thingName=name)
    return name


def a_job(iot: Any, *targets: str, document: str = "{}", **more: Any) -> str:
    name = f"measured-{next(NUMBERS)}"
    iot.create_job(jobId=name, targets=[f"{ARN}{target}" for target in targets], document=document, **more)
    return name


def status_of(iot: Any, job: str, thing: str) -> str | None:
    try:
        found: str = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]["status"]
    except iot.exceptions.ResourceNotFoundException:
        return None
    return found


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[int, str, str]:
    """Return status, code and message of what an operation raises."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_nothing_is_next_where_nothing_is_pending(data: Any, thing: str) -> None:
    assert "execution" not in data.describe_job_execution(thingName=thing, jobId="$next")


def test_update_with_another_expected_version_is_an_invalid_request(iot: Any, data: Any, thing: str) -> None:
    job = a_job(iot, f"thing/{thing}")
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    told = refused(data.update_job_execution, jobId=job, thingName=thing, status="IN_PROGRESS", expectedVersion=7)
    assert told[:2] == (400, "InvalidRequestException")
    assert told[2].startswith("Expected version")


def test_cancel_with_another_expected_version_is_a_version_conflict(iot: Any, thing: str) -> None:
    job = a_job(iot, f"thing/{thing}")
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    with pytest.raises(iot.exceptions.VersionConflictException):
        iot.cancel_job_execution(jobId=job, thingName=thing, expectedVersion=7)


@pytest.mark.parametrize("status", ["CANCELED", "QUEUED", "TIMED_OUT", "REMOVED"])
def test_a_device_sets_no_status_of_the_service(iot: Any, data: Any, thing: str, status: str) -> None:
    job = a_job(iot, f"thing/{thing}")
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    assert refused(data.update_job_execution, jobId=job, thingName=thing, status=status) == (
        409,
        "InvalidStateTransitionException",
        f"The status of job execution cannot be changed to be {status}",
    )


@pytest.mark.parametrize("moment", ["2099-01-01 12:00", "2099-01-01T12:00:00Z"])
def test_a_schedule_has_the_one_form_of_time(iot: Any, thing: str, moment: str) -> None:
    job = f"measured-{next(NUMBERS)}"
    targets, schedule = [f"{ARN}thing/{thing}"], {"startTime": moment}
    told = refused(iot.create_job, jobId=job, targets=targets, document="{}", schedulingConfig=schedule)
    assert told[:2] == (400, "InvalidRequestException")
    assert "must follow the format YYYY-MM-DDThh:mm" in told[2]


def test_a_thing_that_leaves_and_joins_again_gets_a_continuous_job_anew(iot: Any, data: Any, thing: str) -> None:
    group = f"measured-{next(NUMBERS)}"
    member = {"thingGroupName": group, "thingName": thing}
    iot.create_thing_group(thingGroupName=group)
    iot.add_thing_to_thing_group(**member)
    job = a_job(iot, f"thinggroup/{group}", targetSelection="CONTINUOUS")
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    iot.remove_thing_from_thing_group(**member)
    until(lambda: status_of(iot, job, thing) == "REMOVED")
    iot.add_thing_to_thing_group(**member)
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    assert iot.describe_job_execution(jobId=job, thingName=thing)["execution"]["executionNumber"] == 2


def test_a_plain_job_is_described_with_empty_settings(iot: Any, thing: str) -> None:
    job = iot.describe_job(jobId=a_job(iot, f"thing/{thing}"))["job"]
    empty = ("timeoutConfig", "schedulingConfig", "presignedUrlConfig", "jobExecutionsRolloutConfig")
    assert [job.get(name) for name in empty] == [{}] * len(empty)
    assert "abortConfig" not in job
    assert job["isConcurrent"] is False


def test_a_device_gets_the_document_compact_and_without_null_members(iot: Any, data: Any, thing: str) -> None:
    job = a_job(iot, f"thing/{thing}", document='{ "a": 1, "n": null, "list": [1, null], "b": {"n": null} }')
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    told = data.describe_job_execution(jobId=job, thingName=thing, includeJobDocument=True)["execution"]
    assert told["jobDocument"] == '{"a":1,"list":[1,null],"b":{}}'


@pytest.mark.parametrize("kind", ["iot:Data", "iot:Jobs"])
def test_retired_endpoint_types_are_refused(iot: Any, kind: str) -> None:
    told = refused(iot.describe_endpoint, endpointType=kind)
    assert told[:2] == (400, "InvalidRequestException")
    assert "iot:Data-ATS" in told[2]


def test_the_endpoint_without_a_type_is_the_current_one(iot: Any) -> None:
    current = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    assert iot.describe_endpoint()["endpointAddress"] == current


def test_a_certificate_is_not_registered_as_pending_activation(iot: Any) -> None:
    leaf = a_device(common_name="pending", now=datetime.now(UTC)).certificate.pem()
    for register in (iot.register_certificate_without_ca, iot.register_certificate):
        assert refused(register, certificatePem=leaf, status="PENDING_ACTIVATION") == (
            406,
            "CertificateStateException",
            "Not allowed to register certificate with PENDING_ACTIVATION status",
        )


def test_a_shadow_keeps_a_number_beyond_a_double_as_text(client: Callable[..., Any], thing: str) -> None:
    plane = client("iot-data")
    plane.update_thing_shadow(thingName=thing, payload=b'{"state":{"desired":{"a":1e999}}}')
    shadow = json.loads(plane.get_thing_shadow(thingName=thing)["payload"].read())
    assert shadow["state"]["desired"] == {"a": "Infinity"}


OVER_MQTT_ALONE = ["jobs/get", "jobs/start-next", "jobs/j/get", "jobs/j/update", "defender/metrics/json"]
RESERVED = ["$aws/commands/things/x/executions/1/response/json", "$aws/events/presence/connected/x", "$SYS/x", "$x"]


@pytest.mark.parametrize("topic", [*(f"$aws/things/{{}}/{rest}" for rest in OVER_MQTT_ALONE), *RESERVED])
def test_a_publish_over_https_reaches_no_topic_of_services(client: Callable[..., Any], thing: str, topic: str) -> None:
    told = refused(client("iot-data").publish, topic=topic.format(thing), payload=b"{}")
    assert told[:2] == (400, "InvalidRequestException")


def test_a_page_of_retained_messages_has_at_most_200(client: Callable[..., Any]) -> None:
    told = refused(client("iot-data").list_retained_messages, maxResults=201)
    assert told[:2] == (400, "InvalidRequestException")
    assert told[2].endswith("Invalid maxResults value: 201")


def test_the_deletion_of_a_job_template_has_no_body(iot: Any, thing: str) -> None:
    iot.create_job_template(jobTemplateId="measured", description="x", document="{}")
    bodies: list[bytes] = []
    iot.meta.events.register("after-call", lambda http_response, **_: bodies.append(http_response.content))
    iot.delete_job_template(jobTemplateId="measured")
    assert bodies == [b""]


def test_a_request_with_a_key_on_p_521_is_signed(iot: Any) -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p521")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA512())
    text = csr.public_bytes(serialization.Encoding.PEM).decode()
    made = iot.create_certificate_from_csr(certificateSigningRequest=text, setAsActive=True)
    assert x509.load_pem_x509_certificate(made["certificatePem"].encode()).public_key() == key.public_key()


def test_a_policy_may_have_actions_of_greengrass(iot: Any, server: RunningServer) -> None:
    statement = {"Effect": "Allow", "Action": ["iot:Connect", "greengrass:*"], "Resource": ["*"]}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = iot.create_policy(policyName="greengrass-core", policyDocument=document)
    assert json.loads(made["policyDocument"])["Statement"] == [statement]
    other = document.replace("greengrass", "s3")
    assert refused(iot.create_policy, policyName="s3", policyDocument=other)[1] == "MalformedPolicyException"


def a_rule(iot: Any, key: str) -> str:
    name = f"measured_{next(NUMBERS)}"
    s3 = {"roleArn": "arn:aws:iam::000000000000:role/r", "bucketName": "lake", "key": key}
    sql = "SELECT * FROM 'plant/+/data'"
    payload = {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": [{"s3": s3}]}
    iot.create_topic_rule(ruleName=name, topicRulePayload=payload)
    return name


def test_a_rule_writes_objects_under_keys_as_hive_has_them(
    iot: Any, client: Callable[..., Any], server: RunningServer
) -> None:
    (server.data / "buckets" / "lake").mkdir(parents=True)
    a_rule(iot, "year=${parse_time('yyyy', timestamp())}/device=${topic(2)}/t:1 @ä.json")
    client("iot-data").publish(topic="plant/p1/data", qos=1, payload=b'{"t":1}')
    until(lambda: list((server.data / "buckets" / "lake").glob("year=2*/device=p1/t:1 @ä.json")))


def test_a_rule_whose_key_can_never_be_written_is_refused(iot: Any) -> None:
    with pytest.raises(ClientError, match="is not a path of printable text"):
        a_rule(iot, "a/../b")


def test_a_trial_says_which_action_would_fail(iot: Any, server: RunningServer) -> None:
    name = a_rule(iot, "${topic(2)}/x.json")
    told = server.attempt("aws", "rule", "test", "--rule", name, "--topic", "plant/../data", "--payload", "{}")
    assert "fails: the key '../x.json'" in told.stdout


def test_a_trial_reads_the_shadows_that_the_statement_asks_for(
    client: Callable[..., Any], server: RunningServer, thing: str
) -> None:
    state = json.dumps({"state": {"reported": {"alarm": "ON"}}}).encode()
    client("iot-data").update_thing_shadow(thingName=thing, payload=state)
    role = "arn:aws:iam::000000000000:role/r"
    sql = f"SELECT get_thing_shadow('{thing}', '{role}').state.reported.alarm AS a, b FROM 'a/b'"
    told = server.attempt("aws", "rule", "test", "--sql", sql, "--topic", "a/b", "--payload", '{"b": 1}')
    assert json.loads(told.stdout) == {"a": "ON", "b": 1}


def test_an_execution_that_was_rejected_never_started_and_is_over_for_its_device(
    iot: Any, data: Any, thing: str
) -> None:
    job = a_job(iot, f"thing/{thing}")
    until(lambda: status_of(iot, job, thing) == "QUEUED")
    data.update_job_execution(jobId=job, thingName=thing, status="REJECTED")
    assert "startedAt" not in iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
    assert refused(data.describe_job_execution, jobId=job, thingName=thing)[:2] == (410, "TerminalStateException")
    assert "execution" not in data.start_next_pending_job_execution(thingName=thing)


@pytest.fixture
def ca(iot: Any) -> tuple[Holder, str]:
    """A CA that is registered, and its id."""
    made = a_ca(f"Measured {next(NUMBERS)}", now=datetime.now(UTC))
    asked = {"caCertificate": made.certificate.pem(), "certificateMode": "SNI_ONLY", "setAsActive": True}
    return made, iot.register_ca_certificate(**asked)["certificateId"]


def test_a_ca_is_not_deleted_while_it_is_active(iot: Any, ca: tuple[Holder, str]) -> None:
    told = "CA Certificate must be deactivated (not ACTIVE) before deletion. Id: "
    assert refused(iot.delete_ca_certificate, certificateId=ca[1]) == (406, "CertificateStateException", told + ca[1])


def test_a_certificate_is_linked_to_the_registered_ca_that_signed_it(iot: Any, ca: tuple[Holder, str]) -> None:
    leaf = a_device(ca[0], "linked", now=datetime.now(UTC)).certificate.pem()
    made = iot.register_certificate(certificatePem=leaf, status="ACTIVE")["certificateId"]
    alone = a_device(common_name="alone", now=datetime.now(UTC)).certificate.pem()
    iot.register_certificate_without_ca(certificatePem=alone, status="ACTIVE")
    listed = iot.list_certificates_by_ca(caCertificateId=ca[1])["certificates"]
    assert [one["certificateId"] for one in listed] == [made]


def test_a_ca_that_does_not_exist_has_no_certificates(iot: Any) -> None:
    assert iot.list_certificates_by_ca(caCertificateId="0" * 64)["certificates"] == []


def test_no_certificate_is_registered_by_a_ca_that_is_inactive(iot: Any, ca: tuple[Holder, str]) -> None:
    iot.update_ca_certificate(certificateId=ca[1], newStatus="INACTIVE")
    leaf = a_device(ca[0], "late", now=datetime.now(UTC)).certificate.pem()
    told = refused(iot.register_certificate, certificatePem=leaf, status="ACTIVE")
    assert told[:2] == (406, "CertificateStateException")


def test_a_handshake_alone_registers_nothing(
    iot: Any, ca: tuple[Holder, str], server: RunningServer, tmp_path: Path
) -> None:
    iot.update_ca_certificate(certificateId=ca[1], newAutoRegistrationStatus="ENABLE")

    def connected(name: str) -> tuple[ssl.SSLSocket, str]:
        device = a_device(ca[0], name, now=datetime.now(UTC))
        (tmp_path / f"{name}.pem").write_text(device.certificate.pem() + device.key_pem)
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        context.load_cert_chain(tmp_path / f"{name}.pem")
        raw = socket.create_connection((server.address, 8883), 10)
        tls = context.wrap_socket(raw, server_hostname=server.endpoints["aws"]["data_endpoint"])
        return tls, device.certificate.thumbprint.hex()

    connected("hasty")[0].close()
    (silent, _), (second, registered) = connected("silent"), connected("second")
    with silent, second:
        second.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06second")
        assert second.recv(1) == b""
        listed = iot.list_certificates_by_ca(caCertificateId=ca[1])["certificates"]
    assert [one["certificateId"] for one in listed] == [registered]


def test_a_thing_group_is_made_again_with_the_same_properties_alone(iot: Any) -> None:
    name = f"measured-{next(NUMBERS)}"
    same = {"thingGroupName": name, "thingGroupProperties": {"thingGroupDescription": "a"}}
    assert iot.create_thing_group(**same)["thingGroupId"] == iot.create_thing_group(**same)["thingGroupId"]
    told = f"Thing Group {name} already exists in current account with different properties"
    for other in ({"thingGroupName": name}, same | {"tags": [{"Key": "site", "Value": "1"}]}):
        assert refused(iot.create_thing_group, **other) == (409, "ResourceAlreadyExistsException", told)


@pytest.mark.parametrize(
    ("sql", "payload", "selected"),
    [
        ("SELECT a/b AS x, -7/2 AS y, c%b AS z FROM 't'", {"a": 7, "b": 2, "c": -7}, {"x": 3, "y": -3, "z": -1}),
        ("SELECT a = b AS same, a < c AS less FROM 't'", {"a": 5, "b": "5", "c": "10"}, {"same": False, "less": True}),
        ("SELECT a FROM 't' WHERE a", {"a": "true"}, {"a": "true"}),
        ("SELECT a FROM 't' WHERE a", {"a": "false"}, None),
        ("SELECT a FROM 't' WHERE a", {"a": 1}, None),
        ("SELECT a FROM 't' WHERE NOT (missing > 3)", {"a": 1}, None),
    ],
)
def test_a_rule_calculates_and_compares_as_measured(
    server: RunningServer, sql: str, payload: dict[str, Any], selected: dict[str, Any] | None
) -> None:
    (told,) = server.rows("aws", "rule", "test", "--sql", sql, "--topic", "t", "--payload", json.dumps(payload))
    assert (json.loads(told["payload"]) if told["selected"] else None) == selected
