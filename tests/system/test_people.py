"""People of other machines, by the commands alone: what each may do, that the audit tells them apart, how it ends."""

import contextlib
import hashlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import warm
from birthmark.auth.connection_strings import parse_connection_string
from support.azure.sas_tokens import make_sas
from support.console.persons import Person
from support.server.servers import RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
ENDS = "-----END CERTIFICATE-----\n"


class Plant:
    """A server, and the people who operate it."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory = server, directory

    def person(self, name: str, role: str, place: str = "*") -> Person:
        """Put somebody on record, who signs in."""
        file = self.directory / f"{name}.invitation"
        self.server.run("user", "create", name, "--role", role, "--at", place, "--out", str(file))
        somebody = Person(self.directory / name)
        somebody.run("login", str(file))
        return somebody

    def audited(self, action: str) -> list[dict[str, Any]]:
        return [row for row in self.server.rows("server", "audit", "ls") if row["action"] == action]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with contextlib.ExitStack() as stack:
        yield Plant(stack.enter_context(a_new_server(tmp_path)), tmp_path)


def test_who_signed_in_works_from_another_machine_and_the_audit_tells_people_apart(plant: Plant) -> None:
    anna, bert = plant.person("anna", "operator"), plant.person("bert", "admin")
    assert anna.rows("whoami")[0]["roles"] == [{"role": "operator", "place": "*"}]
    anna.run("hub", "device", "create", "pump-1")
    bert.run("hub", "device", "create", "pump-2")
    assert {row["device"] for row in anna.rows("hub", "device", "ls")} == {"pump-1", "pump-2"}
    by = {row["subject"]: row for row in plant.audited("iothub.device_put")}
    assert (by["pump-1"]["actor"], by["pump-2"]["actor"]) == ("user:anna", "user:bert")
    (token,) = (row["id"] for row in bert.rows("token", "ls") if row["user"] == "anna")
    assert by["pump-1"]["detail"]["token"] == token
    assert by["pump-1"]["detail"]["from"].startswith("127.")


def test_a_viewer_sees_and_changes_nothing(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    for look in (["hub", "ls"], ["dps", "ls"], ["pki", "ls"], ["aws", "thing", "ls"], ["user", "ls"], ["why"]):
        anna.run(*look)
    anna.run("server", "audit", "ls")
    changes = [
        ["hub", "create", "other", "--host", "other.localhost"],
        ["hub", "device", "create", "pump-1"],
        ["hub", "rm", "birthmark", "--yes"],
        ["hub", "key"],
        ["dps", "key"],
        ["aws", "key", "create", "ci"],
        ["device", "revoke", "pump-1", "--yes"],
        ["pki", "token", "create", "pump-1"],
        ["pki", "rollover", "start", "--yes"],
        ["user", "create", "eve", "--role", "admin"],
        ["role", "grant", "anna", "admin"],
        ["token", "create", "--user", "bert"],
    ]
    before = plant.server.rows("server", "audit", "ls")
    for change in changes:
        told = anna.refused(*change)
        assert "operator.role_too_low" in told or "anna does not have the right to revoke at server" in told, change
    assert plant.server.rows("server", "audit", "ls") == before


def test_who_has_a_role_at_one_hub_sees_that_alone(plant: Plant) -> None:
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    anna = plant.person("anna", "operator", "hub/other")
    assert [row["name"] for row in anna.rows("hub", "ls")] == ["other"]
    anna.run("hub", "device", "create", "pump-1", "--hub", "other")
    for beyond in (["hub", "device", "ls"], ["pki", "ls"], ["server", "audit", "ls"]):
        assert anna.refused(*beyond) == "operator.role_too_low", beyond


def test_an_import_needs_the_rights_to_enroll_and_to_operate(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "devices.txt").write_text('{"id": "imported", "importMode": "createOrUpdate"}\n')
    line = ["hub", "import", str(tmp_path / "devices.txt")]
    assert plant.person("officer", "security-officer").refused(*line) == "operator.role_too_low"
    plant.person("anna", "operator").run(*line)


def test_what_is_taken_away_counts_at_once(plant: Plant) -> None:
    anna = plant.person("anna", "operator")
    plant.server.run("role", "grant", "anna", "viewer")
    plant.server.run("role", "revoke", "anna", "operator")
    assert anna.refused("hub", "device", "create", "pump-1") == "operator.role_too_low"
    assert anna.statuses("/certificates", 20) == {200}
    plant.server.run("role", "revoke", "anna", "viewer")
    assert anna.statuses("/certificates", 20) == {403}
    plant.server.run("user", "rm", "anna", "--yes")
    assert anna.statuses("/certificates", 20) == {401}
    assert anna.refused("hub", "ls") == "people.token_refused"


def test_a_login_that_notepad_saved_in_utf_16_goes_on(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    file = anna.home / ".config/birthmark/login.json"
    file.write_bytes(file.read_text().encode("utf-16"))
    assert anna.rows("whoami")[0]["user"] == "anna"


def test_an_invitation_is_used_up_and_signing_out_ends_the_token(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    other = Person(plant.directory / "other")
    assert other.refused("login", str(plant.directory / "anna.invitation")) == "people.invitation_refused"
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    assert (anna.home / ".config/birthmark/login.json").stat().st_mode & 0o777 == 0o600
    anna.run("logout")
    assert plant.server.rows("token", "ls") == []
    assert anna.refused("logout") == "login.nobody"
    assert kept["token"] not in plant.server.log()


def enrolled_by(somebody: Person, *more: str) -> subprocess.CompletedProcess[str]:
    if not (somebody.home / "pump-1.cert.pem").exists():
        somebody.run("ca", "init", "--name", "Factory", "--dir", "ca")
        somebody.run("ca", "issue", "pump-1", "--dir", "ca")
    return somebody.attempt("device", "enroll", "--cert", "pump-1.cert.pem", *more)


def test_an_enroller_enrolls_at_both_clouds_interfaces_by_the_vendors_sdks(plant: Plant) -> None:
    anna = plant.person("anna", "enroller")
    for more in ((), ("--to", "aws")):
        done = enrolled_by(anna, *more)
        assert done.returncode == 0, done.stderr
    assert [row["name"] for row in anna.rows("device", "ls")] == ["pump-1"]
    for action in ("dps.enrollment_put", "awsiot.thing_create", "awsiot.certificate_add"):
        assert {row["actor"] for row in plant.audited(action)} == {"user:anna"}, action


def test_a_viewer_enrolls_nothing_at_either_cloud_and_sees_what_is_there(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    for more, place in (((), "dps/birthmark"), (("--to", "aws"), "aws")):
        done = enrolled_by(anna, *more)
        assert done.returncode != 0
        told = " ".join(done.stderr.split())
        assert f"birthmark role grant anna enroller --at {place}" in told
        assert "fleet.role_missing" in told
    assert anna.rows("device", "ls") == []
    assert {row["code"] for row in plant.server.rows("why")} == {"operator.role_too_low"}


def test_what_a_person_was_refused_is_told_by_that_persons_name(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    assert anna.refused("hub", "device", "create", "pump-1") == "operator.role_too_low"
    (row,) = plant.server.rows("why", "anna")
    assert row["code"] == "operator.role_too_low"
    assert "birthmark role grant anna enroller --at hub/birthmark" in row["fix"]


def test_a_token_says_what_it_may_and_one_that_is_too_narrow_is_no_reason_for_a_role(plant: Plant) -> None:
    anna = plant.person("anna", "operator", "hub/birthmark")
    (wide,) = anna.rows("token", "create", "wide", "--role", "admin")
    assert (wide["role"], wide["may"]) == ("admin", "read, enroll, operate, revoke")
    (narrow,) = anna.rows("token", "create", "narrow", "--role", "viewer", "--at", "hub/birthmark")
    assert narrow["may"] == "read"
    plant.server.run("role", "revoke", "anna", "operator", "--at", "hub/birthmark")
    assert {row["may"] for row in plant.server.rows("token", "ls")} == {""}
    plant.server.run("role", "grant", "anna", "operator")
    (anna.home / "narrow").write_text(narrow["token"])
    anna.run("logout")
    roots = plant.server.endpoints["trust_bundle"]
    anna.run("login", f"https://{plant.server.address}:9443", "--token-file", "narrow", "--roots", roots)
    assert anna.refused("hub", "device", "create", "pump-1") == "operator.token_too_narrow"
    (row,) = plant.server.rows("why", "anna")
    assert "birthmark token create --user anna --role enroller --at hub/birthmark" in row["fix"]


def test_a_device_is_shown_and_taken_back_as_far_as_ones_roles_go(plant: Plant) -> None:
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    for hub in ("birthmark", "other"):
        plant.server.run("hub", "device", "create", "pump-1", "--hub", hub)
    anna = plant.person("anna", "operator", "hub/other")
    assert {row["place"] for row in anna.rows("device", "show", "pump-1")} == {"hub other"}
    bert = plant.person("bert", "operator", "server")
    plant.server.run("role", "grant", "bert", "operator", "--at", "hub/other")
    assert {row["place"] for row in bert.rows("device", "show", "pump-1")} == {"hub other"}
    taken = {row["place"]: row for row in bert.rows("device", "revoke", "pump-1", "--yes") if row["what"] == "device"}
    assert (taken["hub other"]["became"], taken["hub birthmark"]["became"]) == ("taken back", "left")
    assert "the right to revoke at hub/birthmark" in taken["hub birthmark"]["note"]
    assert len(plant.audited("iothub.device_take_back")) == 1
    carl = plant.person("carl", "viewer", "aws")
    assert carl.refused("device", "show", "pump-1") == "device.not_on_record"


def test_nobody_is_asked_for_what_is_not_there(plant: Plant) -> None:
    bert = plant.person("bert", "admin")
    assert bert.refused("hub", "rm", "gone", "--yes") == "iothub.unknown_hub"
    assert bert.refused("dps", "rm", "gone", "--yes") == "dps.unknown_instance"
    assert bert.rows("approval", "ls") == []


def test_the_audit_shows_from_where_and_by_which_token(plant: Plant) -> None:
    anna = plant.person("anna", "operator")
    (token,) = (row["id"] for row in plant.server.rows("token", "ls"))
    anna.run("hub", "device", "create", "pump-1")
    head, *_, last = anna.run("server", "audit", "ls").splitlines()
    assert head.split() == ["at", "actor", "from", "by", "action", "subject"]
    assert f"token {token}" in last
    assert "user:anna" in last


def exported(somebody: Person) -> dict[str, str]:
    lines = somebody.run("env", "--format", "dotenv").splitlines()
    return dict(line.split("=", 1) for line in lines)


def by_aws_cli(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("aws")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment(**variables))


def test_the_vendors_command_line_works_in_a_persons_name_as_far_as_that_one_may(plant: Plant) -> None:
    anna = plant.person("anna", "enroller", "aws")
    variables = exported(anna)
    assert by_aws_cli(variables, "iot", "create-thing", "--thing-name", "pump-1").returncode == 0
    document = ["--policy-name", "all", "--policy-document", json.dumps({"Version": "2012-10-17", "Statement": []})]
    assert "ForbiddenException" in by_aws_cli(variables, "iot", "create-policy", *document).stderr
    plant.server.run("user", "rm", "anna", "--yes")
    assert by_aws_cli(variables, "iot", "list-things").returncode != 0
    assert "bmt_" in variables["AWS_ACCESS_KEY_ID"]


def test_what_a_person_publishes_in_aws_is_kept(plant: Plant) -> None:
    variables = exported(plant.person("anna", "operator", "aws"))
    words = ["iot-data", "publish", "--topic", "plant/state", "--payload", "on", "--retain", "--qos", "1"]
    assert (done := by_aws_cli(variables, *words)).returncode == 0, done.stderr
    kept = by_aws_cli(variables, "iot-data", "get-retained-message", "--topic", "plant/state")
    assert json.loads(kept.stdout)["payload"] == "b24="


def test_a_person_is_told_no_url_of_a_file_that_a_job_is_about(plant: Plant) -> None:
    (bucket := plant.server.data / "buckets" / "firmware").mkdir(parents=True)
    (bucket / "pump.bin").write_bytes(b"1")
    admin, viewer = (exported(plant.person(f"a-{role}", role)) for role in ("admin", "viewer"))
    document = {"url": "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/pump.bin}"}
    thing = json.loads(by_aws_cli(admin, "iot", "create-thing", "--thing-name", "w").stdout)["thingArn"]
    job = ["--job-id", "j", "--targets", thing, "--document", json.dumps(document)]
    assert (made := by_aws_cli(admin, "iot", "create-job", *job)).returncode == 0, made.stderr
    words = ["iot-jobs-data", "describe-job-execution", "--thing-name", "w", "--job-id", "j", "--include-job-document"]
    for variables in (viewer, admin):
        told = json.loads(by_aws_cli(variables, *words).stdout)["execution"]["jobDocument"]
        assert json.loads(told) == document


def of_dps(somebody: Person, method: str, path: str, body: Any = None) -> str:
    """Return what the provisioning service answers to a service client that works in a person's name."""
    variables = exported(somebody)
    parts = parse_connection_string(variables["PROVISIONING_CONNECTION_STRING"])
    headers = {"Authorization": make_sas(parts.host, parts.key, int(time.time()) + 600, parts.policy)}
    url = f"https://{parts.host}{path}?api-version=2021-10-01"
    answer = requests.request(method, url, json=body, headers=headers, verify=variables["SSL_CERT_FILE"], timeout=30)
    assert answer.ok, answer.text
    return answer.text


def test_an_enroller_sets_no_twin_of_a_device_that_is_there_also_not_in_bulk(plant: Plant) -> None:
    plant.server.run("hub", "device", "create", "victim")
    variables = exported(plant.person("anna", "enroller"))
    parts = parse_connection_string(variables["IOTHUB_CONNECTION_STRING"])
    headers = {"Authorization": make_sas(parts.host, parts.key, int(time.time()) + 600, parts.policy)}
    url, twin = f"https://{parts.host}/devices?api-version=2021-04-12", {"properties": {"desired": {"interval": 1}}}

    def bulk(item: dict[str, Any]) -> int:
        roots = variables["SSL_CERT_FILE"]
        return requests.post(url, json=[item], headers=headers, verify=roots, timeout=30).status_code

    for mode in ("updateTwin", "updateTwinIfMatchETag", "update"):
        assert bulk({"id": "victim", "importMode": mode, **twin}) == 403, mode
    assert bulk({"id": "new-1", "importMode": "create", **twin}) == 200
    assert "interval" not in plant.server.run("hub", "twin", "victim", "--json").stdout


def test_a_revoked_device_is_let_in_again_at_the_hub_by_nobody_who_may_revoke_none(plant: Plant) -> None:
    plant.server.run("hub", "device", "create", "stolen")
    plant.server.run("device", "revoke", "stolen", "--yes")
    anna = plant.person("anna", "enroller")
    variables = exported(anna)
    parts = parse_connection_string(variables["IOTHUB_CONNECTION_STRING"])
    headers = {"Authorization": make_sas(parts.host, parts.key, int(time.time()) + 600, parts.policy)}
    url, query = f"https://{parts.host}/devices", "?api-version=2021-04-12"

    def ask(method: str, path: str, body: Any) -> int:
        roots = variables["SSL_CERT_FILE"]
        return requests.request(method, f"{url}{path}{query}", json=body, headers=headers, verify=roots).status_code

    enabled = {"deviceId": "stolen", "status": "enabled"}
    assert ask("PUT", "/stolen", enabled) == 403
    assert ask("POST", "", [{"id": "stolen", "importMode": "update", "status": "enabled"}]) == 403
    assert anna.refused("hub", "device", "enable", "stolen") == "operator.role_too_low"
    plant.server.run("hub", "device", "rm", "stolen", "--yes")
    assert ask("PUT", "/stolen", enabled) == 403
    assert anna.refused("hub", "device", "create", "stolen") == "operator.role_too_low"
    plant.server.run("pki", "release", "stolen")
    assert ask("PUT", "/stolen", enabled) == 200


def test_a_viewer_is_shown_no_key_that_a_rule_or_an_enrollment_sends_along(plant: Plant) -> None:
    viewer, admin = plant.person("anna", "viewer"), plant.person("ben", "admin")
    http = {"url": "https://hooks.example.com/x?code=U-KEY", "headers": [{"key": "authorization", "value": "H-KEY"}]}
    rule = {"sql": "SELECT * FROM 'a'", "actions": [{"http": http}], "errorAction": {"http": http}}
    create = ["iot", "create-topic-rule", "--rule-name", "hook", "--topic-rule-payload", json.dumps(rule)]
    assert (made := by_aws_cli(exported(admin), *create)).returncode == 0, made.stderr
    webhook = {"webhookUrl": "https://func.example.com/alloc?code=W-KEY", "apiVersion": "2021-10-01"}
    enrollment = {"attestation": {"type": "symmetricKey"}, "registrationId": "pump-9", "allocationPolicy": "custom"}
    of_dps(admin, "PUT", "/enrollments/pump-9", enrollment | {"customAllocationDefinition": webhook})
    for person, is_shown in ((viewer, False), (admin, True)):
        told = by_aws_cli(exported(person), "iot", "get-topic-rule", "--rule-name", "hook").stdout
        tried = person.run("aws", "rule", "test", "--rule", "hook", "--topic", "a", "--payload", "{}", "--json")
        for key in ("U-KEY", "H-KEY"):
            assert (key in told, key in tried) == (is_shown, is_shown), key
        everything = {"query": "SELECT * FROM enrollments"}
        seen = of_dps(person, "GET", "/enrollments/pump-9"), of_dps(person, "POST", "/enrollments/query", everything)
        assert ["W-KEY" in one for one in seen] == [is_shown, is_shown]


def test_a_token_that_ends_soon_attaches_no_policy_that_reaches_beyond_one_device(plant: Plant) -> None:
    anna = plant.person("anna", "admin")
    for name, client in (("own", "${iot:Connection.Thing.ThingName}"), ("all", "*")):
        allowed = {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:*:*:client/{client}"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        by_aws_cli(exported(anna), "iot", "create-policy", "--policy-name", name, "--policy-document", document)
    (made,) = anna.rows("token", "create", "ci", "--lifetime", "1h")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    (anna.home / "soon.json").write_text(json.dumps(kept | {"token": made["token"], "token_id": made["id"]}))
    lines = anna.attempt("env", "--format", "dotenv", BIRTHMARK_LOGIN=str(anna.home / "soon.json")).stdout.splitlines()
    soon = dict(line.split("=", 1) for line in lines)
    certificate = by_aws_cli(soon, "iot", "create-keys-and-certificate", "--set-as-active")
    arn = json.loads(certificate.stdout)["certificateArn"]
    target = ["--target", arn]
    assert by_aws_cli(soon, "iot", "attach-policy", "--policy-name", "own", *target).returncode == 0
    assert "ForbiddenException" in by_aws_cli(soon, "iot", "attach-policy", "--policy-name", "all", *target).stderr
    group = by_aws_cli(exported(anna), "iot", "create-thing-group", "--thing-group-name", "wide")
    to_group = ["--policy-name", "all", "--target", json.loads(group.stdout)["thingGroupArn"]]
    assert by_aws_cli(exported(anna), "iot", "attach-policy", *to_group).returncode == 0
    for by, name in ((soon, "p-1"), (exported(anna), "p-2")):
        by_aws_cli(by, "iot", "create-thing", "--thing-name", name)
    inside = ["--thing-group-name", "wide", "--thing-name"]
    assert by_aws_cli(exported(anna), "iot", "add-thing-to-thing-group", *inside, "p-2").returncode == 0
    for words in (
        ["add-thing-to-thing-group", *inside, "p-1"],
        ["attach-thing-principal", "--thing-name", "p-2", "--principal", arn],
        ["create-thing-group", "--thing-group-name", "below", "--parent-group-name", "wide"],
    ):
        assert "ForbiddenException" in by_aws_cli(soon, "iot", *words).stderr, words
    own = ["--thing-name", "p-1", "--principal", arn]
    assert by_aws_cli(soon, "iot", "attach-thing-principal", *own).returncode == 0


def test_an_enroller_gives_a_device_no_more_than_is_a_devices_own(plant: Plant) -> None:
    admin, enroller = (exported(plant.person(f"b-{role}", role, "aws")) for role in ("admin", "enroller"))
    for name, client in (("of-one", "${iot:Connection.Thing.ThingName}"), ("of-all", "*")):
        allowed = {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"arn:aws:iot:*:*:client/{client}"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        made = by_aws_cli(admin, "iot", "create-policy", "--policy-name", name, "--policy-document", document)
        assert made.returncode == 0, made.stderr
    certificate = by_aws_cli(enroller, "iot", "create-keys-and-certificate", "--set-as-active")
    target = ["--target", json.loads(certificate.stdout)["certificateArn"]]
    assert by_aws_cli(enroller, "iot", "attach-policy", "--policy-name", "of-one", *target).returncode == 0
    told = by_aws_cli(enroller, "iot", "attach-policy", "--policy-name", "of-all", *target).stderr
    assert "ForbiddenException" in told
    assert "birthmark role grant b-enroller operator --at aws" in told
    assert by_aws_cli(admin, "iot", "attach-policy", "--policy-name", "of-all", *target).returncode == 0


def test_to_let_a_certificate_in_takes_another_right_than_to_shut_it_out_or_bring_it_back(plant: Plant) -> None:
    enroller, operator = (exported(plant.person(f"a-{role}", role, "aws")) for role in ("enroller", "operator"))
    officer = exported(plant.person("officer", "security-officer", "aws"))
    made = by_aws_cli(enroller, "iot", "create-keys-and-certificate")
    of_it = ["--certificate-id", json.loads(made.stdout)["certificateId"], "--new-status"]

    def refused(variables: dict[str, str], status: str) -> bool:
        done = by_aws_cli(variables, "iot", "update-certificate", *of_it, status)
        assert done.returncode == 0 or "ForbiddenException" in done.stderr, done.stderr
        return done.returncode != 0

    assert refused(officer, "ACTIVE")
    assert not refused(enroller, "ACTIVE")
    assert refused(enroller, "INACTIVE")
    assert refused(enroller, "REVOKED")
    assert not refused(officer, "REVOKED")
    assert refused(enroller, "ACTIVE")  # what another took back
    assert refused(officer, "ACTIVE")
    assert not refused(operator, "ACTIVE")


def test_a_role_at_one_service_is_none_at_another(plant: Plant) -> None:
    plant.server.run("dps", "create", "other")
    anna = plant.person("anna", "enroller", "dps/other")
    assert enrolled_by(anna, "--dps", "other").returncode == 0
    assert enrolled_by(anna).returncode != 0
    assert [row["name"] for row in plant.server.rows("device", "ls", "--dps", "other")] == ["pump-1"]
    assert plant.server.rows("device", "ls") == []


def test_a_token_goes_no_further_than_it_says_and_makes_no_other(plant: Plant) -> None:
    anna = plant.person("anna", "operator")
    (made,) = anna.rows("token", "create", "ci", "--role", "viewer", "--lifetime", "1h")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    narrow = Person(plant.directory / "ci")
    (narrow.home / "login.json").write_text(json.dumps(kept | {"token": made["token"]}))
    by = {"BIRTHMARK_LOGIN": str(narrow.home / "login.json")}
    assert narrow.attempt("hub", "ls", **by).returncode == 0
    for beyond in (["hub", "device", "create", "x"], ["token", "create"]):
        assert narrow.attempt(*beyond, **by).returncode == 4, beyond
    (seen,) = (json.loads(line) for line in narrow.attempt("token", "ls", "--json", **by).stdout.splitlines())
    assert seen["id"] == made["id"]
    assert narrow.attempt("token", "rm", kept["token_id"], "--yes", **by).returncode == 4
    assert "token     viewer at *" in narrow.attempt("whoami", **by).stdout
    anna.run("token", "rm", made["id"], "--yes")
    assert narrow.attempt("hub", "ls", **by).returncode == 4


def test_a_token_that_administers_people_alone_makes_nobody_who_may_more_than_it(plant: Plant) -> None:
    anna = plant.person("anna", "admin")
    (made,) = anna.rows("token", "create", "ci", "--role", "admin", "--at", "server")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    (anna.home / "narrow.json").write_text(json.dumps(kept | {"token": made["token"]}))

    def code(*words: str) -> str:
        done = anna.attempt(*words, "--json", BIRTHMARK_LOGIN=str(anna.home / "narrow.json"))
        return "" if done.returncode == 0 else str(json.loads(done.stderr)["error"])

    assert code("hub", "key") == "operator.token_too_narrow"
    assert code("user", "invite", "anna") == "people.token_narrowed"  # who redeems it may all that anna may
    for given in (("admin",), ("viewer", "--at", "hub/birthmark")):
        assert code("role", "grant", "anna", *given) == "people.token_narrowed", given
        name, (role, *at) = f"eve-{given[0]}", given
        made_too = code("user", "create", name, "--role", role, *at, "--out", str(anna.home / name))
        assert made_too == "people.token_narrowed", given
    assert [row["name"] for row in plant.server.rows("user", "ls")] == ["anna"]
    assert code("role", "grant", "anna", "viewer", "--at", "server") == "people.token_narrowed"  # it would stay


def test_a_token_that_ends_soon_leaves_nothing_that_ends_later(plant: Plant) -> None:
    anna = plant.person("anna", "admin")
    (made,) = anna.rows("token", "create", "ci", "--lifetime", "1h")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    (anna.home / "soon.json").write_text(json.dumps(kept | {"token": made["token"]}))
    (anna.home / "secret").touch(0o600)
    (anna.home / "secret").write_text("four words by chance\n")
    by = {"BIRTHMARK_LOGIN": str(anna.home / "soon.json")}
    assert anna.attempt("hub", "ls", **by).returncode == 0
    for beyond in (
        ["hub", "key"],
        ["dps", "key"],
        ["hub", "policy", "rotate", "service", "primary"],
        ["aws", "key", "create"],
        ["webhook", "create", "works", "https://hooks.example.com/x"],
        ["role", "grant", "anna", "viewer"],
        ["token", "create", "--lifetime", "366d"],
        ["user", "invite", "anna"],
        ["user", "password", "--password-file", "secret"],
        ["pki", "user", "create", "line-1", "--device", "d-1"],
        ["hub", "endpoint", "create", "out", "--webhook", "https://hooks.example.com/x"],
        ["pki", "token", "create", "d-1", "--lifetime", "25h"],
        ["alert", "silence", "webhook-failing", "--lifetime", "2h", "--reason", "by ci"],
        ["approval", "approve", "12345678"],
        ["hub", "tier", "birthmark", "F1"],
    ):
        done = anna.attempt(*beyond, "--json", **by)
        assert json.loads(done.stderr)["error"] == "people.token_narrowed", beyond
    assert anna.attempt("hub", "device", "create", "by-ci", **by).returncode == 0
    assert anna.attempt("pki", "token", "create", "by-ci", **by).returncode == 0
    anna.run("token", "create", "--lifetime", "366d")


def test_who_is_removed_leaves_a_list_of_what_was_made_and_shown(plant: Plant) -> None:
    anna = plant.person("anna", "admin")
    (key,) = anna.rows("aws", "key", "create")
    anna.run("hub", "key", "--policy", "service")
    anna.run("user", "create", "ben", "--role", "viewer", "--out", "ben.invitation")
    told = plant.server.run("user", "rm", "anna", "--yes").stdout
    for expected in (f"aws key rm {key['access_key_id']}", "rotate service", "user rm ben", "role revoke ben viewer"):
        assert expected in told
    again = next(line for line in told.splitlines() if line.startswith("List them from the audit log: birthmark "))
    rows = plant.server.rows(*again.partition("birthmark ")[2].split())
    assert {"awsiot.key_add", "iothub.key_show", "people.invite"} <= {row["action"] for row in rows}


def test_the_port_for_people_asks_for_no_certificate_and_takes_no_token_of_the_machine(plant: Plant) -> None:
    plant.server.run("user", "create", "anna", "--role", "viewer", "--out", str(plant.directory / "anna.invitation"))
    invited = json.loads((plant.directory / "anna.invitation").read_text())
    host, _, port = invited["url"].removeprefix("https://").partition(":")
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}"], input="", capture_output=True, text=True, check=False
    )
    assert "No client certificate CA names sent" in said.stdout
    assert "Requested Signature Algorithms" not in said.stdout  # which a request for a certificate names
    token = (plant.server.data / "operator.token").read_text().strip()
    context = ssl.create_default_context(cadata=invited["roots"])
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as tls:
        request = f"GET /operator/v1/hubs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        tls.sendall(request.encode())
        assert tls.recv(64).startswith(b"HTTP/1.1 401 ")


def test_who_does_not_have_the_servers_roots_signs_in_nowhere(plant: Plant) -> None:
    file = plant.directory / "anna.invitation"
    plant.server.run("user", "create", "anna", "--role", "viewer", "--out", str(file))
    plant.server.run("ca", "init", "--name", "Another", "--dir", str(plant.directory / "ca"))
    other = (plant.directory / "ca" / "root.pem").read_text()
    wrong = plant.directory / "wrong.invitation"
    wrong.write_text(json.dumps(json.loads(file.read_text()) | {"roots": other}))
    anna = Person(plant.directory / "anna")
    assert anna.refused("login", str(wrong)) == "operator.remote_away"
    anna.run("login", str(file))  # the code was not used up


def test_what_cannot_be_undone_takes_a_second_person_who_might_do_it_too(plant: Plant) -> None:
    anna, bert, eve = (plant.person(name, "admin") for name in ("anna", "bert", "eve"))
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    remove = ["hub", "rm", "other", "--yes"]
    assert anna.refused(*remove) == "people.second_person_wanted"
    (asked,) = bert.rows("approval", "ls")
    assert (asked["asked_by"], asked["request"]) == ("anna", "DELETE /hubs/other")
    assert anna.refused("approval", "approve", asked["id"]) == "people.same_person"
    assert anna.refused(*remove) == "people.second_person_wanted"
    bert.run("approval", "approve", asked["id"])
    assert eve.refused(*remove) == "people.second_person_wanted"  # it was approved to anna
    anna.run(*remove)
    assert "other" not in {row["name"] for row in anna.rows("hub", "ls")}
    used = plant.audited("people.approval_use")
    assert (used[0]["actor"], used[0]["detail"]["approved_by"]) == ("user:anna", "bert")


def test_who_was_let_in_by_another_person_is_neither_of_two(plant: Plant) -> None:
    anna, bert = plant.person("anna", "admin"), plant.person("bert", "admin")
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    anna.refused("hub", "rm", "other", "--yes")
    (asked,) = bert.rows("approval", "ls")
    (made,) = anna.rows("token", "create", "--user", "bert")  # which the audit tells of, and is no bert
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    (anna.home / "as-bert.json").write_text(json.dumps(kept | {"token": made["token"]}))
    by = {"BIRTHMARK_LOGIN": str(anna.home / "as-bert.json")}
    done = anna.attempt("approval", "approve", asked["id"], "--json", **by)
    assert json.loads(done.stderr)["error"] == "people.let_in_by_person"
    done = anna.attempt("hub", "rm", "other", "--yes", "--json", **by)
    assert json.loads(done.stderr)["error"] == "people.let_in_by_person"
    carl = Person(plant.directory / "carl")
    anna.run("user", "create", "carl", "--role", "admin", "--out", str(carl.home / "carl.invitation"))
    carl.run("login", "carl.invitation")
    (own,) = carl.rows("token", "create")
    (carl.home / "own.json").write_text(json.dumps(kept | {"token": own["token"]}))
    for more in ({}, {"BIRTHMARK_LOGIN": str(carl.home / "own.json")}):
        done = carl.attempt("approval", "approve", asked["id"], "--json", **more)
        assert json.loads(done.stderr)["error"] == "people.let_in_by_person"
    bert.run("approval", "approve", asked["id"])


def test_an_approval_goes_with_who_asked_and_with_who_gave_it(plant: Plant) -> None:
    anna, bert = plant.person("anna", "admin"), plant.person("bert", "admin")
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    remove = ["hub", "rm", "other", "--yes"]
    anna.refused(*remove)
    bert.run("approval", "approve", bert.rows("approval", "ls")[0]["id"])
    plant.server.run("user", "rm", "bert", "--yes")
    assert anna.refused(*remove) == "people.second_person_wanted"
    (waits,) = plant.server.rows("approval", "ls")
    plant.server.run("approval", "approve", waits["id"])
    plant.server.run("user", "rm", "anna", "--yes")
    again = Person(plant.directory / "again")
    plant.server.run("user", "create", "anna", "--role", "admin", "--out", str(again.home / "anna.invitation"))
    again.run("login", "anna.invitation")
    assert again.refused(*remove) == "people.second_person_wanted"


def test_to_link_a_hub_takes_a_right_there_too(plant: Plant) -> None:
    plant.server.run("dps", "create", "mine")
    anna = plant.person("anna", "operator", "dps/mine")
    assert anna.refused("dps", "link", "birthmark", "--dps", "mine") == "operator.role_too_low"
    plant.server.run("role", "grant", "anna", "operator", "--at", "hub/birthmark")
    anna.run("dps", "link", "birthmark", "--dps", "mine")


def test_an_invitation_is_not_used_up_where_nothing_can_be_written(plant: Plant) -> None:
    file = plant.directory / "anna.invitation"
    plant.server.run("user", "create", "anna", "--role", "viewer", "--out", str(file))
    anna = Person(plant.directory / "anna")
    (anna.home / "taken").mkdir()
    for nowhere in (anna.home / "taken", Path("/proc/nowhere/login.json")):
        assert anna.attempt("login", str(file), BIRTHMARK_LOGIN=str(nowhere)).returncode != 0
    anna.run("login", str(file))


@pytest.mark.parametrize(
    "wrong",
    [
        {"roots": "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"},
        {"roots": ""},
        {"roots": "\u2013----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
        {"url": "https://localhost:99999"},
        {"url": "http://localhost:8080"},
        {"url": ""},
    ],
)
def test_a_damaged_login_or_invitation_is_told_as_that(plant: Plant, wrong: dict[str, str]) -> None:
    anna = plant.person("anna", "viewer")
    file = anna.home / ".config/birthmark/login.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    assert anna.refused("hub", "ls") == "login.damaged"
    invitation = plant.directory / "anna.invitation"
    invitation.write_text(json.dumps(json.loads(invitation.read_text()) | wrong))
    assert anna.refused("login", str(invitation)) == "login.invitation_invalid"


def test_a_token_that_no_header_can_carry_is_a_damaged_login(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    file = anna.home / ".config/birthmark/login.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"token": "bmt_\u2013"}))
    assert anna.refused("whoami") == "login.damaged"


def test_a_token_that_is_given_in_a_names_place_is_told_to_nobody(plant: Plant) -> None:
    anna = plant.person("anna", "enroller")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    variables = exported(anna) | {"AWS_ACCESS_KEY_ID": kept["token"]}
    assert by_aws_cli(variables, "iot", "list-things").returncode != 0
    told = json.dumps(plant.server.rows("why"))
    assert "bmt_" in told
    assert kept["token"].rpartition("_")[2] not in told


def test_who_looks_on_sees_nothing_more_when_that_right_is_taken(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    command = [str(warm.programs() / "birthmark"), "events", "--follow", "--json"]
    environment = clean_environment(HOME=str(anna.home))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as looks:
        assert looks.stdout is not None
        for number in range(100):  # until it looks on, which begins with what comes then
            plant.server.run("hub", "device", "create", f"pump-{number}")
            if select.select([looks.stdout], [], [], 0.5)[0]:
                break
        plant.server.run("role", "revoke", "anna", "viewer")
        assert looks.wait(10) == 4
        assert looks.stderr is not None
        assert "operator.role_too_low" in looks.stderr.read()


def test_a_login_that_another_user_wrote_leads_nowhere(plant: Plant) -> None:
    anna = plant.person("anna", "viewer")
    file = anna.home / ".config/birthmark/login.json"
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(file, 65534, 65534)
    assert anna.refused("hub", "ls") == "login.foreign"


def test_an_approval_counts_while_both_may_and_a_rejection_is_told(plant: Plant) -> None:
    anna, bert = plant.person("anna", "admin"), plant.person("bert", "admin")
    plant.server.run("hub", "create", "other", "--host", "other.localhost")
    remove = ["hub", "rm", "other", "--yes"]
    anna.refused(*remove)
    (asked,) = bert.rows("approval", "ls")
    bert.run("approval", "approve", asked["id"])
    plant.server.run("role", "revoke", "bert", "admin")
    assert anna.refused(*remove) == "people.second_person_wanted"
    assert bert.refused("approval", "approve", asked["id"]) == "people.approval_missing"
    plant.server.run("role", "grant", "bert", "viewer")
    assert bert.rows("approval", "ls") == []
    plant.server.run("hub", "create", "third", "--host", "third.localhost")
    anna.refused("hub", "rm", "third", "--yes")
    (waits,) = (row for row in plant.server.rows("approval", "ls") if row["request"] == "DELETE /hubs/third")
    plant.server.run("approval", "reject", waits["id"])
    assert anna.refused("hub", "rm", "third", "--yes") == "people.approval_rejected"


def test_a_receivers_url_is_shown_whole_to_who_administers_alone(plant: Plant) -> None:
    anna, bert = plant.person("anna", "viewer"), plant.person("bert", "admin")
    url = "https://hooks.example.com/services/T0/5ecret?key=another"
    bert.run("webhook", "create", "works", url)
    assert [row["url"] for row in bert.rows("webhook", "ls")] == [url]
    assert [row["url"] for row in anna.rows("webhook", "ls")] == ["https://hooks.example.com/…"]
    assert "5ecret" not in anna.run("server", "audit", "ls", "--json") + anna.run("events", "--begin", "--json")
    (narrow,) = bert.rows("token", "create", "--role", "viewer")
    kept = json.loads((bert.home / ".config/birthmark/login.json").read_text())
    (bert.home / "narrow.json").write_text(json.dumps(kept | {"token": narrow["token"]}))
    assert "5ecret" not in bert.attempt("webhook", "ls", BIRTHMARK_LOGIN=str(bert.home / "narrow.json")).stdout


def test_a_step_of_an_exchange_of_the_root_is_approved_as_it_stood_and_not_whichever_comes_next(plant: Plant) -> None:
    anna, bert = plant.person("anna", "security-officer"), plant.person("bert", "security-officer")
    anna.refused("pki", "rollover", "start", "--yes")
    bert.run("approval", "approve", bert.rows("approval", "ls")[0]["id"])
    anna.run("pki", "rollover", "start", "--yes")
    kept = json.loads((anna.home / ".config/birthmark/login.json").read_text())
    (anna.home / "roots.pem").write_text(kept["roots"])
    asked = requests.post(
        f"{kept['url']}/operator/v1/ca/rollover/next",
        json={"share": 0},
        headers={"Authorization": f"Bearer {kept['token']}"},
        verify=str(anna.home / "roots.pem"),
        timeout=30,
    )
    assert (asked.status_code, asked.json()["code"]) == (400, "operator.request_invalid"), asked.text
    assert bert.rows("approval", "ls") == []
    assert anna.refused("pki", "rollover", "next", "--share", "0", "--yes") == "people.second_person_wanted"


def test_a_name_that_was_taken_back_is_let_go_by_who_may_take_back_alone(plant: Plant) -> None:
    enroller, operator = plant.person("anna", "enroller"), plant.person("bert", "operator")
    operator.run("device", "revoke", "pump-1", "--block", "--yes")
    assert enroller.refused("pki", "release", "pump-1") == "operator.role_too_low"
    operator.run("pki", "release", "pump-1")


def test_nobody_takes_the_root_back_by_a_device_that_he_says_has_its_certificate(plant: Plant) -> None:
    anna = plant.person("anna", "operator")
    trust = (plant.server.data / "trust.pem").read_text()
    root = hashlib.sha256(ssl.PEM_cert_to_DER_cert(trust.split("-----END")[0] + ENDS)).hexdigest()
    (anna.home / "root.pem").write_text(trust)
    anna.run("hub", "device", "create", "pump-1", "--cert", "root.pem")
    anna.run("hub", "device", "create", "pump-2", "--cert", "root.pem")
    anna.attempt("pki", "revoke", "--device", "pump-1", "--yes")
    anna.run("device", "revoke", "pump-2", "--yes")
    taken = plant.audited("iothub.device_take_back")
    assert [row["subject"] for row in taken] == ["pump-2"]
    assert root not in {row["detail"]["thumbprint"] for row in plant.audited("certificate.revoke")}


def test_a_role_ends_with_its_hub_at_every_worker(plant: Plant) -> None:
    make = ["hub", "create", "other", "--host", "other.localhost"]
    plant.server.run(*make)
    anna = plant.person("anna", "operator", "hub/other")
    assert anna.statuses("/hubs/other/devices", 12) == {200}
    plant.server.run("hub", "rm", "other", "--yes")
    plant.server.run(*make)
    assert anna.statuses("/hubs/other/devices", 24) == {403}
    assert plant.server.rows("user", "show", "anna")[0]["roles"] == []
    assert plant.server.attempt("role", "grant", "anna", "operator", "--at", "hub/Other").returncode != 0
