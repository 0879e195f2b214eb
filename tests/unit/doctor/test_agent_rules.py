"""What the agent's checks found, and the command that changes the configuration where the server is known."""

from typing import Any

import pytest

from birthmark.doctor.facts import CheckFacts, Reachable
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.rules.agent import findings, not_checked

FILE = "/etc/aziot/config.toml"
TEXT = """\
hostname = "old|name"
trust_bundle_cert = "file:///old/trust.pem"
[provisioning]
global_endpoint = "https://old.test:443"
[cert_issuance.est]
trusted_certs = ["file:///old/est.pem"]
[cert_issuance.est.urls]
default = "https://old.test:8085/.well-known/est"
"""
TEXTS = ((FILE, TEXT),)
SERVER = Reachable("/data/trust.pem", "dps.test", 8443, "est.test", 8085)


def a_check(name: str = "certs-read", *, is_error: bool = True, **facts: Any) -> CheckFacts:
    known = {"details": "it is wrong", **facts}
    known["facts"] = tuple(facts.get("facts", {}).items())
    return CheckFacts(name, FILE, is_error, **known)


def only(check: CheckFacts, server: Reachable | None = SERVER, texts: Any = TEXTS) -> DoctorFinding:
    (found,) = findings([check], texts, server)
    return found


def test_without_trouble_the_agent_is_well_and_one_that_was_not_looked_at_is_unknown() -> None:
    assert [one.severity for one in findings([], TEXTS, SERVER)] == [FindingSeverity.OK]
    assert (not_checked(FILE).severity, FILE in not_checked(FILE).seen) == (FindingSeverity.UNKNOWN, True)


def test_the_same_trouble_is_told_once_by_the_first_check_that_found_it() -> None:
    running = [a_check(name, is_error=False, command="c") for name in ("keyd-running", "certd-running", "hostname")]
    assert [one.code for one in findings(running, TEXTS, SERVER)] == [
        "doctor.agent_not_running",
        "doctor.hostname",
    ]


@pytest.mark.parametrize(
    ("name", "code", "topic"),
    [
        ("host-local-time", "", Topic.CLOCK),
        ("identityd-config-well-formed", "agent.config_invalid", Topic.CONFIGURATION),
        ("host-connect-dps-endpoint", "", Topic.NETWORK),
        ("certs-read", "links.unreachable", Topic.NETWORK),
        ("certs-read", "keys.file_missing", Topic.AGENT),
    ],
)
def test_what_a_trouble_is_about_says_what_explains_it(name: str, code: str, topic: Topic) -> None:
    assert only(a_check(name, code=code)).topic is topic


def test_a_wrong_clock_is_its_administrators_and_a_warning_is_no_fault() -> None:
    assert "timedatectl" in only(a_check("host-local-time")).for_a_person
    assert only(a_check(details="certificate is not yet valid")).for_a_person
    assert only(a_check("hostname", is_error=False)).severity is FindingSeverity.WARNING


@pytest.mark.parametrize(
    ("fix", "command"),
    [
        ("Close it: `chmod 0600 /d/key`.", "chmod 0600 /d/key"),
        ("Either `birthmark a` or `birthmark b`.", ""),
        ('Write `id_scope = "0ne"`.', ""),
    ],
)
def test_a_fix_with_one_command_is_typed(fix: str, command: str) -> None:
    assert only(a_check(code="keys.x", fix=fix)).command == command


def test_what_closes_a_file_is_taken_from_the_words_of_a_warning() -> None:
    found = only(a_check("identityd-config-well-formed", is_error=False, details=f"mode 0644: chmod 0600 {FILE}; x"))
    assert found.command == f"chmod 0600 {FILE}"


@pytest.mark.parametrize(
    ("facts", "command"),
    [
        ({"key": "hostname", "line": "1", "accepted": '`hostname = "a|b"`'}, f"sed -i '1s|=.*|= \"a\\|b\"|' {FILE}"),
        ({"key": "hostname", "line": "2", "accepted": '`hostname = "a"`'}, ""),
        ({"key": "hostname", "line": "99", "accepted": '`hostname = "a"`'}, ""),
        ({"key": "hostname", "line": "x", "accepted": '`hostname = "a"`'}, ""),
        ({"key": "hostname", "line": "1", "accepted": '`hostname = "my-device"`'}, ""),
        ({"key": "hostname", "line": "1", "accepted": "another word"}, ""),
    ],
)
def test_a_mistake_is_mended_by_its_lines_number_where_the_right_value_is_known(
    facts: dict[str, str], command: str
) -> None:
    assert only(a_check(code="agent.config_invalid", facts={**facts, "file": FILE})).command == command


def test_whoever_is_not_trusted_is_trusted_in_each_place_that_names_a_ca() -> None:
    found = only(a_check(code="links.server_untrusted"))
    assert found.command.count("/data/trust\\.pem") == 0
    first, second = found.command.split(" && ")
    assert "/old/trust" in first
    assert "/old/est" in second
    assert first.count("/data/trust.pem") == second.count("/data/trust.pem") == 1
    assert only(a_check(code="links.server_untrusted"), None).command == ""


def test_a_file_of_cas_that_is_gone_is_another_matter_than_a_devices_certificate() -> None:
    cas = only(a_check(code="agent.certificate_missing", facts={"path": "/old/trust.pem"}))
    own = only(a_check(code="agent.certificate_missing", facts={"path": "/d/device.pem"}))
    assert ("/data/trust.pem" in cas.command, own.command) == (True, "")


@pytest.mark.parametrize(("host", "wanted"), [("dps.gone", "//dps.test"), ("est.gone", "//est.test")])
def test_a_host_that_nobody_knows_is_the_servers_for_what_it_was_asked_for(host: str, wanted: str) -> None:
    text = 'global_endpoint = "https://dps.gone"\ndefault = "https://est.gone:8085/.well-known/est"\n'
    unknown = a_check(code="links.host_unknown", facts={"host": host})
    assert wanted in only(unknown, texts=((FILE, text),)).command
    assert only(unknown, None, ((FILE, text),)).command == ""


@pytest.mark.parametrize(
    ("host", "port", "wanted"),
    [("dps.test", "9", "dps.test:8443"), ("est.test", "9", "est.test:8085"), ("old.test", "443", "//dps.test")],
)
def test_a_port_at_which_nobody_answers_is_the_servers(host: str, port: str, wanted: str) -> None:
    text = 'global_endpoint = "https://dps.test:9"\ndefault = "https://est.test:9/.well-known/est"\n' + TEXT
    found = only(a_check(code="links.unreachable", facts={"host": host, "port": port}), texts=((FILE, text),))
    assert wanted in found.command
