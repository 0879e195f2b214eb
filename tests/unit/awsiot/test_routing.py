"""Requests find their operation by the raw path."""

import re
import string
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import birthmark
from birthmark.awsiot.http.app import handlers
from birthmark.awsiot.http.operation_routing_and_request_members import (
    FIRST_SEGMENTS,
    OPERATIONS,
    AwsOperation,
    AwsRequest,
    Member,
    OperationRouter,
)
from birthmark.awsiot.model import Account, OperationNotServedError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import AttributePayload, BodyInvalidError, parse_body
from birthmark.errors import BirthmarkError
from birthmark.store.pagination import PageInvalidError, marker_of, page_size, parse_marker
from support.aws.account import a_call
from support.fakes import FakeClock, SeededEntropy


async def nothing(_call: AwsRequest) -> None: ...


TABLE = [
    AwsOperation("Named", "iot", "GET", "/groups/{name}", ()),
    AwsOperation("Literal", "iot", "GET", "/groups/literal", ()),
    AwsOperation("Target", "iot", "POST", "/attached-policies/{target}", ()),
    AwsOperation("Unserved", "iot", "GET", "/unserved", ()),
]
ROUTER = OperationRouter(dict.fromkeys(("Named", "Literal", "Target"), nothing), TABLE)
FLAG = AwsOperation("Set", "iot", "GET", "/", (Member("setAsActive", "querystring", "setAsActive", "boolean"),))


def test_a_literal_wins_over_a_name() -> None:
    assert ROUTER.find("GET", "/groups/literal")[0].name == "Literal"
    assert ROUTER.find("GET", "/groups/other")[2] == {"name": "other"}


@given(st.text(min_size=1, max_size=80))
def test_any_name_comes_out_as_it_went_in(name: str) -> None:
    assert ROUTER.find("POST", f"/attached-policies/{quote(name, safe='')}")[2] == {"target": name}


@given(st.text(string.printable, max_size=60), st.sampled_from(["GET", "POST", "DELETE"]))
def test_any_path_is_found_or_refused(path: str, method: str) -> None:
    try:
        ROUTER.find(method, f"/{path}")
    except OperationNotServedError as error:
        assert error.facts["method"] == method


@given(st.text(max_size=50))
def test_a_marker_comes_back_as_it_was(key: str) -> None:
    assert parse_marker(marker_of(key)) == key


@given(st.text(max_size=50))
def test_any_marker_and_size_is_read_or_refused(text: str) -> None:
    for read in (parse_marker, page_size):
        try:
            read(text)
        except PageInvalidError as error:
            assert error.code == "store.page_invalid"


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        parse_body(body, AttributePayload)
    except BirthmarkError as error:
        assert isinstance(error, BodyInvalidError)


@pytest.mark.parametrize("text", ["yes", "1", ""])
def test_a_flag_is_true_or_false(text: str) -> None:
    with pytest.raises(BodyInvalidError):
        a_call(FLAG, {"setAsActive": text}).flag("setAsActive")


def test_every_operation_that_is_served_is_of_the_service_model_and_on_the_page() -> None:
    database = SimpleNamespace(on_events=lambda _hear: None)
    aws = AwsIot(Account("0" * 12, "us-east-1", "localhost"), database, FakeClock(), SeededEntropy(), None)  # type: ignore[arg-type]  # neither is used
    page = (Path(birthmark.__file__).parents[2] / "docs" / "reference" / "aws-iot.md").read_text()
    known = {operation.title: operation for operation in OPERATIONS}
    for name in handlers(aws, None, None, SeededEntropy()):  # type: ignore[arg-type]  # nobody is asked
        assert re.search(rf"\| {re.escape(name)} \| {known[name].method} `{re.escape(known[name].path)}` \|", page), (
            name
        )


def test_the_table_is_that_of_the_installed_service_models() -> None:
    import botocore.session

    session = botocore.session.get_session()
    for operation in OPERATIONS:
        http = session.get_service_model(operation.service).operation_model(operation.name).http
        assert (operation.method, operation.path) == (http["method"], http["requestUri"].partition("?")[0])


def test_of_operations_with_one_path_that_of_the_signed_service_is_meant() -> None:
    both = [
        AwsOperation("ListJobExecutionsForThing", "iot", "GET", "/things/{thingName}/jobs", ()),
        AwsOperation("GetPendingJobExecutions", "iot-jobs-data", "GET", "/things/{thingName}/jobs", ()),
    ]
    for served in ([one.name for one in both], ["ListJobExecutionsForThing"]):
        router = OperationRouter(dict.fromkeys(served, nothing), both)
        assert router.find("GET", "/things/t/jobs", "iot")[0].name == "ListJobExecutionsForThing"
        assert router.find("GET", "/things/t/jobs", "iot-data")[0].name == "ListJobExecutionsForThing"
    with pytest.raises(OperationNotServedError, match="GetPendingJobExecutions"):
        router.find("GET", "/things/t/jobs", "iot-jobs-data")


def test_a_topic_stands_in_a_path_with_its_slashes_or_without() -> None:
    router = OperationRouter({"Publish": nothing})
    for path in ("/topics/a/b%2Fc", "/topics/a%2fb%2Fc"):
        assert router.find("POST", path)[2] == {"topic": "a/b/c"}
    with pytest.raises(BodyInvalidError, match="not UTF-8"):
        router.find("POST", "/topics/%ff")


def test_an_operation_that_is_known_and_not_served_is_named() -> None:
    with pytest.raises(OperationNotServedError, match="Unserved is not a supported operation"):
        ROUTER.find("GET", "/unserved")


def test_a_member_that_must_be_there_is_named() -> None:
    needed = AwsOperation(
        "Set", "iot", "GET", "/", (Member("principal", "header", "x-amzn-principal", "string", True),)
    )
    with pytest.raises(BodyInvalidError, match="principal is missing"):
        a_call(needed).get("principal")


def test_a_member_is_one_of_its_values() -> None:
    choice = AwsOperation("Set", "iot", "GET", "/", (Member("new", "querystring", "n", "string", enum=("ON", "OFF")),))
    assert a_call(choice, {"n": "ON"})["new"] == "ON"
    with pytest.raises(BodyInvalidError, match="not one of ON, OFF"):
        a_call(choice, {"n": "on"}).get("new")


BODY = AwsOperation(
    "Put",
    "iot",
    "PUT",
    "/",
    (
        Member("document", "body", "document", "string", True),
        Member("status", "body", "status", "string", enum=("ON", "OFF")),
        Member("merge", "body", "merge", "boolean"),
        Member("version", "body", "version", "long"),
        Member("payload", "body", "payload", "structure"),
    ),
)


def body(text: str) -> AwsRequest:
    return a_call(BODY, body=text.encode())


def test_members_of_a_body_are_read_by_their_types() -> None:
    call = body('{"document": "d", "status": "ON", "merge": true, "version": 3, "payload": {"attributes": {"a": "b"}}}')
    assert (call["document"], call["status"], call.flag("merge"), call.number("version")) == ("d", "ON", True, 3)
    assert call.part("payload", AttributePayload) == AttributePayload({"a": "b"})


def test_members_that_a_body_leaves_out_have_their_defaults() -> None:
    call = body('{"document": "", "status": null, "version": null, "unknown": 1}')
    assert (call["document"], call.get("status"), call.number("version")) == ("", None, None)
    assert (call.flag("merge"), call.flag("merge", default=True)) == (False, True)
    assert call.part("payload", AttributePayload) is None


@pytest.mark.parametrize(
    ("text", "read", "detail"),
    [
        ("{}", lambda call: call["document"], "document is missing"),
        ('{"document": null}', lambda call: call["document"], "document is missing"),
        ('{"document": 5}', lambda call: call["document"], "document: Expected `str"),
        ('{"status": "MAYBE"}', lambda call: call.get("status"), "not one of ON, OFF"),
        ('{"merge": "true"}', lambda call: call.flag("merge"), "merge: Expected `bool`"),
        ('{"merge": null}', lambda call: call.flag("merge"), "merge: Expected `bool`"),
        ('{"version": "3"}', lambda call: call.number("version"), "version: Expected `int"),
        ('{"payload": {"attributes": 5}}', lambda call: call.part("payload", AttributePayload), "payload: Expected"),
        ("[]", lambda call: call["document"], "Expected `object`"),
    ],
)
def test_a_body_s_member_of_another_type_is_refused(
    text: str, read: Callable[[AwsRequest], object], detail: str
) -> None:
    with pytest.raises(BodyInvalidError, match=re.escape(detail)):
        read(body(text))


def test_every_path_of_the_service_models_is_for_this_room() -> None:
    import botocore.session

    session = botocore.session.get_session()
    firsts = set()
    for name in ("iot", "iot-data"):
        model = session.get_service_model(name)
        for operation in model.operation_names:
            firsts.add(model.operation_model(operation).http["requestUri"].strip("/").split("/")[0].partition("?")[0])
    assert firsts - FIRST_SEGMENTS <= {"api", "jobs"}  # the hub has jobs too; signed requests come here all the same
    assert firsts >= FIRST_SEGMENTS
