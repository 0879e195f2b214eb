"""Operator API of users: roles, invitations and access tokens."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.errors import InvalidRequestError
from birthmark.iam.approvals import Approvals
from birthmark.iam.approvals_model import Approval
from birthmark.iam.device_removal_quota import inviter_of
from birthmark.iam.lasting_access_grants import list_leftovers
from birthmark.iam.missing_right_errors import NarrowedTokenError, check_whole
from birthmark.iam.model import EVERYWHERE, SERVER, AccessToken, RoleAssignment, User, UserRole
from birthmark.iam.service import CreatedToken, People
from birthmark.iam.sign_in_model import BrowserSession
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows, Seconds
from birthmark.operator_api.name_validation import parse_name

Reached = Callable[[], Mapping[str, Any]]
"""Returns the URL of the operator API for remote users, and its roots."""
SessionsOf = Callable[[str], Sequence[BrowserSession]]
"""Returns the browser sessions of a user."""
_Label = Annotated[str, msgspec.Meta(max_length=64)]


class WhoseTokenError(InvalidRequestError):
    """No user was specified."""

    code = "people.token_of_whom"
    cause = "A token belongs to a user, and the local administrator is not a user."
    fix = "Specify a user: `birthmark token create --user NAME`. To list the users: `birthmark user ls`"
    for_a_person = "only the administrator knows which user is meant"


class PositionQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Rows after a position: the `next` of the previous page."""

    after: Annotated[str, msgspec.Meta(max_length=512)] = ""


class GrantBody(msgspec.Struct):
    """A role and its scope: `*` is everywhere."""

    role: UserRole
    place: str = EVERYWHERE


class NewPerson(msgspec.Struct):
    """A user and an initial role."""

    name: str
    role: UserRole | None = None
    place: str = EVERYWHERE


class Code(msgspec.Struct):
    """Invitation code, and a label for the machine that uses it."""

    code: Annotated[str, msgspec.Meta(max_length=128)]
    label: _Label = ""


class AllowBody(msgspec.Struct):
    """Number of additional devices that a user may revoke or delete today."""

    more: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class NewPersonToken(msgspec.Struct):
    """Label and lifetime of a token, and its restriction below the user's rights, if any."""

    label: _Label = ""
    lifetime_s: Seconds = 30 * 86400
    user: str | None = None
    role: UserRole | None = None
    place: str | None = None


def user_endpoints(people: People, reached: Reached, sessions: SessionsOf) -> Sequence[Endpoint]:
    """Return the routes of `birthmark user` and `role`."""

    async def users(_asked: ApiRequest) -> Rows:
        return Rows([_user_view(people, sessions, one) for one in people.all()])

    async def user(request: ApiRequest) -> Any:
        return _user_view(people, sessions, people.user(request["name"]))

    async def create(request: ApiRequest) -> Any:
        body: NewPerson = request.body
        if body.role is not None:
            check_whole(request.caller)
        made = await people.create(parse_name(body.name), body.role, body.place, actor=request.actor)
        return _user_view(people, sessions, made)

    async def remove(request: ApiRequest) -> None:
        await people.remove(request["name"], actor=request.actor)

    async def invite(request: ApiRequest) -> Any:
        by = inviter_of(request.actor, request.caller.let_in_by)
        code, ends_at = await people.invite(request["name"], actor=request.actor, by=by)
        return {"user": request["name"], "code": code, "ends": ends_at.isoformat(), **reached()}

    async def grant(request: ApiRequest) -> Any:
        await people.grant(request["name"], request.body.role, request.body.place, actor=request.actor)
        return _user_view(people, sessions, people.user(request["name"]))

    async def revoke(request: ApiRequest) -> Any:
        body: GrantBody = request.body
        await people.revoke(request["name"], body.role, body.place, actor=request.actor)
        return _user_view(people, sessions, people.user(request["name"]))

    async def allow(request: ApiRequest) -> Any:
        name = request["name"]
        check_whole(request.caller)
        return {"user": name, "remaining": await people.allow(name, request.body.more, by=request.caller)}

    look, rule, one = Right.READ, Right.ADMINISTER, "/people/users/{name}"
    return [
        Endpoint("POST", f"{one}/allowance", rule, "Raise the removal limit of another user.", allow, AllowBody),
        Endpoint("GET", "/people/users", look, "List users.", users),
        Endpoint("POST", "/people/users", rule, "Create a user.", create, NewPerson, status=201),
        Endpoint("GET", one, look, "Return a user.", user),
        Endpoint("DELETE", one, rule, "Delete a user and all of the user's tokens.", remove, status=204),
        Endpoint(
            "POST", f"{one}/invitation", rule, "Create an invitation for a user. The response is a secret.", invite
        ),
        Endpoint("POST", f"{one}/roles", rule, "Assign a role in a scope.", grant, GrantBody),
        Endpoint(
            "GET",
            f"{one}/left",
            look,
            "List credentials that a user created or displayed.",
            partial(_left, people),
            query=PositionQuery,
        ),
        Endpoint("POST", f"{one}/roles/remove", rule, "Remove a role assignment.", revoke, GrantBody),
    ]


async def _left(people: People, request: ApiRequest) -> Rows:
    query: PositionQuery = request.query
    page = await list_leftovers(people.database, request["name"], after=query.after)
    return Rows(page.items, page.last)


async def _me(people: People, request: ApiRequest) -> Any:
    caller = request.caller
    if caller.user is None:
        return {"user": None, "roles": [{"role": UserRole.ADMIN.value, "place": EVERYWHERE}], "narrowed": False}
    told = {"user": caller.user, "roles": _roles(people.grants(caller.user)), "narrowed": caller.is_narrowed}
    if caller.is_narrowed:
        own = next(one for one in people.tokens(caller.user) if one.id == caller.actor.told["token"])
        told["token"] = {"role": own.role, "place": own.place or EVERYWHERE}
    return told


def token_endpoints(people: People) -> Sequence[Endpoint]:
    """Return the routes of `birthmark token` and `login`, which users call for themselves."""

    async def redeem(request: ApiRequest) -> Any:
        return view_once(await people.redeem(request.body.code, request.body.label, request.address))

    async def tokens(request: ApiRequest) -> Rows:
        whose = None if may_administer(request.caller) else request.caller.user
        return Rows(
            [_token_view(one) | _may(people, one) for one in people.tokens(whose) if _may_see(request.caller, one.id)]
        )

    async def add_token(request: ApiRequest) -> Any:
        body: NewPersonToken = request.body
        check_whole(request.caller)
        user = request.caller.user if body.user is None else body.user
        if user is None:
            raise WhoseTokenError
        if user != request.caller.user:
            request.require_permission(Right.ADMINISTER, SERVER)
        lifetime = timedelta(seconds=body.lifetime_s)
        # A token for oneself keeps the inviter; a token for another user makes its creator the inviter.
        let_in_by = request.caller.let_in_by
        by = let_in_by if user == request.caller.user else inviter_of(request.actor, let_in_by)
        made = await people.add_token(user, body.label, lifetime, body.role, body.place, actor=request.actor, by=by)
        return view_once(made) | _may(people, made.token)

    async def remove_token(request: ApiRequest) -> None:
        whose = None if may_administer(request.caller) else request.caller.user
        if not _may_see(request.caller, request["id"]):
            raise NarrowedTokenError
        await people.remove_token(request["id"], of=whose, actor=request.actor)

    at, mine = "/people/tokens", "List your access tokens; administrators see all."
    return [
        Endpoint("GET", "/people/me", None, "Return the caller and the caller's permissions.", partial(_me, people)),
        Endpoint("POST", "/people/login", None, "Exchange an invitation for a token.", redeem, Code, is_open=True),
        Endpoint("GET", at, None, mine, tokens),
        Endpoint(
            "POST",
            at,
            None,
            "Create an access token. The response contains it once.",
            add_token,
            NewPersonToken,
            status=201,
        ),
        Endpoint("DELETE", f"{at}/{{id}}", None, "Revoke an access token.", remove_token, status=204),
    ]


def approval_endpoints(approvals: Approvals) -> Sequence[Endpoint]:
    """Return the routes of `birthmark approval`; callers see and decide operations that they could perform."""

    async def listing(request: ApiRequest) -> Rows:
        caller = request.caller
        waiting = await approvals.waiting()
        shown = (one for one in waiting if one.user == caller.user or caller.rights.allow(one.right, one.place))
        return Rows([_approval_view(one) for one in shown])

    async def approve(request: ApiRequest) -> Any:
        return _approval_view(await approvals.decide(request["id"], request.caller, is_approved=True))

    async def reject(request: ApiRequest) -> Any:
        return _approval_view(await approvals.decide(request["id"], request.caller, is_approved=False))

    at = "/people/approvals"
    return [
        Endpoint("GET", at, None, "List pending approvals that you can decide.", listing),
        Endpoint("POST", f"{at}/{{id}}/approve", None, "Approve an operation.", approve),
        Endpoint("POST", f"{at}/{{id}}/reject", None, "Reject an operation.", reject),
    ]


def _approval_view(approval: Approval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "asked_by": approval.user,
        "what": approval.what,
        "request": f"{approval.method} {approval.path}",
        "body": approval.body,
        "needs": f"{approval.right.value} at {approval.place}",
        "ends": approval.ends_at.isoformat(),
        "decided_by": None if approval.decided_by is None else approval.decided_by or "operator",
        "approved": approval.is_approved,
    }


def _may_see(caller: Caller, token_id: str) -> bool:
    """Return whether the caller may see a token: a restricted token sees only itself."""
    return not caller.is_narrowed or may_administer(caller) or caller.actor.told.get("token") == token_id


def may_administer(caller: Caller) -> bool:
    """Return whether the caller may administer users."""
    return caller.rights.allow(Right.ADMINISTER, SERVER)


def _roles(grants: Sequence[RoleAssignment]) -> list[Mapping[str, str]]:
    return [{"role": one.role.value, "place": one.place} for one in grants]


def _user_view(people: People, sessions: SessionsOf, user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "roles": _roles(people.grants(user.name)),
        "tokens": len(people.tokens(user.name)),
        "sessions": len(sessions(user.name)),
        "created": user.created_at.isoformat(),
        "made_by": user.made_by,
    }


def _may(people: People, token: AccessToken) -> dict[str, Any]:
    """Return the current rights of a token: its user's role may have changed since its creation."""
    places = [token.place] if token.place else {one.place for one in people.grants(token.user)}
    rights = people.rights_of(token)
    return {"may": ", ".join(right for right in Right if any(rights.allow(right, place) for place in places))}


def _token_view(token: AccessToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "label": token.label,
        "role": None if token.role is None else token.role.value,
        "place": token.place,
        "created": token.created_at.isoformat(),
        "ends": token.ends_at.isoformat(),
    }


def view_once(token: CreatedToken) -> dict[str, Any]:
    """Return the view of a new token with its secret, shown only once."""
    return {**_token_view(token.token), "token": token.text}
