"""The operator interface asked at random, as its own OpenAPI document describes it: nothing is our fault, and nobody
gets beyond his role."""

import contextlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings

from birthmark.iam.model import RIGHTS_OF, UserRole
from support.breadth import variants
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system

EACH = 5
"""So many requests of each kind, by each role."""
ENDLESS = {"/hubs/{name}/stream", "/aws/monitor", "/events"}


class Asked:
    """A running server, and a token for each role."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.url = server.endpoints["health_url"].rsplit("/", 1)[0] + "/operator/v1"
        machine = (server.data / "operator.token").read_text().strip()
        self.machine = {"Authorization": f"Bearer {machine}"}
        self.document = requests.get(f"{self.url}/openapi.json", timeout=10).json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = requests.post(f"{self.url}{path}", json=body, headers=self.machine, timeout=10)
        assert answer.ok, answer.text
        return answer.json()

    def token(self, role: UserRole) -> dict[str, str]:
        name = f"a-{role.value}"
        self.post("/people/users", {"name": name, "role": role.value})
        made = self.post("/people/tokens", {"user": name, "label": "at random"})
        return {"Authorization": f"Bearer {made['token']}"}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    with contextlib.ExitStack() as stack:
        yield Asked(stack.enter_context(a_new_server(tmp_path)))


LOGIN = "/people/login"


def wrong_of(operation: Any, headers: Mapping[str, str], *, may: bool) -> str | None:
    """Ask for this at random, and return the first answer that should not be."""

    @settings(
        max_examples=EACH, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.headers = {**(case.headers or {}), **headers}
        answer = case.call(timeout=30)
        what = f"{answer.request.method} {answer.request.url} {answer.request.body!r}: {answer.status_code}"
        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, f"{what} {answer.text}"
        assert answer.status_code != HTTPStatus.UNAUTHORIZED or operation.path == LOGIN, what
        assert may or answer.status_code >= HTTPStatus.BAD_REQUEST, what
        if answer.headers.get("content-type") == "application/problem+json":
            told = answer.json()
            assert told["code"], what
            assert told["fix"], what

    try:
        ask()
    except AssertionError as error:
        return str(error)
    return None


@pytest.mark.parametrize("role", variants(UserRole, [UserRole.VIEWER, UserRole.OPERATOR]))
def test_every_request_is_answered_and_none_beyond_its_role(asked: Asked, role: UserRole) -> None:
    headers = asked.token(role)
    schema = schemathesis.openapi.from_dict(asked.document)
    schema.config.update(base_url=asked.url)
    said: list[str | None] = []
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr] # our own document is valid
        if operation.path not in ENDLESS:
            right = asked.document["paths"][operation.path][operation.method]["x-right"]
            may = right == "none" or right in {one.value for one in RIGHTS_OF[role]}
            said.append(wrong_of(operation, headers, may=may))
    wrong = [one for one in said if one is not None]
    assert len(said) > 60
    assert not wrong, "\n".join(wrong)
