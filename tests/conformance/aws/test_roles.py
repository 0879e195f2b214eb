"""Role aliases, and access keys with rights: the credentials endpoint, boto3 and the SDK over WebSocket."""

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import ARN as OWN
from support.aws.device import DeviceProcess, Enrolled, document, statement
from support.server.servers import RunningServer

Enroll = Callable[..., Enrolled]
ROLE, UNMAPPED = "arn:aws:iam::000000000000:role/reader", "arn:aws:iam::000000000000:role/nobody"
ASSUME = statement("iot:AssumeRoleWithCertificate", f"{OWN}rolealias/reading*")
MAY = document(
    statement("iot:DescribeThing", f"{OWN}thing/${{credentials-iot:ThingName}}"),
    statement("iot:Connect", f"{OWN}client/ws-*"),
    statement(["iot:Publish", "iot:Receive"], f"{OWN}topic/role/*"),
    statement("iot:Subscribe", f"{OWN}topicfilter/role/*"),
    statement("s3:GetObject"),
)


@pytest.fixture(scope="module")
def birthmark_config(tmp_path_factory: pytest.TempPathFactory) -> str:
    policy = tmp_path_factory.mktemp("roles") / "reader.json"
    policy.write_text(MAY)
    return f'[roles."{ROLE}"]\npolicy_file = "{policy}"\n'


@pytest.fixture
def alias(iot: Any) -> Iterator[str]:
    iot.create_role_alias(roleAlias="reading", roleArn=ROLE, credentialDurationSeconds=900)
    yield "reading"
    if "reading" in iot.list_role_aliases()["roleAliases"]:
        iot.delete_role_alias(roleAlias="reading")


def ask(server: RunningServer, device: Enrolled, alias: str, thing: str = "") -> tuple[str, dict[str, Any]]:
    """Ask the endpoint that iot:CredentialProvider names, as devices do."""
    given = device.files
    url = f"{server.endpoints['aws']['endpoint_url']}/role-aliases/{alias}/credentials"
    asked = ["curl", "-sS", "--cacert", server.endpoints["trust_bundle"], "-w", "\n%{http_code}"]
    asked += ["--cert", given["certificate"], "--key", given["key"]]
    asked += ["-H", f"x-amzn-iot-thingname: {thing}"] if thing else []
    body, _, status = subprocess.run([*asked, url], capture_output=True, text=True, check=True).stdout.rpartition("\n")
    return status, json.loads(body)


def keys_of(told: dict[str, Any]) -> dict[str, str]:
    found = told["credentials"]
    return {
        "aws_access_key_id": found["accessKeyId"],
        "aws_secret_access_key": found["secretAccessKey"],
        "aws_session_token": found["sessionToken"],
    }


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# ---- role aliases


def test_an_alias_is_made_described_listed_changed_and_deleted(iot: Any) -> None:
    assert iot.create_role_alias(roleAlias="kept", roleArn=UNMAPPED)["roleAliasArn"] == f"{OWN}rolealias/kept"
    told = iot.describe_role_alias(roleAlias="kept")["roleAliasDescription"]
    assert (told["roleArn"], told["credentialDurationSeconds"], told["owner"]) == (UNMAPPED, 3600, "000000000000")
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_role_alias(roleAlias="kept", roleArn=ROLE)
    iot.update_role_alias(roleAlias="kept", roleArn=ROLE, credentialDurationSeconds=43200)
    told = iot.describe_role_alias(roleAlias="kept")["roleAliasDescription"]
    assert (told["roleArn"], told["credentialDurationSeconds"]) == (ROLE, 43200)
    assert "kept" in iot.list_role_aliases()["roleAliases"]
    iot.delete_role_alias(roleAlias="kept")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_role_alias(roleAlias="kept")


def test_the_endpoint_of_credentials_is_the_data_host(iot: Any, server: RunningServer) -> None:
    told = iot.describe_endpoint(endpointType="iot:CredentialProvider")
    assert told["endpointAddress"] == server.endpoints["aws"]["data_endpoint"]


def test_a_device_signs_with_the_rights_of_its_alias(
    server: RunningServer, client: Any, enroll: Enroll, alias: str, iot: Any
) -> None:
    device = enroll("reader-1", ASSUME)
    iot.create_thing(thingName="other")
    status, told = ask(server, device, alias, "reader-1")
    assert status == "200"
    until_ = datetime.fromisoformat(told["credentials"]["expiration"]) - datetime.now(UTC)
    assert timedelta(minutes=14) < until_ <= timedelta(minutes=15)
    short = client(**keys_of(told))
    assert short.describe_thing(thingName="reader-1")["thingName"] == "reader-1"
    with pytest.raises(ClientError) as denied:
        short.describe_thing(thingName="other")
    assert code_of(denied) == "AccessDeniedException"
    assert "not authorized to perform: iot:DescribeThing on resource: " in str(denied.value)
    with pytest.raises(ClientError) as denied:
        short.create_keys_and_certificate()
    assert code_of(denied) == "AccessDeniedException"
    data = client("iot-data", **keys_of(told))
    data.publish(topic="role/a", payload=b"x")
    with pytest.raises(ClientError) as denied:
        data.publish(topic="elsewhere", payload=b"x")
    assert code_of(denied) == "AccessDeniedException"


@pytest.mark.parametrize("token", [None, "x", "e30.AAAA"])
def test_a_short_lived_key_needs_its_own_token(
    server: RunningServer, client: Any, enroll: Enroll, alias: str, token: str | None
) -> None:
    _, told = ask(server, enroll(f"token-{len(token or '')}", ASSUME), alias)
    keys = keys_of(told)
    keys = {**keys, "aws_session_token": token} if token else {n: v for n, v in keys.items() if "token" not in n}
    with pytest.raises(ClientError) as refused:
        client(**keys).list_things()
    assert code_of(refused) == "UnrecognizedClientException"


def test_who_may_not_or_names_what_there_is_not_gets_no_key(
    server: RunningServer, enroll: Enroll, alias: str, iot: Any
) -> None:
    assert ask(server, enroll("denied-1", statement("iot:Connect")), alias)[0] == "403"
    device = enroll("denied-2", ASSUME)
    assert ask(server, device, "reading-else")[0] == "404"
    iot.create_role_alias(roleAlias="reading-unmapped", roleArn=UNMAPPED)
    status, told = ask(server, device, "reading-unmapped")
    assert status == "400"
    assert UNMAPPED in told["message"]
    iot.delete_role_alias(roleAlias="reading-unmapped")
    url = f"{server.endpoints['aws']['endpoint_url']}/role-aliases/{alias}/credentials"
    asked = ["curl", "-sS", "--cacert", server.endpoints["trust_bundle"], "-w", "\n%{http_code}", url]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.endswith("\n403")


@pytest.mark.parametrize("end", ["certificate", "alias"])
def test_a_key_ends_with_its_certificate_and_with_its_alias(
    server: RunningServer, client: Any, enroll: Enroll, alias: str, end: str
) -> None:
    iot = client()
    device = enroll(f"ends-{end}", ASSUME)
    short = client(**keys_of(ask(server, device, alias, f"ends-{end}")[1]))
    short.describe_thing(thingName=f"ends-{end}")
    if end == "certificate":
        iot.update_certificate(certificateId=device.certificate_id, newStatus="INACTIVE")
    else:
        iot.delete_role_alias(roleAlias=alias)
        iot.create_role_alias(roleAlias=alias, roleArn=ROLE)  # another one of the same name brings none back
    with pytest.raises(ClientError) as refused:
        short.describe_thing(thingName=f"ends-{end}")
    assert code_of(refused) == "ExpiredTokenException"


def websocket(server: RunningServer, told: dict[str, Any], name: str) -> DeviceProcess:
    keys = keys_of(told)
    common = {"endpoint": server.endpoints["aws"]["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
    key = {
        "id": keys["aws_access_key_id"],
        "secret": keys["aws_secret_access_key"],
        "session": keys["aws_session_token"],
    }
    return DeviceProcess({**common, **key, "client_id": name})


def test_the_sdk_opens_a_websocket_with_a_short_lived_key(
    server: RunningServer, enroll: Enroll, alias: str, iot: Any
) -> None:
    _, told = ask(server, enroll("ws-device", ASSUME), alias)
    with websocket(server, told, "else") as device:
        assert "error" in device("connect"), "its policy says which client ids"
    with websocket(server, told, "ws-1") as device:
        assert "ok" in device("connect")
        assert "ok" in device("subscribe", topic="role/a")
        assert "ok" in device("publish", topic="role/a", payload="hello")
        assert device("receive")["ok"]["payload"] == "hello"
        iot.delete_role_alias(roleAlias=alias)
        assert "ok" in device("interrupted"), "it ends with its alias"


def test_a_presigned_request_holds_with_its_token(server: RunningServer, enroll: Enroll, alias: str) -> None:
    _, told = ask(server, enroll("presigned", ASSUME), alias, "presigned")
    keys = keys_of(told)
    url = f"{server.endpoints['aws']['endpoint_url']}/things/presigned"
    request = AWSRequest("GET", url)
    SigV4QueryAuth(Credentials(*keys.values()), "iot", "us-east-1", expires=60).add_auth(request)
    asked = ["curl", "-sS", "--cacert", server.endpoints["trust_bundle"], "-w", "\n%{http_code}", request.url]
    done = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert done.endswith("\n200"), done
    assert "x-amz-security-token" in str(request.url).lower()


# ---- access keys with rights


@pytest.fixture
def key(server: RunningServer, tmp_path: Path) -> Callable[..., dict[str, str]]:
    def make(name: str, *statements: dict[str, Any]) -> dict[str, str]:
        file = tmp_path / f"{name}.json"
        file.write_text(document(*statements))
        (made,) = server.rows("aws", "key", "create", name, "--policy", str(file))
        return {"aws_access_key_id": made["access_key_id"], "aws_secret_access_key": made["secret_access_key"]}

    return make


def test_a_key_may_do_what_its_policy_allows(client: Any, key: Callable[..., dict[str, str]], iot: Any) -> None:
    mine = key(
        "limited",
        statement(["iot:CreateThing", "iot:DescribeThing"], f"{OWN}thing/mine-*"),
        statement("iot:ListThings"),
        statement("iot:AttachThingPrincipal", f"{OWN}cert/*"),
        statement("iot:DescribeThing", f"{OWN}thing/mine-secret", "Deny"),
        statement("iot:AddThingToThingGroup", f"{OWN}thing*/mine*"),
    )
    limited = client(**mine)
    limited.create_thing(thingName="mine-1")
    limited.list_things()
    calls: list[Callable[[], Any]] = [
        lambda: limited.create_thing(thingName="theirs"),
        lambda: limited.delete_thing(thingName="mine-1"),
        limited.list_policies,
        lambda: limited.describe_thing(thingName="mine-secret"),
        lambda: limited.add_thing_to_thing_group(thingName="mine-1", thingGroupName="theirs"),
    ]
    for call in calls:
        with pytest.raises(ClientError) as denied:
            call()
        assert code_of(denied) == "AccessDeniedException"
    with pytest.raises(ClientError) as denied:
        limited.create_thing(thingName="theirs")
    assert (
        "User: arn:aws:iam::000000000000:user/limited is not authorized to perform: iot:CreateThing on resource: "
        f"{OWN}thing/theirs because no identity-based policy allows the iot:CreateThing action"
    ) in str(denied.value)
    with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
        limited.describe_thing(thingName="mine-secret")
    iot.create_thing_group(thingGroupName="mine")
    limited.add_thing_to_thing_group(thingName="mine-1", thingGroupName="mine")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        client().describe_thing(thingName="theirs")


def test_a_key_gets_no_more_by_what_a_call_makes_besides(
    client: Any, key: Callable[..., dict[str, str]], iot: Any, server: RunningServer
) -> None:
    """As at AWS, where such a call passes a role that has a policy of its own."""
    iot.create_thing(thingName="shadowed")
    names = ["RegisterThing", "StartThingRegistrationTask", "CreateTopicRule", "ReplaceTopicRule", "CreateRoleAlias"]
    names += ["CreateProvisioningTemplate", "CreateProvisioningTemplateVersion", "RegisterCACertificate"]
    calls = [f"iot:{name}" for name in names]
    limited = client(**key("besides", statement(calls)))
    policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document(statement("iot:*"))}}
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "made-besides"}}
    own = {"CertificateSigningRequest": "x", "Status": "ACTIVE"}
    certificate = {"Type": "AWS::IoT::Certificate", "Properties": own}
    whole = json.dumps({"Resources": {"thing": thing, "certificate": certificate, "policy": policy}})
    rule = {
        "sql": "SELECT * FROM 'a'",
        "actions": [{"republish": {"roleArn": UNMAPPED, "topic": "$$aws/things/${thing}/shadow/update"}}],
    }
    kept = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": "0" * 64, "Status": "ACTIVE"}}
    kept["OverrideSettings"] = {"Status": "REPLACE"}
    asked: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: limited.register_thing(templateBody=json.dumps({"Resources": {"certificate": kept}})),
            "iot:UpdateCertificate",
        ),
        (
            lambda: limited.create_provisioning_template(
                templateName="besides", templateBody=whole, provisioningRoleArn=UNMAPPED
            ),
            "iot:CreateCertificateFromCsr",
        ),
        (
            lambda: limited.create_provisioning_template_version(templateName="besides", templateBody=whole),
            "iot:CreateCertificateFromCsr",
        ),
        (
            lambda: limited.register_ca_certificate(caCertificate="x", registrationConfig={"templateBody": whole}),
            "iot:CreateCertificateFromCsr",
        ),
        (lambda: limited.create_role_alias(roleAlias="besides", roleArn=ROLE), "iam:PassRole"),
        (lambda: limited.register_thing(templateBody=whole), "iot:CreateCertificateFromCsr"),
        (
            lambda: limited.start_thing_registration_task(
                templateBody=whole, inputFileBucket="bucket", inputFileKey="a", roleArn=UNMAPPED
            ),
            "iot:CreateCertificateFromCsr",
        ),
        (lambda: limited.create_topic_rule(ruleName="besides", topicRulePayload=rule), "iot:Publish"),
        (lambda: limited.replace_topic_rule(ruleName="besides", topicRulePayload=rule), "iot:Publish"),
    ]
    for call, action in asked:
        with pytest.raises(ClientError, match=f"is not authorized to perform: {action} on resource") as denied:
            call()
        assert code_of(denied) in {"AccessDeniedException", "UnauthorizedException"}
    needed = ["CreateCertificateFromCsr", "CreateThing", "AttachThingPrincipal", "AttachPolicy"]
    more = [f"iot:{name}" for name in needed]
    most = client(**key("most", statement([*calls, *more])))
    with pytest.raises(ClientError, match="is not authorized to perform: iot:CreatePolicy on resource"):
        most.register_thing(templateBody=whole)


@pytest.mark.parametrize("topic", ["t1/cmd", "t1/${'cmd'}", "t1/c${'m'}d", "${'t1/cmd'}", "t1/${concat('c','{md')}"])
def test_a_rule_publishes_nothing_that_a_keys_policy_denies(
    client: Any, key: Callable[..., dict[str, str]], topic: str
) -> None:
    may = [statement("iot:*"), statement("iot:Publish", f"{OWN}topic/t1/cmd", "Deny")]
    limited = client(**key("denied", *may))
    payload = {"sql": "SELECT * FROM 'a'", "actions": [{"republish": {"roleArn": UNMAPPED, "topic": topic}}]}
    with pytest.raises(ClientError, match="is not authorized to perform: iot:Publish on resource"):
        limited.create_topic_rule(ruleName="denied", topicRulePayload=payload)


def test_a_key_reaches_the_jobs_that_its_policy_names(
    client: Any, key: Callable[..., dict[str, str]], iot: Any
) -> None:
    for thing in ("job-mine", "job-theirs"):
        iot.create_thing(thingName=thing)
    mine = key(
        "jobs",
        statement("iot:CreateJob", f"{OWN}job/*"),
        statement("iot:CreateJob", f"{OWN}thing/job-mine"),
        statement("iotjobsdata:*", f"{OWN}thing/job-mine"),
    )
    limited, data = client(**mine), client("iot-jobs-data", **mine)
    limited.create_job(jobId="of-mine", targets=[f"{OWN}thing/job-mine"], document="{}")
    assert data.get_pending_job_executions(thingName="job-mine")["inProgressJobs"] == []
    calls: list[Callable[[], Any]] = [
        lambda: limited.create_job(jobId="of-theirs", targets=[f"{OWN}thing/job-theirs"], document="{}"),
        lambda: limited.describe_job(jobId="of-mine"),
        lambda: data.get_pending_job_executions(thingName="job-theirs"),
        lambda: data.start_next_pending_job_execution(thingName="job-theirs"),
        lambda: data.update_job_execution(thingName="job-theirs", jobId="of-mine", status="FAILED"),
    ]
    for call in calls:
        with pytest.raises(ClientError) as denied:
            call()
        assert code_of(denied) == "AccessDeniedException"


def test_conditions_count_and_the_data_plane_asks_too(
    client: Any, key: Callable[..., dict[str, str]], server: RunningServer
) -> None:
    here = {"Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    away = {"Condition": {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}}
    mine = key(
        "bound",
        {**statement("iot:ListThings"), **here},
        {**statement("iot:ListPolicies"), **away},
        statement("iot:Publish", f"{OWN}topic/bound/*"),
        statement("iot:GetThingShadow", f"{OWN}thing/bound"),
    )
    bound, data = client(**mine), client("iot-data", **mine)
    bound.list_things()
    with pytest.raises(ClientError) as denied:
        bound.list_policies()
    assert code_of(denied) == "AccessDeniedException"
    data.publish(topic="bound/a", payload=b"x")
    calls: list[Callable[[], Any]] = [
        lambda: data.publish(topic="else", payload=b"x"),
        lambda: data.publish(topic="bound/a", payload=b"x", retain=True),
        lambda: data.update_thing_shadow(thingName="bound", payload=b'{"state": {}}'),
    ]
    for call in calls:
        with pytest.raises(ClientError) as denied:
            call()
        assert code_of(denied) == "AccessDeniedException"
    with pytest.raises(ClientError) as missing:
        data.get_thing_shadow(thingName="bound")
    assert code_of(missing) == "ResourceNotFoundException"
    told = {"accessKeyId": mine["aws_access_key_id"], "secretAccessKey": mine["aws_secret_access_key"]}
    with websocket(server, {"credentials": {**told, "sessionToken": None}}, "bound") as device:
        assert "error" in device("connect"), "it may not connect"


def test_a_key_without_a_policy_may_do_everything_and_lists_say_what_each_may(
    server: RunningServer, client: Any, key: Callable[..., dict[str, str]]
) -> None:
    key("listed", statement("iot:ListThings"))
    by_name = {row["name"]: row for row in server.rows("aws", "key", "ls")}
    assert by_name["listed"]["may"] == "what its policy allows"
    assert by_name["listed"]["policy"]["Statement"][0]["Action"] == "iot:ListThings"
    assert {row["may"] for name, row in by_name.items() if name == "server"} <= {"everything"}
    (made,) = server.rows("aws", "key", "create", "all")
    both = {"aws_access_key_id": made["access_key_id"], "aws_secret_access_key": made["secret_access_key"]}
    client(**both).list_policies()
    server.rows("aws", "key", "remove", made["access_key_id"], "--yes")
    with pytest.raises(ClientError) as gone:
        client(**both).list_policies()
    assert code_of(gone) == "UnrecognizedClientException"


def test_a_key_that_goes_ends_its_websockets(server: RunningServer, key: Callable[..., dict[str, str]]) -> None:
    mine = key("going", statement(["iot:Connect", "iot:Publish"]))
    told = {"accessKeyId": mine["aws_access_key_id"], "secretAccessKey": mine["aws_secret_access_key"]}
    with websocket(server, {"credentials": {**told, "sessionToken": None}}, "going") as device:
        assert "ok" in device("connect")
        server.rows("aws", "key", "remove", mine["aws_access_key_id"], "--yes")
        assert "ok" in device("interrupted")
    until(lambda: "sigv4.unknown_access_key" in [row["code"] for row in server.rows("why", "--limit", "20")])


@pytest.mark.parametrize("text", ["[]", "{}", '{"Statement": []}', '{"Statement": [{"Effect": "Allow"}]}', "no JSON"])
def test_a_policy_that_says_nothing_makes_no_key(server: RunningServer, tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    done = server.attempt("aws", "key", "create", "bad", "--policy", str(tmp_path / "p.json"))
    assert done.returncode != 0
    assert "bad" not in {row["name"] for row in server.rows("aws", "key", "ls")}
