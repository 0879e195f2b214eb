"""What a job's document leaves to be filled in."""

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from birthmark.awsiot.rules import job_document_placeholders
from birthmark.awsiot.rules.job_document_placeholders import FileLinkError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.managed_job_templates import MANAGED

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = b"s" * 32
PATH = job_document_placeholders.path_of("firmware", "pump/1.bin")


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("https://s3.amazonaws.com/bucket/a/b.bin", "bucket", "a/b.bin"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/key", "bucket", "key"),
        ("https://s3-eu-west-1.amazonaws.com/bucket/key", "bucket", "key"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a/b.bin", "bucket", "a/b.bin"),
        ("https://my.bucket.s3.amazonaws.com/key", "my.bucket", "key"),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a%2Fb", "bucket", "a/b"),
        ("s3://bucket/key", "bucket", "key"),
    ],
)
def test_an_object_is_named_by_each_kind_of_url(url: str, bucket: str, key: str) -> None:
    assert job_document_placeholders.parse_object_url(url) == (bucket, key)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/bucket/key",
        "https://s3.amazonaws.com/",
        "https://s3.amazonaws.com.evil.example/bucket/key",
        "https://s3.amazonaws.com/bucket/key?versionId=1",
        "https://u:p@s3.amazonaws.com/bucket/key",
        "file:///etc/passwd",
        "",
    ],
)
def test_what_names_no_object_is_refused(url: str) -> None:
    with pytest.raises(BodyInvalidError):
        job_document_placeholders.parse_object_url(url)


def test_parameters_are_filled_in_as_text_that_stays_json() -> None:
    document = '{"a": "${aws:iot:parameter:x}-${aws:iot:parameter:y}"}'
    made = job_document_placeholders.substitute_parameters(document, {"x": 'say "no"\\', "y": "${aws:iot:parameter:x}"})
    assert json.loads(made) == {"a": 'say "no"\\-${aws:iot:parameter:x}'}


@pytest.mark.parametrize(
    ("given", "word"),
    [({}, "without x"), ({"x": "1", "z": "2"}, "'z'"), ({"x": ""}, "printable"), ({"x": "a\nb"}, "printable")],
)
def test_parameters_are_those_that_the_document_has(given: dict[str, str], word: str) -> None:
    with pytest.raises(BodyInvalidError, match=word):
        job_document_placeholders.parse_parameters(given, '{"a": "${aws:iot:parameter:x}"}')


def test_a_document_with_its_parameters_has_its_bounds_too() -> None:
    document = '{"a": "' + "${aws:iot:parameter:x}" * 2 + '"}'
    with pytest.raises(BodyInvalidError, match="32768"):
        job_document_placeholders.parse_parameters({"x": "x" * 20_000}, document)


def test_each_placeholder_of_a_file_becomes_a_url_of_its_own() -> None:
    first = "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b1/k1}"
    second = "${aws:iot:s3-presigned-url-v2:https:\\/\\/b2x.s3.us-east-1.amazonaws.com\\/k2}"
    document = json.dumps({"a": first})[:-1] + f', "b": "{second}"' + "}"
    made = job_document_placeholders.substitute_urls(document, lambda bucket, key: f"https://here/{bucket}/{key}")
    assert json.loads(made) == {"a": "https://here/b1/k1", "b": "https://here/b2x/k2"}


def test_a_document_has_a_bounded_number_of_files() -> None:
    one = "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/bucket/key}"
    assert (
        len(list(job_document_placeholders.files_in(one * job_document_placeholders.MAX_FILES)))
        == job_document_placeholders.MAX_FILES
    )
    with pytest.raises(BodyInvalidError, match="more than"):
        list(job_document_placeholders.files_in(one * (job_document_placeholders.MAX_FILES + 1)))


def a_link(path: str = PATH, thing: str = "pump 1", lifetime_s: int = 60) -> dict[str, str]:
    return dict(parse_qsl(job_document_placeholders.query_of(SECRET, path, thing, int(NOON.timestamp()) + lifetime_s)))


def test_a_link_holds_until_its_time_is_over() -> None:
    assert job_document_placeholders.check_link(SECRET, PATH, a_link(), NOON + timedelta(seconds=59)) == "pump 1"
    with pytest.raises(FileLinkError, match="has expired"):
        job_document_placeholders.check_link(SECRET, PATH, a_link(), NOON + timedelta(seconds=60))


@pytest.mark.parametrize(
    "changed",
    [{"thing": "pump 2"}, {"expires": "99999999999"}, {"expires": "soon"}, {"signature": ""}, {"signature": "ä"}],
)
def test_a_link_that_was_changed_does_not_hold(changed: dict[str, str]) -> None:
    with pytest.raises(FileLinkError, match="not issued by this server"):
        job_document_placeholders.check_link(SECRET, PATH, a_link() | changed, NOON)


def test_a_link_holds_for_its_path_and_this_server_alone() -> None:
    for secret, path in ((SECRET, PATH + "x"), (b"t" * 32, PATH)):
        with pytest.raises(FileLinkError):
            job_document_placeholders.check_link(secret, path, a_link(), NOON)
    with pytest.raises(FileLinkError):
        job_document_placeholders.check_link(SECRET, PATH, {}, NOON)


@pytest.mark.parametrize("name", MANAGED)
def test_a_managed_template_s_document_has_the_parameters_that_it_says(name: str) -> None:
    known = MANAGED[name]
    assert job_document_placeholders.parameters_in(known.document) == {one["key"] for one in known.parameters}
    given = {one["key"]: one["example"] for one in known.parameters if not one["optional"]}
    document = json.loads(
        job_document_placeholders.substitute_parameters(
            known.document, job_document_placeholders.parse_parameters(given, known.document)
        )
    )
    assert document["steps"][0]["action"]["input"].get("args", []) == [*given.values()]


def test_parameters_that_make_a_document_too_long_are_refused_before_it_is_made() -> None:
    document = json.dumps({"x": "${aws:iot:parameter:a}" * 1480})
    tracemalloc.start()
    with pytest.raises(BodyInvalidError, match="32768 bytes with its parameters"):
        job_document_placeholders.parse_parameters({"a": "\U0001f600" * 30_000}, document)
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()
