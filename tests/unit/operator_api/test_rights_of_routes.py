"""Every route of the operator interface, for each role, at its own place and at another's: a generated matrix."""

from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from birthmark.actor import Actor
from birthmark.auth.permission_statements import NOTHING, Rights, statement_of
from birthmark.auth.principals import Caller
from birthmark.iam.model import RIGHTS_OF, RoleAssignment, UserRole
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows, operator_mount
from birthmark.operator_api.openapi import openapi
from support.server.asgi import request as ask
from support.tools_pages import operator_table

OWN, OTHER = "own", "other"
PLACES = {"/hubs/{name}": "hub", "/dps/{name}": "dps"}
"""What a path with a name of its own belongs to."""


async def nothing(_asked: ApiRequest) -> None: ...


def kind_of(one: Endpoint) -> str:
    """Return the room that a route's right is needed in, by its path alone."""
    return next((kind for begin, kind in PLACES.items() if one.path.startswith(begin)), "")


def grants_for(one: Endpoint, role: UserRole) -> dict[str, RoleAssignment]:
    """Return a grant that fits the route, and some that do not."""
    kind = kind_of(one) or ("aws" if one.path.startswith("/aws/") else "server")
    own = f"{kind}/{OWN}" if kind in PLACES.values() else kind
    elsewhere = {"hub/other", "dps/other", "hub/own", "dps/own", "aws", "server"} - {own}
    return {"everywhere": RoleAssignment("anna", role, "*"), "there": RoleAssignment("anna", role, own)} | {
        place: RoleAssignment("anna", role, place) for place in elsewhere
    }


async def status_of(one: Endpoint, rights: Rights) -> int:
    def identify(_request: Request) -> Caller:
        return Caller(Actor("user:anna"), rights, "anna")

    mount = operator_mount(identify, [replace(one, handler=nothing)], openapi)
    path = one.template
    for name in one.names:
        path = path.replace(f"{{{name}}}", OWN)
    answer = await ask(mount, one.method, f"http://x/operator/v1{path}", headers={}, body=b"{}")
    return answer.status


ROUTES = [pytest.param(one, id=f"{one.method} {one.template}") for one in operator_table()]


@pytest.mark.parametrize("one", ROUTES)
async def test_a_role_may_what_the_route_takes_where_it_was_given_and_nowhere_else(one: Endpoint) -> None:
    for role in UserRole:
        for place, grant in grants_for(one, role).items():
            status = await status_of(one, Rights(((grant.statement,),)))
            if one.right is None or one.rows_at:
                assert status != 403  # whoever is known; lists show what he may look at
            else:
                may = one.right in RIGHTS_OF[role] and place in {"everywhere", "there"}
                assert (status != 403) is may, (role, place)


@pytest.mark.parametrize("one", ROUTES)
async def test_a_token_that_is_narrower_than_its_owner_does_no_more_than_it_says(one: Endpoint) -> None:
    if one.right is None or one.rows_at:
        return
    owner = Rights(((RoleAssignment("anna", UserRole.ADMIN, "*").statement,),))
    for role in UserRole:
        narrow = owner.within((statement_of(RIGHTS_OF[role], ("*",)),))
        assert (await status_of(one, narrow) != 403) is (one.right in RIGHTS_OF[role])
    elsewhere = owner.within((statement_of(RIGHTS_OF[UserRole.ADMIN], ("hub/another",)),))
    assert await status_of(one, elsewhere) == 403


@pytest.mark.parametrize("one", ROUTES)
async def test_who_has_no_role_may_nothing(one: Endpoint) -> None:
    if one.right is not None and not one.rows_at:
        assert await status_of(one, NOTHING) == 403


def test_what_is_open_to_nobody_in_particular_is_signing_in_alone() -> None:
    asking = ["/people/asking", "/people/asking/token", "/server/roots"]
    assert [one.path for one in operator_table() if one.is_open] == ["/people/login", *asking]


def test_what_takes_no_right_is_ones_own() -> None:
    own = {(one.method, one.path) for one in operator_table() if one.right is None and not one.is_open}
    at = "/people/tokens"
    said = {("GET", "/people/me"), ("GET", "/server/endpoints"), ("POST", "/certificates/check")}
    decides = {("GET", "/people/approvals")}
    decides |= {("POST", f"/people/approvals/{{id}}/{verb}") for verb in ("approve", "reject")}
    signs_in = {("GET", "/people/sessions"), ("DELETE", "/people/sessions/{id}"), ("POST", "/people/password")}
    signs_in |= {("POST", "/people/users/{name}/signout")}
    assert own == said | decides | signs_in | {("GET", at), ("POST", at), ("DELETE", f"{at}/{{id}}")}


async def test_a_list_shows_what_one_may_look_at() -> None:
    async def listing(_asked: ApiRequest) -> Rows:
        return Rows([{"name": OWN}, {"name": OTHER}])

    def identify(_request: Request) -> Caller:
        return Caller(
            Actor("user:anna"), Rights(((RoleAssignment("anna", UserRole.VIEWER, "hub/own").statement,),)), "anna"
        )

    (hubs,) = (one for one in operator_table() if (one.method, one.path) == ("GET", "/hubs"))
    mount = operator_mount(identify, [replace(hubs, handler=listing)], openapi)
    answer: Any = await ask(mount, "GET", "http://x/operator/v1/hubs", headers={})
    assert answer.text == '{"items":[{"name":"own"}],"next":null}'
