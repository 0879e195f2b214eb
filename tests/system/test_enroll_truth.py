"""`birthmark device` tells the truth about what is on record, asks before it makes what cannot work, undoes halves."""

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome, unnoted
from birthmark.fleet.errors import DifferentRecordError
from birthmark.fleet.target_profiles import azure_profile
from support.azure.clients import a_file_device
from support.pki.est_curl import enroll_by_curl
from support.pki.pki_builders import a_device
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        running.run("manifest", "create", "--out", str(running.data.parent / "shipment"), "--count", "5")
        yield running


def shipment(server: RunningServer, *more: str) -> list[str]:
    at = server.data.parent / "shipment"
    trust = ["--signer", str(at / "signer.pem"), "--trust-root", str(at / "root.pem")]
    return ["device", "enroll-list", str(at / "manifest.json"), *trust, *more]


@pytest.mark.parametrize("cloud", ["azure", "aws"])
def test_a_shipment_is_created_then_unchanged_and_what_was_removed_is_created_again(
    server: RunningServer, cloud: str
) -> None:
    line = shipment(server, "--to", cloud, "--journal", str(server.data.parent / f"{cloud}.journal"))
    assert "5 created." in server.run(*line).stderr
    assert "5 unchanged." in server.run(*line).stderr
    name = server.rows("device", "ls", "--to", cloud)[0]["name"]
    server.run("device", "rm", name, "--to", cloud)
    assert "1 created, 4 unchanged." in server.run(*line).stderr
    assert len(server.rows("device", "ls", "--to", cloud)) == 5


def test_what_another_enrolled_since_the_look_is_not_called_created(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as fresh:
        first, second = (AzureTarget(azure_profile("local", fresh.data)) for _ in range(2))
        mine = [EnrollmentRequest(name, a_device(common_name=name).certificate) for name in ("same", "other", "new")]
        theirs = [mine[0], EnrollmentRequest("other", a_device(common_name="other").certificate)]
        first.survey(3)
        second.survey(2)
        assert second.enroll_new(theirs, unnoted) == [True, True]
        assert first.enroll_new(mine, unnoted) == [False, False, True]
        assert first.enroll(mine[0], update=False, dry_run=False).done is TargetOutcome.UNCHANGED
        with pytest.raises(DifferentRecordError):
            first.enroll(mine[1], update=False, dry_run=False)
        second.survey(3)
        assert [second.enroll(wish, update=False, dry_run=False).done for wish in (mine[0], mine[2])] == [
            TargetOutcome.UNCHANGED
        ] * 2


def test_a_run_that_cannot_look_at_all_leaves_no_refusal_and_tells_each_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.fleet.azure_target._SURVEY_AT_LEAST", -100)
    with a_new_server(tmp_path) as fresh:
        target = AzureTarget(azure_profile("local", fresh.data))
        wishes = [EnrollmentRequest(n, a_device(common_name=n).certificate) for n in ("one", "two", "one")]
        wishes[2] = wishes[0]
        target.survey(1)  # nothing is there, and that is known
        assert target.enroll_new(wishes, unnoted) == [True, True, False]
        again = AzureTarget(azure_profile("local", fresh.data))
        again.survey(1)
        more = EnrollmentRequest("three", a_device(common_name="three").certificate)
        assert again.enroll_new([*wishes, more], unnoted) == [False] * 4
        done = [again.enroll(wish, update=False, dry_run=False).done for wish in (*wishes, more)]
        assert done == [TargetOutcome.UNCHANGED] * 3 + [TargetOutcome.CREATED]
        assert "enrollment_exists" not in fresh.attempt("why", "--json").stdout


def test_a_fresh_server_has_nothing_and_is_told_everything(server: RunningServer, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    server.run(*shipment(server, "--journal", str(journal)))
    with a_new_server(tmp_path) as fresh:
        done = fresh.attempt(*shipment(server, "--journal", str(journal)))
        assert done.returncode == 1
        assert "enroll.journal_of_another_target" in done.stderr
        assert "5 created." in fresh.run(*shipment(server)).stderr
        assert len(fresh.rows("device", "ls")) == 5


def test_a_certificate_is_never_appended_to_as_if_it_were_a_journal(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "bystander")
    before = device.certificate_file.read_bytes()
    done = server.attempt(*shipment(server, "--journal", str(device.certificate_file)))
    assert done.returncode == 1
    assert "enroll.no_journal" in done.stderr
    assert device.certificate_file.read_bytes() == before


def test_looking_before_creating_leaves_no_refusal(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        for cloud in ("azure", "aws"):
            device = a_file_device(tmp_path, f"quiet-{cloud}")
            server.run("device", "enroll", "--to", cloud, "--cert", str(device.certificate_file))
        done = server.attempt("why")
        assert "No refusals." in done.stderr + done.stdout
        assert done.returncode == 0


@pytest.mark.parametrize("is_attached", [True, False])
def test_completing_what_is_there_leaves_no_refusal(tmp_path: Path, is_attached: bool) -> None:
    with a_new_server(tmp_path) as server:
        device = a_file_device(tmp_path, "half-there")
        line = ["device", "enroll", "--to", "aws", "--cert", str(device.certificate_file)]
        iot: Any = server.cloud.boto3()
        if is_attached:
            server.run(*line)
        else:
            pem = device.certificate_file.read_text()
            iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
            iot.create_thing(thingName="half-there")
        document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
        iot.create_policy(policyName="any", policyDocument=json.dumps(document))
        assert "updated" in server.run(*line, "--policy", "any").stdout
        assert "unchanged" in server.run(*line, "--policy", "any").stdout
        (principal,) = iot.list_thing_principals(thingName="half-there")["principals"]
        shown = iot.describe_certificate(certificateId=principal.rpartition("/")[2])["certificateDescription"]
        assert shown["status"] == "ACTIVE"
        assert "No refusals." in server.attempt("why").stderr


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("old", {"now": NOW - timedelta(days=2), "lifetime": timedelta(days=1)}, "expired"),
        ("weak", {"now": NOW, "key": generate_private_key(65537, 1024)}, "1024 bits"),
    ],
)
def test_what_can_never_work_needs_force(
    server: RunningServer, tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    file = tmp_path / "device.pem"
    file.write_text(a_device(None, name, **options).certificate.pem())
    line = ["device", "enroll", "--cert", str(file)]
    done = server.attempt(*line)
    assert done.returncode == 6
    assert told in done.stderr
    assert name not in {row["name"] for row in server.rows("device", "ls")}
    assert "created" in server.run(*line, "--force").stdout


def test_the_name_is_the_device_id_and_the_registration_id_is_the_common_name(
    server: RunningServer, tmp_path: Path
) -> None:
    device = a_file_device(tmp_path, "common-name")
    row = json.loads(server.run("device", "enroll", "Pump7", "--cert", str(device.certificate_file), "--json").stdout)
    assert (row["device"], row["registration_id"]) == ("Pump7", "common-name")
    assert "common-name" in {row["name"] for row in server.rows("device", "ls")}
    line = ["device", "register", "--cert", str(device.certificate_file), "--key", str(device.key_file)]
    registered = server.run(*line, "--json", **server.environment)
    assert json.loads(registered.stdout)["device_id"] == "Pump7"


@pytest.mark.parametrize(
    "line",
    [
        ["device", "enroll", "--cert", "CERT", "--policy", "p"],
        ["device", "enroll", "--cert", "CERT", "--edge", "--to", "aws"],
        ["device", "rm", "x", "--group", "--to", "aws"],
        ["device", "enroll-list", "MANIFEST", "--journal", "j", "--dry-run"],
    ],
    ids=" ".join,
)
def test_an_option_that_does_not_apply_is_wrong_usage(server: RunningServer, tmp_path: Path, line: list[str]) -> None:
    files = {"CERT": str(a_file_device(tmp_path, "any").certificate_file)}
    files["MANIFEST"] = str(server.data.parent / "shipment" / "manifest.json")
    done = server.attempt(*(files.get(word, word) for word in line))
    assert done.returncode == 2
    assert "cli.option_not_applicable" in done.stderr


@pytest.mark.parametrize("content", ["{}", "[]", '{"a": [1]}'])
def test_a_json_without_entries_is_no_success(server: RunningServer, tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    done = server.attempt("device", "enroll-list", str(file))
    assert done.returncode not in {0, 2}
    assert "Fix:" in done.stderr


def test_a_missing_policy_leaves_nothing_behind(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "half-done")
    line = ["device", "enroll", "--to", "aws", "--cert", str(device.certificate_file), "--policy", "missing"]
    done = server.attempt(*line)
    assert done.returncode == 3
    assert "fleet.reference_missing" in done.stderr
    assert "half-done" not in {row["thing"] for row in server.rows("aws", "thing", "ls")}
    thumbprint = device.holder.certificate.thumbprint.hex()
    assert thumbprint not in server.run("aws", "certificate", "ls", "--json").stdout


def test_all_that_is_missing_is_told_at_once(server: RunningServer, tmp_path: Path) -> None:
    at, template = server.data.parent / "shipment", tmp_path / "missing.toml"
    template.write_text('[aws]\npolicy = "no-policy"\nthing_type = "no-type"\ngroups = ["no-group"]\n')
    trust = ["--signer", str(at / "signer.pem"), "--trust-root", str(at / "root.pem")]
    done = server.attempt(
        "device", "enroll-list", str(at / "manifest.json"), *trust, "--to", "aws", "--template", str(template)
    )
    assert done.returncode == 7
    commands = re.findall(r"aws iot create-[a-z-]+ --[a-z-]+ no-[a-z]+", " ".join(done.stderr.split()))
    assert [command.split()[-1] for command in commands] == ["no-policy", "no-type", "no-group"]


def test_refusals_of_one_kind_are_told_once_with_cause_and_fix(server: RunningServer) -> None:
    at = server.data.parent / "shipment"
    done = server.attempt("device", "enroll-list", str(at / "manifest.json"))
    assert done.returncode == 7
    assert done.stderr.count("manifest.signer_unknown") == 1
    assert "Refused 5 devices" in done.stderr
    for word in ("Why: ", "Fix: ", "5 refused"):
        assert word in done.stderr


def test_a_certificate_that_the_servers_ca_took_back_is_asked_about_first(
    server: RunningServer, tmp_path: Path
) -> None:
    leaf = enroll_by_curl(server, tmp_path, "taken-back")
    file = tmp_path / "leaf.pem"
    file.write_text(leaf.pem())
    assert "Warning" not in server.run("device", "enroll", "--cert", str(file), "--dry-run").stderr
    server.run("pki", "revoke", leaf.thumbprint.hex())
    for cloud in ("azure", "aws"):
        done = server.attempt("device", "enroll", "--cert", str(file), "--to", cloud)
        assert done.returncode == 6
        assert "was revoked at" in done.stderr
        assert "enroll.cannot_work" in done.stderr


def test_a_group_is_made_of_a_cas_certificate_without_a_question(server: RunningServer, tmp_path: Path) -> None:
    server.run("ca", "init", "--name", "Maker", "--dir", str(tmp_path / "ca"))
    made = server.run("device", "enroll-group", "carried", "--cert", str(tmp_path / "ca" / "issuing.pem"))
    assert "created" in made.stdout


def test_who_is_enrolled_at_aws_without_a_policy_is_told_that_it_may_do_nothing(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        device = a_file_device(tmp_path, "bare")
        line = ["device", "enroll", "--to", "aws", "--cert", str(device.certificate_file)]
        told = server.attempt(*line).stderr
        assert "AWS denies these devices all actions" in told
        assert f"`birthmark {shlex.join(line)}" in told
        assert "AWS denies" not in server.attempt(*line).stderr, "it is on record"
