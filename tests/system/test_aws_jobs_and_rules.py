"""`birthmark aws job|rule|stream` and `hub route`: what is mistyped is told, and nothing is dropped in silence."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
RULE: dict[str, Any] = {
    "sql": "SELECT * FROM 'pumps/+'",
    "actions": [{"kinesis": {"streamName": "kept", "roleArn": ""}}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("server")) as running:
        iot: Any = running.cloud.boto3()
        iot.create_thing(thingName="pump")
        yield running


def created(server: RunningServer, place: Path, settings: object, *more: str, document: str = "{}") -> Any:
    (place / "job.json").write_text(document)
    (place / "settings.json").write_text(json.dumps(settings))
    files = str(place / "job.json"), "--settings", str(place / "settings.json")
    return server.attempt("aws", "job", "create", place.name, *files, "--thing", "pump", *more)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"abortConfg": {"criteriaList": []}}, "abortConfg in the settings is not known"),
        ({"jobExecutionsRolloutConfig": {"maximumPerMinutes": 1}}, "jobExecutionsRolloutConfig.maximumPerMinutes"),
        ({"targetSelection": "CONTINUOUS"}, "targetSelection in the settings is not known"),
        ({"abortConfig": {"criteriaList": []}}, "abortConfig.criteriaList"),
        ({"timeoutConfig": {"inProgressTimeoutInMinutes": "5"}}, "timeoutConfig.inProgressTimeoutInMinutes"),
    ],
)
def test_settings_that_no_job_has_are_refused_by_name(
    server: RunningServer, tmp_path: Path, settings: Mapping[str, Any], told: str
) -> None:
    refused = created(server, tmp_path, settings)
    assert refused.returncode != 0
    assert told in refused.stderr
    assert "`birthmark aws job create --help`" in refused.stderr
    assert server.attempt("aws", "job", "show", tmp_path.name).returncode == 3


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 5}}, ("--rate", "10")),
        ({"timeoutConfig": {"inProgressTimeoutInMinutes": 5}}, ("--timeout", "9")),
    ],
)
def test_what_is_said_twice_is_refused(
    server: RunningServer, tmp_path: Path, settings: Mapping[str, Any], option: tuple[str, str]
) -> None:
    refused = created(server, tmp_path, settings, *option)
    assert refused.returncode == 2
    assert "omit one" in " ".join(refused.stderr.split())


def test_a_document_is_kept_to_the_byte_and_may_be_as_long_as_aws_takes_it(
    server: RunningServer, tmp_path: Path
) -> None:
    text = '{"a":"' + "ü" * 16_380 + '"}'
    assert len(text.encode()) == 32_768
    assert created(server, tmp_path, {}, document=text).returncode == 0
    (whole,) = server.rows("aws", "job", "show", tmp_path.name)
    assert whole["document"] == json.loads(text)


def test_a_job_that_was_canceled_goes_out_no_more_and_one_that_pauses_is_listed_so(
    server: RunningServer, tmp_path: Path
) -> None:
    assert created(server, tmp_path, {}).returncode == 0
    server.run("aws", "job", "pause", tmp_path.name)
    (row,) = [one for one in server.rows("aws", "job", "ls") if one["job"] == tmp_path.name]
    assert row["paused"] is not None
    server.run("aws", "job", "cancel", tmp_path.name, "--yes")
    (whole,) = server.rows("aws", "job", "show", tmp_path.name)
    assert (whole["status"], whole["goes_out"]) == ("CANCELED", False)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"actions": None}, "`birthmark aws rule create --help`"),
        ({"actions": [{"s3": {"bucketName": "b1", "key": "k"}}]}, "`birthmark aws rule create --help`"),
        (
            {"actions": [{"http": {"url": "http://127.0.0.1:9/x"}}]},
            "`birthmark server settings --where 'key=outbound*'`",
        ),
    ],
)
def test_what_no_rule_is_leads_to_the_help_of_its_command(
    server: RunningServer, tmp_path: Path, change: Mapping[str, Any], fix: str
) -> None:
    (tmp_path / "rule.json").write_text(json.dumps({**RULE, **change}))
    refused = server.attempt("aws", "rule", "create", "unfit", str(tmp_path / "rule.json"))
    assert refused.returncode != 0
    assert fix in refused.stderr, refused.stderr


def test_what_may_be_called_is_a_setting(server: RunningServer) -> None:
    shown = server.rows("server", "settings", "--where", "key=outbound*")
    assert "outbound.allow" in {one["key"] for one in shown}


def test_a_stream_is_read_from_its_beginning_and_ends(server: RunningServer) -> None:
    server.run("aws", "stream", "create", "kept")
    assert server.rows("aws", "stream", "read", "kept") == []
    refused = server.attempt("aws", "stream", "read", "kept", "--after", "xyz")
    assert "`birthmark aws stream read kept --since 10m`" in refused.stderr


def test_the_fallback_is_shown_and_stays_unless_something_is_said(server: RunningServer) -> None:
    server.run("hub", "endpoint", "create", "archive", "--folder", "archive")
    server.run("hub", "route", "fallback", "--endpoint", "archive")
    (shown,) = server.rows("hub", "route", "fallback")
    assert shown["endpoints"] == ["archive"]
    (shown,) = server.rows("hub", "route", "fallback", "--endpoint", "events")
    assert shown["endpoints"] == ["events"]


def test_an_endpoint_that_cannot_be_leads_to_the_forms_of_endpoints(server: RunningServer) -> None:
    refused = server.attempt("hub", "endpoint", "create", "none")
    assert "`birthmark hub endpoint create --help; birthmark hub endpoint ls --hub birthmark`" in refused.stderr
    assert "[servers.NAME]" in server.run("hub", "endpoint", "create", "--help").stdout
