"""The operator interface of people: users and their roles, invitations, tokens."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import msgspec

from birthmark.auth.permissions import Right
from birthmark.auth.principals import Caller
from birthmark.errors import InvalidRequestError
from birthmark.iam.approvals import Approvals
from birthmark.iam.approvals_model import Approval
from birthmark.iam.authorization import NarrowedTokenError, check_whole
from birthmark.iam.leftovers import left_by
from birthmark.iam.model import EVERYWHERE, SERVER, AccessToken, RoleAssignment, User, UserRole
from birthmark.iam.removal_quota import inviter_of
from birthmark.iam.service import CreatedToken, People
from birthmark.iam.sign_in_model import BrowserSession
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows, Seconds
from birthmark.operator_api.name_validation import parse_name

Reached = Callable[[], Mapping[str, Any]]
"""Where people of other machines reach the operator interface, and by which roots they know it."""
SessionsOf = Callable[[str], Sequence[BrowserSession]]
"""The browsers at which a user is signed in."""
_Label = Annotated[str, msgspec.Meta(max_length=64)]


class WhoseTokenError(InvalidRequestError):
    """No user was specified."""

    code = "people.token_of_whom"
    cause = "A token needs a user, and the local administrator is not a user."
    fix = "Specify a user: `birthmark token create --user NAME`. List users: `birthmark user ls`"
    for_a_person = "only the administrator knows which user is meant"


class LeftQuery(msgspec.Struct, forbid_unknown_fields=True):
    """What comes after a place: the `next` of the page before."""

    after: Annotated[str, msgspec.Meta(max_length=512)] = ""


class GrantBody(msgspec.Struct):
    """A role, and where: `*` is everywhere."""

    role: UserRole
    place: str = EVERYWHERE


class NewPerson(msgspec.Struct):
    """Somebody, and a role to begin with."""

    name: str
    role: UserRole | None = None
    place: str = EVERYWHERE


class Code(msgspec.Struct):
    """The code of an invitation, and a word for what it is used at."""

    code: Annotated[str, msgspec.Meta(max_length=128)]
    label: _Label = ""


class AllowBody(msgspec.Struct):
    """How many more devices somebody may take away today."""

    more: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class NewPersonToken(msgspec.Struct):
    """What a token is for, how long it lives, and where it goes less far than its user does, how far."""

    label: _Label = ""
    lifetime_s: Seconds = 30 * 86400
    user: str | None = None
    role: UserRole | None = None
    place: str | None = None


def user_endpoints(people: People, reached: Reached, sessions: SessionsOf) -> Sequence[Endpoint]:
    """Return the routes of `birthmark user` and `role`."""

    async def users(_asked: ApiRequest) -> Rows:
        return Rows([_user_view(people, sessions, one) for one in people.all()])

    async def user(asked: ApiRequest) -> Any:
        return _user_view(people, sessions, people.user(asked["name"]))

    async def create(asked: ApiRequest) -> Any:
        body: NewPerson = asked.body
        if body.role is not None:
            check_whole(asked.caller)
        made = await people.create(parse_name(body.name), body.role, body.place, actor=asked.actor)
        return _user_view(people, sessions, made)

    async def remove(asked: ApiRequest) -> None:
        await people.remove(asked["name"], actor=asked.actor)

    async def invite(asked: ApiRequest) -> Any:
        by = inviter_of(asked.actor, asked.caller.let_in_by)
        code, ends_at = await people.invite(asked["name"], actor=asked.actor, by=by)
        return {"user": asked["name"], "code": code, "ends": ends_at.isoformat(), **reached()}

    async def grant(asked: ApiRequest) -> Any:
        await people.grant(asked["name"], asked.body.role, asked.body.place, actor=asked.actor)
        return _user_view(people, sessions, people.user(asked["name"]))

    async def revoke(asked: ApiRequest) -> Any:
        body: GrantBody = asked.body
        await people.revoke(asked["name"], body.role, body.place, actor=asked.actor)
        return _user_view(people, sessions, people.user(asked["name"]))

    async def allow(asked: ApiRequest) -> Any:
        name = asked["name"]
        check_whole(asked.caller)
        return {"user": name, "remaining": await people.allow(name, asked.body.more, by=asked.caller)}

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
            query=LeftQuery,
        ),
        Endpoint("POST", f"{one}/roles/remove", rule, "Remove a role assignment.", revoke, GrantBody),
    ]


async def _left(people: People, asked: ApiRequest) -> Rows:
    query: LeftQuery = asked.query
    page = await left_by(people.database, asked["name"], after=query.after)
    return Rows(page.items, page.last)


async def _me(people: People, asked: ApiRequest) -> Any:
    caller = asked.caller
    if caller.user is None:
        return {"user": None, "roles": [{"role": UserRole.ADMIN.value, "place": EVERYWHERE}], "narrowed": False}
    told = {"user": caller.user, "roles": _roles(people.grants(caller.user)), "narrowed": caller.is_narrowed}
    if caller.is_narrowed:
        own = next(one for one in people.tokens(caller.user) if one.id == caller.actor.told["token"])
        told["token"] = {"role": own.role, "place": own.place or EVERYWHERE}
    return told


def token_endpoints(people: People) -> Sequence[Endpoint]:
    """Return the routes of `birthmark token` and `login`: what people do for themselves."""

    async def redeem(asked: ApiRequest) -> Any:
        return view_once(await people.redeem(asked.body.code, asked.body.label, asked.address))

    async def tokens(asked: ApiRequest) -> Rows:
        whose = None if may_administer(asked.caller) else asked.caller.user
        return Rows(
            [_token_view(one) | _may(people, one) for one in people.tokens(whose) if _may_see(asked.caller, one.id)]
        )

    async def add_token(asked: ApiRequest) -> Any:
        body: NewPersonToken = asked.body
        check_whole(asked.caller)
        user = asked.caller.user if body.user is None else body.user
        if user is None:
            raise WhoseTokenError
        if user != asked.caller.user:
            asked.demand(Right.ADMINISTER, SERVER)
        lifetime = timedelta(seconds=body.lifetime_s)
        # A token of one's own leaves it as it was; who makes another's, lets that one in.
        let_in_by = asked.caller.let_in_by
        by = let_in_by if user == asked.caller.user else inviter_of(asked.actor, let_in_by)
        made = await people.add_token(user, body.label, lifetime, body.role, body.place, actor=asked.actor, by=by)
        return view_once(made) | _may(people, made.token)

    async def remove_token(asked: ApiRequest) -> None:
        whose = None if may_administer(asked.caller) else asked.caller.user
        if not _may_see(asked.caller, asked["id"]):
            raise NarrowedTokenError
        await people.remove_token(asked["id"], of=whose, actor=asked.actor)

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
    """Return the routes of `birthmark approval`: one sees and decides what one might do oneself."""

    async def listing(asked: ApiRequest) -> Rows:
        caller = asked.caller
        waiting = await approvals.waiting()
        shown = (one for one in waiting if one.user == caller.user or caller.rights.allow(one.right, one.place))
        return Rows([_approval_view(one) for one in shown])

    async def approve(asked: ApiRequest) -> Any:
        return _approval_view(await approvals.decide(asked["id"], asked.caller, is_approved=True))

    async def reject(asked: ApiRequest) -> Any:
        return _approval_view(await approvals.decide(asked["id"], asked.caller, is_approved=False))

    at = "/people/approvals"
    return [
        Endpoint("GET", at, None, "List pending approvals that you can decide.", listing),
        Endpoint("POST", f"{at}/{{id}}/approve", None, "Approve an operation.", approve),
        Endpoint("POST", f"{at}/{{id}}/reject", None, "Reject an operation.", reject),
    ]


def _approval_view(one: Approval) -> dict[str, Any]:
    return {
        "id": one.id,
        "asked_by": one.user,
        "what": one.what,
        "request": f"{one.method} {one.path}",
        "body": one.body,
        "needs": f"{one.right.value} at {one.place}",
        "ends": one.ends_at.isoformat(),
        "decided_by": None if one.decided_by is None else one.decided_by or "operator",
        "approved": one.is_approved,
    }


def _may_see(caller: Caller, token_id: str) -> bool:
    """Say whether a token is this caller's business: of one that is narrower than its user, that one alone."""
    return not caller.is_narrowed or may_administer(caller) or caller.actor.told.get("token") == token_id


def may_administer(caller: Caller) -> bool:
    """Say whether this one decides about people."""
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
    """Return what a token is good for by now: its user may have another role than it was made for."""
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


def view_once(made: CreatedToken) -> dict[str, Any]:
    """Return a token with what a command shows, this once."""
    return {**_token_view(made.token), "token": made.text}
