"""`[jobs]`: what it takes, and that a mistake in it is told and never passed over."""

from pathlib import Path

import pytest

from birthmark.agent.config import ConfigInvalidError, parse_config
from birthmark.agent.jobs.model import JobSettings, ReplaceableFile, RestartCommand, RestartProof, RunCommand

FILE = Path("/etc/aziot/config.toml")
AWS = """
[provisioning]
source = "aws"
endpoint = "aws.example"
thing_name = "pump-1"
[provisioning.authentication]
method = "x509"
identity_cert = "file:///c"
identity_pk = "file:///k"
"""
MANUAL = AWS.replace('"aws"', '"manual"').replace("endpoint", "iothub_hostname").replace("thing_name", "device_id")
JOBS = """
[jobs]
renew = true
[jobs.run.self-test]
command = ["/usr/bin/self-test", "--json"]
arguments = ["--full"]
timeout_s = 60
run_again = true
[jobs.replace.settings]
path = "file:///etc/pump.json"
urls = ["https://files.example.com/pumps/"]
max_bytes = 1000
timeout_s = 10
[jobs.restart]
command = ["/usr/bin/systemctl", "reboot"]
within_s = 60
proof = "agent"
"""


def told(text: str) -> str:
    with pytest.raises(ConfigInvalidError) as caught:
        parse_config(FILE, text)
    return f"{caught.value.explain_cause()} {caught.value.explain_fix()}"


def test_all_of_it_is_read() -> None:
    assert parse_config(FILE, AWS + JOBS).jobs == JobSettings(
        {"self-test": RunCommand(("/usr/bin/self-test", "--json"), frozenset({"--full"}), 60, is_run_again=True)},
        {"settings": ReplaceableFile(Path("/etc/pump.json"), ("https://files.example.com/pumps/",), 1000, 10)},
        RestartCommand(("/usr/bin/systemctl", "reboot"), 60, RestartProof.AGENT),
        may_renew=True,
    )


def test_nothing_is_allowed_that_is_not_written() -> None:
    assert parse_config(FILE, AWS).jobs is None
    assert parse_config(FILE, AWS + "[jobs]\n").jobs == JobSettings()


def test_a_device_of_no_aws_account_has_no_jobs() -> None:
    assert 'source = "aws"' in told(MANUAL + JOBS)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('command = ["/usr/bin/self-test", "--json"]', 'command = ["self-test"]', "absolute path"),
        ('command = ["/usr/bin/self-test", "--json"]', 'command = ["/usr/bin/../self-test"]', "absolute path"),
        ('command = ["/usr/bin/self-test", "--json"]', 'command = "/usr/bin/self-test"', "list of texts"),
        ('command = ["/usr/bin/self-test", "--json"]', "command = []", "absolute path"),
        ('command = ["/usr/bin/self-test", "--json"]\n', "", "jobs.run.self-test.command: is missing"),
        ("timeout_s = 60", "timout_s = 60", "did you mean timeout_s"),
        ("timeout_s = 60", "timeout_s = 0", "must be an integer"),
        ('path = "file:///etc/pump.json"', 'path = "/etc/pump.json"', "file URI"),
        ('path = "file:///etc/pump.json"', 'path = "file:///etc/../pump.json"', "must not contain .."),
        ("https://files", "http://files", "https://files.example.com/pumps"),
        ('["https://files.example.com/pumps/"]', "[]", "https URLs"),
        ("max_bytes = 1000", "max_bytes = -1", "must be an integer"),
        ("[jobs.run.self-test]", '[jobs.run."../self-test"]', "is not a valid name"),
        ("renew = true", "reboot = true", "reboot: is not known"),
        ("renew = true", 'renew = "yes"', "must be true or false"),
        ('proof = "agent"', 'proof = "hope"', 'proof = "device"'),
    ],
)
def test_a_mistake_is_told(old: str, new: str, words: str) -> None:
    assert old in JOBS
    assert words in told(AWS + JOBS.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('thing_name = "pump-1"', 'thing_name = "pump/1"', "is not a valid thing name"),
        ('thing_name = "pump-1"', "", "thing_name: is missing"),
        ('endpoint = "aws.example"', "", "endpoint: is missing"),
        ('method = "x509"', 'method = "sas"', "must be x509"),
    ],
)
def test_a_mistake_in_whose_the_device_is_is_told(old: str, new: str, words: str) -> None:
    assert words in told(AWS.replace(old, new))
