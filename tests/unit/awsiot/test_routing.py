"""Requests find their operation by the raw path."""

import re
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import birthmark
from birthmark.awsiot.http.app import operations
from birthmark.awsiot.http.routing import FIRST_SEGMENTS, Call, Operation, OperationNotServedError, Router
from birthmark.awsiot.model import Account
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.pages import PageInvalidError, marker_of, page_size, parse_marker
from birthmark.awsiot.wire import BodyInvalidError, CreateThing, parse_body
from birthmark.errors import BirthmarkError
from fakes import FakeClock, SeededEntropy


async def nothing(_call: Call) -> None: ...


ROUTER = Router(
    [
        Operation("Named", "GET", "/groups/{name}", nothing),
        Operation("Literal", "GET", "/groups/literal", nothing),
        Operation("Target", "POST", "/attached-policies/{target}", nothing),
    ]
)


def test_a_literal_wins_over_a_name() -> None:
    assert ROUTER.find("GET", "/groups/literal")[0].name == "Literal"
    assert ROUTER.find("GET", "/groups/other")[1] == {"name": "other"}


@given(st.text(min_size=1, max_size=80))
def test_any_name_comes_out_as_it_went_in(name: str) -> None:
    assert ROUTER.find("POST", f"/attached-policies/{quote(name, safe='')}")[1] == {"target": name}


@given(st.text(string.printable, max_size=60), st.sampled_from(["GET", "POST", "DELETE"]))
def test_any_path_is_found_or_refused(path: str, method: str) -> None:
    try:
        ROUTER.find(method, f"/{path}")
    except OperationNotServedError as error:
        assert error.facts["method"] == method


@given(st.text(max_size=50))
def test_a_marker_comes_back_as_it_was(key: str) -> None:
    assert parse_marker(marker_of(key)) == (key or None)


@given(st.text(max_size=50))
def test_any_marker_and_size_is_read_or_refused(text: str) -> None:
    for read in (parse_marker, page_size):
        try:
            read(text)
        except PageInvalidError as error:
            assert error.code == "awsiot.page_invalid"


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        parse_body(body, CreateThing)
    except BirthmarkError as error:
        assert isinstance(error, BodyInvalidError)


@pytest.mark.parametrize("text", ["yes", "1", ""])
def test_a_flag_is_true_or_false(text: str) -> None:
    with pytest.raises(BodyInvalidError):
        Call("GET", {}, {"setAsActive": text}, {}, b"", "x").flag("setAsActive")


def test_the_operations_are_those_of_the_service_model_and_on_the_page() -> None:
    import botocore.session

    account = AwsIot.of(Account("0" * 12, "us-east-1", "localhost"), None, FakeClock(), SeededEntropy(), None)  # type: ignore[arg-type]
    model = botocore.session.get_session().get_service_model("iot")
    page = (Path(birthmark.__file__).parents[2] / "docs" / "reference" / "aws-iot.md").read_text()
    for operation in operations(account):
        http = model.operation_model(operation.name).http
        assert operation.method == http["method"]
        assert re.sub("{.*?}", "{}", operation.path) == re.sub("{.*?}", "{}", http["requestUri"].partition("?")[0])
        assert f"| {operation.name} |" in page


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
