"""What a cloud may ask of a device: what the configuration names, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.agent.jobs.document_parser import MAX_DOCUMENT_BYTES, is_below, parse_document
from birthmark.agent.jobs.model import (
    JobRejectedError,
    JobSettings,
    RenewAction,
    ReplaceableFile,
    ReplaceAction,
    RestartAction,
    RestartCommand,
    RunAction,
    RunCommand,
)

TEST = RunCommand(("/usr/bin/self-test",), frozenset({"--full", "--quick"}))
FILE = ReplaceableFile(Path("/etc/pump.json"), ("https://files.example.com/pumps/",), max_bytes=1000)
REBOOT = RestartCommand(("/sbin/reboot",))
ALLOWED = JobSettings({"self-test": TEST}, {"settings": FILE}, REBOOT, may_renew=True)
DIGEST = "ab" * 32
URL = "https://files.example.com/pumps/1.json"


def document(do: str, **more: Any) -> bytes:
    return json.dumps({"birthmark": {"do": do, **more}}).encode()


def rejected(body: bytes, allowed: JobSettings = ALLOWED) -> str:
    with pytest.raises(JobRejectedError) as caught:
        parse_document(body, allowed)
    return str(caught.value)


def a_replacement(**changed: Any) -> bytes:
    return document("replace", **{"file": "settings", "url": URL, "sha256": DIGEST, **changed})


def test_what_is_allowed_is_what_is_wanted() -> None:
    assert parse_document(document("run", script="self-test"), ALLOWED) == RunAction("self-test", TEST, ())
    full = document("run", script="self-test", arguments=["--full"])
    assert parse_document(full, ALLOWED) == RunAction("self-test", TEST, ("--full",))
    assert parse_document(document("restart"), ALLOWED) == RestartAction(REBOOT)
    assert parse_document(document("renew"), ALLOWED) == RenewAction()
    wanted = ReplaceAction("settings", FILE, URL, DIGEST, 1000)
    assert parse_document(a_replacement(sha256=DIGEST.upper(), size=1000), ALLOWED) == wanted


@pytest.mark.parametrize("body", [document("restart"), document("renew"), document("run", script="self-test")])
def test_what_the_configuration_does_not_name_is_rejected(body: bytes) -> None:
    assert "configuration" in rejected(body, JobSettings())


@pytest.mark.parametrize(
    "body",
    [
        document("run", script="/bin/sh"),
        document("run", script="../self-test"),
        document("run", script="self-test", arguments=["--full; reboot"]),
        document("run", script="self-test", arguments=["--other"]),
        document("run", script="self-test", arguments=["--full"] * 17),
        document("run", script="self-test", arguments="--full"),
        document("run", script="self-test", timeout_s=9),
        document("run", script="self-test", shell=True),
        document("run", file="self-test"),
        document("delete", file="settings"),
        document("restart", command=["/bin/sh"]),
        a_replacement(file="/etc/shadow"),
        a_replacement(file="../settings"),
        a_replacement(sha256="ab"),
        a_replacement(sha256=None),
        a_replacement(size=1001),
        a_replacement(size=-1),
        a_replacement(mode="4755"),
        a_replacement(path="/etc/shadow"),
        b"{}",
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"birthmark":' * 2000,
        b'{"birthmark": {"do": "restart"}, "and": 1}',
        b'{"operation": "reboot"}',
        document("restart") + b" " * MAX_DOCUMENT_BYTES,
        json.dumps({"birthmark": {"do": "restart", "x" * 32_000: 1}}).encode(),
    ],
)
def test_every_other_word_is_rejected_with_a_reason_that_is_short(body: bytes) -> None:
    assert 0 < len(rejected(body)) <= 400


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.com/pumps/1.json",
        "https://files.example.com/1.json",
        "https://files.example.com/pumps-of-another/1.json",
        "https://files.example.com:8443/pumps/1.json",
        "https://files.example.com.evil.example/pumps/1.json",
        "https://files.example.com@evil.example/pumps/1.json",
        "https://user:password@files.example.com/pumps/1.json",
        "https://127.0.0.1/pumps/1.json",
        "https://files.example.com/pumps/../other/1.json",
        "https://files.example.com/pumps/%2e%2e/other/1.json",
        "https://files.example.com/pumps/%252e%252e/other/1.json",
        "https://files.example.com/pumps/..%2fother/1.json",
        "https://files.example.com/pumps/..\\other/1.json",
        "file:///etc/shadow",
        "ftp://files.example.com/pumps/1.json",
        "//files.example.com/pumps/1.json",
        "https://files.example.com/pumps/1.json\r\nHost: evil",
        "https://",
        "https://[::1/pumps",
        "",
    ],
)
def test_a_url_that_is_not_below_an_allowed_one_is_rejected(url: str) -> None:
    assert "URL" in rejected(a_replacement(url=url))


def test_a_signed_url_below_an_allowed_one_is_taken() -> None:
    assert is_below(f"{URL}?X-Amz-Signature=ab&b=../..", FILE.urls[0])
    assert is_below("https://FILES.example.com:443/pumps/a/b", FILE.urls[0])


def test_a_signed_url_is_not_shown() -> None:
    signed = parse_document(a_replacement(url=f"{URL}?sig=secret"), ALLOWED)
    assert "secret" not in repr(signed)


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"birthmark": text}).encode()))
def test_no_bytes_do_anything_but_be_rejected(body: bytes) -> None:
    rejected(body)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4), st.sampled_from(["run", "replace"]))
def test_no_members_reach_what_is_not_named(more: dict[str, str], do: str) -> None:
    rejected(document(do, **{name: value for name, value in more.items() if name != "do"}))
