"""*Users*: users and their permissions; invitations, roles, and removal. Only permitted actions are offered."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.iam.model import EVERYWHERE, RIGHTS_OF, UserRole
from birthmark.operator_api.page_api_client import ApiOperation, SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form
from birthmark.operator_api.user_access import may_administer
from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import count_of, number, translate
from birthmark.webconsole.page_base import ONCE, PageRenderer

PATH, ONE = "/people", "/people/users/{name}"
ROLES: Mapping[UserRole, str] = {
    UserRole.VIEWER: mark_for_translation("Reads everything except secrets."),
    UserRole.ENROLLER: mark_for_translation("Enrolls devices and approves their certificates."),
    UserRole.OPERATOR: mark_for_translation("Operates, changes and revokes devices."),
    UserRole.SECURITY_OFFICER: mark_for_translation("Decides which CAs are trusted, and revokes keys and devices."),
    UserRole.ADMIN: mark_for_translation("Everything: services, secrets, users and permissions."),
}
RIGHTS: Mapping[Right, str] = {
    Right.READ: mark_for_translation("read"),
    Right.ENROLL: mark_for_translation("enroll"),
    Right.OPERATE: mark_for_translation("operate"),
    Right.REVOKE: mark_for_translation("revoke"),
    Right.TRUST: mark_for_translation("trust"),
    Right.ADMINISTER: mark_for_translation("administer"),
}


@dataclass(frozen=True, slots=True)
class PeoplePages:
    """The list of users, the page of a user, and its actions."""

    site: PageRenderer

    def routes(self) -> list[Route]:
        """Return the routes."""
        route, one = self.site.route, f"{PATH}/{{name}}"
        return [
            route(PATH, self.show),
            route(PATH, self.create, "POST"),
            route(one, self.one),
            route(f"{one}/remove", self.confirm),
            route(f"{one}/remove", self.remove, "POST"),
            route(f"{one}/invitation", self.invite, "POST"),
            route(f"{one}/roles", self.grant, "POST"),
            route(f"{one}/roles/remove", self.revoke, "POST"),
            route(f"{one}/signout", self.sign_out, "POST"),
            route(f"{one}/sessions/end", self.end_session, "POST"),
            route(f"{one}/tokens/remove", self.remove_token, "POST"),
        ]

    async def show(self, request: Request, caller: SignedInUser) -> Response:
        """Render the users, and the permissions of each role."""
        found = await self.site.inside.ask(caller, "/people/users")
        values = {
            "people": [{**one, "said": format_roles(one["roles"])} for one in found.items],
            "may": may_administer(caller.caller),
            "places": await self._places(caller),
            "roles": [one.value for one in UserRole],
            **explained(),
        }
        return await self.site.draw(request, caller, "people.html", values)

    async def create(self, request: Request, caller: SignedInUser) -> Response:
        """Create a user, and show the invitation."""
        given = await self.site.form(request)
        body = {"name": given.get("name", "").strip(), "role": given.get("role") or None}
        made = await self.site.do(
            caller, given, "POST", "/people/users", **body, place=given.get("place") or EVERYWHERE
        )
        return await self._invited(request, caller, {**given, ONCE: f"{given.get(ONCE, '')}-i"}, made["name"])

    async def one(self, request: Request, caller: SignedInUser) -> Response:
        """Render a user. Raise `UserMissingError`."""
        name, ask, may = request.path_params["name"], self.site.inside.ask, may_administer(caller.caller)
        user = await ask(caller, ONE, name)
        sees_more = may or caller.caller.user == name
        sessions = (await ask(caller, "/people/sessions")).items if sees_more else ()
        tokens = (await ask(caller, "/people/tokens")).items if sees_more else ()
        values = {
            "person": user,
            "sessions": [one for one in sessions if one["user"] == name],
            "tokens": [one for one in tokens if one["user"] == name],
            "sees_more": sees_more,
            "may": may,
            "is_own": caller.caller.user == name,
            "places": await self._places(caller),
            "roles": [one.value for one in UserRole],
            "quoted": shlex.quote(name),
            "at": f"{PATH}/{quote(name, safe='')}",
        }
        return await self.site.draw(request, caller, "person.html", values)

    async def confirm(self, request: Request, caller: SignedInUser) -> Response:
        """Show the impact of removing a user."""
        name = request.path_params["name"]
        values = {"person": await self.site.inside.ask(caller, ONE, name), "at": f"{PATH}/{quote(name, safe='')}"}
        values |= {
            "quoted": shlex.quote(name),
            "may": may_administer(caller.caller),
            "is_own": caller.caller.user == name,
        }
        return await self.site.draw(request, caller, "person_remove.html", values)

    async def remove(self, request: Request, caller: SignedInUser) -> Response:
        """Remove a user, with roles, sessions and access tokens."""
        given, name = await self.site.form(request), request.path_params["name"]
        await self.site.do(caller, given, "DELETE", ONE, name)
        return self.site.go(PATH, message=translate("{name} is deleted.").format(name=name))

    async def invite(self, request: Request, caller: SignedInUser) -> Response:
        """Show an invitation, once."""
        given = await self.site.form(request)
        return await self._invited(request, caller, given, request.path_params["name"])

    async def _invited(self, request: Request, caller: SignedInUser, form: Form, name: str) -> Response:
        told = await self.site.do(caller, form, "POST", f"{ONE}/invitation", name)
        url = told["url"] or self.site.desk.gate.origin(request)
        values = {"name": name, "link": f"{url}/invitation#{told['code']}", "ends": told["ends"]}
        return await self.site.draw(request, caller, "invited.html", values | {"at": f"{PATH}/{quote(name, safe='')}"})

    async def grant(self, request: Request, caller: SignedInUser) -> Response:
        """Grant a role."""
        given = await self.site.form(request)
        return await self._role(request, caller, given, "roles", translate("{name} is now {role} {where}."))

    async def revoke(self, request: Request, caller: SignedInUser) -> Response:
        """Revoke a role."""
        given = await self.site.form(request)
        return await self._role(
            request, caller, given, "roles/remove", translate("{name} is no longer {role} {where}.")
        )

    async def _role(self, request: Request, caller: SignedInUser, form: Form, verb: str, message: str) -> Response:
        name, role, place = request.path_params["name"], form.get("role", ""), form.get("place") or EVERYWHERE
        await self.site.do(caller, form, "POST", f"{ONE}/{verb}", name, role=role, place=place)
        where = translate("everywhere") if place == EVERYWHERE else translate("at {place}").format(place=place)
        return self._back(name, message.format(name=name, role=role, where=where))

    async def sign_out(self, request: Request, caller: SignedInUser) -> Response:
        """End all sessions of a user."""
        given, name = await self.site.form(request), request.path_params["name"]
        told = await self.site.do(caller, given, "POST", f"{ONE}/signout", name)
        many = count_of("{n} session has ended.", "{n} sessions have ended.", told["ended"])
        return self._back(name, many.format(n=number(told["ended"])))

    async def end_session(self, request: Request, caller: SignedInUser) -> Response:
        """End a session."""
        return await self._less(request, caller, "/people/sessions/{id}", translate("The session has ended."))

    async def remove_token(self, request: Request, caller: SignedInUser) -> Response:
        """Revoke an access token."""
        return await self._less(request, caller, "/people/tokens/{id}", translate("The token is revoked."))

    async def _less(self, request: Request, caller: SignedInUser, path: str, message: str) -> Response:
        given = await self.site.form(request)
        await self.site.inside.do(caller, ApiOperation("DELETE", path, (given.get("id", ""),), key=given.get(ONCE, "")))
        return self._back(request.path_params["name"], message)

    def _back(self, name: str, message: str) -> Response:
        return self.site.go(f"{PATH}/{quote(name, safe='')}", message=message)

    async def _places(self, caller: SignedInUser) -> Sequence[str]:
        """Return the places where a role can be granted."""
        hubs, services = await self.site.inside.look(caller, "/hubs"), await self.site.inside.look(caller, "/dps")
        found = [f"hub/{one['name']}" for one in hubs.items] if hubs else []
        return [
            EVERYWHERE,
            "server",
            "aws",
            *found,
            *(f"dps/{one['name']}" for one in (services.items if services else ())),
        ]


def format_roles(roles: Sequence[Mapping[str, str]]) -> Sequence[str]:
    """Return the roles of a user as text."""
    return [
        one["role"]
        if one["place"] == EVERYWHERE
        else translate("{role} at {place}").format(role=one["role"], place=one["place"])
        for one in roles
    ]


def explained() -> Mapping[str, Any]:
    """Return the purpose and permissions of each role."""
    return {
        "explained": [
            {
                "role": role.value,
                "words": translate(ROLES[role]),
                "rights": [translate(RIGHTS[right]) for right in RIGHTS_OF[role]],
            }
            for role in UserRole
        ]
    }
