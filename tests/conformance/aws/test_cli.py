"""The unmodified AWS CLI runs the list of a how-to: once by environment, once by a profile of `aws configure`."""

import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.pki.pki_builders import a_ca, a_device, an_rsa_key
from support.server.servers import RunningServer, clean_environment

Aws = Callable[..., str]
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


def runner(environment: Mapping[str, str], directory: Path, *first: str) -> Aws:
    def aws(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["aws", *first, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=dict(environment),
            cwd=directory,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return aws


@pytest.fixture
def by_environment(server: RunningServer, tmp_path: Path) -> Aws:
    return runner({**server.environment, "HOME": str(tmp_path)}, tmp_path)


@pytest.fixture
def by_profile(server: RunningServer, tmp_path: Path) -> Aws:
    aws = runner(clean_environment(HOME=str(tmp_path)), tmp_path)
    account = server.endpoints["aws"]
    settings = {
        "aws_access_key_id": account["access_key_id"],
        "aws_secret_access_key": account["secret_access_key"],
        "region": account["region"],
        "endpoint_url": account["endpoint_url"],
        "ca_bundle": server.endpoints["trust_bundle"],
    }
    for name, value in settings.items():
        aws("configure", "set", name, value, "--profile", "birthmark")
    return runner(clean_environment(HOME=str(tmp_path)), tmp_path, "--profile", "birthmark")


def run_the_list(aws: Aws, directory: Path, name: str, host: str) -> None:
    now = datetime.now(UTC)
    certificate = a_device(a_ca("Chip maker", now=now), f"{name}-cn", now=now, key=an_rsa_key()).certificate
    (directory / "cert.pem").write_text(certificate.pem())

    thing = json.loads(aws("iot", "create-thing", "--thing-name", name))
    policy = json.loads(aws("iot", "create-policy", "--policy-name", f"{name}-p", "--policy-document", POLICY))
    made = json.loads(
        aws(
            *("iot", "register-certificate-without-ca", "--certificate-pem", "file://cert.pem", "--status", "ACTIVE"),
        )
    )
    arn = made["certificateArn"]
    aws("iot", "attach-policy", "--policy-name", f"{name}-p", "--target", arn)
    aws("iot", "attach-thing-principal", "--thing-name", name, "--principal", arn)
    endpoint = json.loads(aws("iot", "describe-endpoint", "--endpoint-type", "iot:Data-ATS"))

    assert thing["thingArn"].endswith(f":thing/{name}")
    assert policy["policyVersionId"] == "1"
    assert made["certificateId"] == certificate.thumbprint.hex()
    assert endpoint == {"endpointAddress": host}
    assert json.loads(aws("iot", "list-thing-principals", "--thing-name", name)) == {"principals": [arn]}
    attached = json.loads(aws("iot", "list-attached-policies", "--target", arn))["policies"]
    assert [each["policyName"] for each in attached] == [f"{name}-p"]
    again = aws(
        *("iot", "register-certificate-without-ca", "--certificate-pem", "file://cert.pem"),
        fails=True,
    )
    assert "ResourceAlreadyExistsException" in again


def test_the_list_by_environment(by_environment: Aws, server: RunningServer, tmp_path: Path) -> None:
    run_the_list(by_environment, tmp_path, "cli-env", server.endpoints["aws"]["data_endpoint"])


def test_the_list_by_profile(by_profile: Aws, server: RunningServer, tmp_path: Path) -> None:
    run_the_list(by_profile, tmp_path, "cli-profile", server.endpoints["aws"]["data_endpoint"])


def test_a_request_without_a_signature_is_refused(by_environment: Aws) -> None:
    told = by_environment("--no-sign-request", "iot", "list-things", fails=True)
    assert "MissingAuthenticationTokenException" in told


def test_an_operation_that_is_not_served_says_so_at_once(by_environment: Aws) -> None:
    assert "NotImplementedException" in by_environment("iot", "list-billing-groups", fails=True)


def test_keys_are_added_and_removed_by_command(server: RunningServer, tmp_path: Path) -> None:
    [key] = server.rows("aws", "key", "create", "ci")
    environment = {
        **server.environment,
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": key["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": key["secret_access_key"],
    }
    aws = runner(environment, tmp_path)
    aws("iot", "list-things")
    assert key["access_key_id"] in {row["access_key_id"] for row in server.rows("aws", "key", "ls")}
    server.run("aws", "key", "rm", key["access_key_id"], "--yes")
    assert "UnrecognizedClientException" in aws("iot", "list-things", fails=True)
    assert server.attempt("aws", "key", "rm", key["access_key_id"], "--yes").returncode == 3


def test_groups_tags_events_and_searches_by_the_cli(by_environment: Aws) -> None:
    def ask(*arguments: str) -> dict[str, object]:
        told = by_environment(*arguments)
        return dict(json.loads(told)) if told else {}

    def iot(*arguments: str) -> dict[str, object]:
        return ask("iot", *arguments, "--output", "json")

    hall = iot("create-thing-group", "--thing-group-name", "cli-hall", "--tags", "Key=site,Value=7")
    iot("create-thing-group", "--thing-group-name", "cli-line", "--parent-group-name", "cli-hall")
    iot("create-thing", "--thing-name", "cli-pump", "--attribute-payload", '{"attributes":{"line":"4"}}')
    iot("update-thing-groups-for-thing", "--thing-name", "cli-pump", "--thing-groups-to-add", "cli-line")
    below = iot("list-things-in-thing-group", "--thing-group-name", "cli-hall", "--recursive")
    assert below["things"] == ["cli-pump"]
    iot("create-policy", "--policy-name", "cli-hall", "--policy-document", POLICY)
    iot("attach-policy", "--policy-name", "cli-hall", "--target", str(hall["thingGroupArn"]))
    found = iot("get-effective-policies", "--thing-name", "cli-pump")["effectivePolicies"]
    assert isinstance(found, list)
    assert [one["policyName"] for one in found] == ["cli-hall"]
    iot("tag-resource", "--resource-arn", str(hall["thingGroupArn"]), "--tags", "Key=floor,Value=2")
    tags = iot("list-tags-for-resource", "--resource-arn", str(hall["thingGroupArn"]))["tags"]
    assert tags == [{"Key": "floor", "Value": "2"}, {"Key": "site", "Value": "7"}]
    iot("update-event-configurations", "--event-configurations", '{"THING":{"Enabled":true}}')
    told = iot("describe-event-configurations", "--query", "eventConfigurations.THING")
    assert told == {"Enabled": True}
    iot("update-indexing-configuration", "--thing-indexing-configuration", "thingIndexingMode=REGISTRY")
    query = "attributes.line:4 AND thingGroupNames:cli-line"
    end = datetime.now(UTC) + timedelta(seconds=20)
    while iot("describe-index", "--index-name", "AWS_Things")["indexStatus"] != "ACTIVE":
        assert datetime.now(UTC) < end
    things = iot("search-index", "--query-string", query)["things"]
    assert isinstance(things, list)
    assert [one["thingName"] for one in things] == ["cli-pump"]
    asked = f"actionType=PUBLISH,resources={str(hall['thingGroupArn']).replace('thinggroup/cli-hall', 'topic/a')}"
    results = iot("test-authorization", "--auth-infos", asked, "--policy-names-to-add", "cli-hall")["authResults"]
    assert isinstance(results, list)
    assert results[0]["authDecision"] == "ALLOWED"
