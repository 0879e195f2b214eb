"""*People*: who there is and what they may do; invitations, roles, and the way out. Offered is what one may do."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permissions import Right
from birthmark.iam.model import EVERYWHERE, RIGHTS_OF, UserRole
from birthmark.operator_api.in_process_client import ApiOperation, SignedInUser
from birthmark.operator_api.sign_in_handlers import Form
from birthmark.operator_api.users import may_administer
from birthmark.webconsole.i18n import count_of, number, say
from birthmark.webconsole.labels import marked
from birthmark.webconsole.page_base import ONCE, PageRenderer

PATH, ONE = "/people", "/people/users/{name}"
ROLES: Mapping[UserRole, str] = {
    UserRole.VIEWER: marked("Looks at everything that is no secret."),
    UserRole.ENROLLER: marked("Enrolls devices and approves their certificates."),
    UserRole.OPERATOR: marked("Operates, changes and revokes devices."),
    UserRole.SECURITY_OFFICER: marked("Decides which CAs are trusted, and revokes keys and devices."),
    UserRole.ADMIN: marked("Everything: services, secrets, people and what they may do."),
}
RIGHTS: Mapping[Right, str] = {
    Right.READ: marked("look"),
    Right.ENROLL: marked("enroll"),
    Right.OPERATE: marked("operate"),
    Right.REVOKE: marked("revoke"),
    Right.TRUST: marked("trust"),
    Right.ADMINISTER: marked("administer"),
}


@dataclass(frozen=True, slots=True)
class PeoplePages:
    """All of them, one, and what is done about one."""

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

    async def show(self, request: Request, who: SignedInUser) -> Response:
        """Draw who there is, and what each role may."""
        found = await self.site.inside.ask(who, "/people/users")
        values = {
            "people": [{**one, "said": said_roles(one["roles"])} for one in found.items],
            "may": may_administer(who.caller),
            "places": await self._places(who),
            "roles": [one.value for one in UserRole],
            **explained(),
        }
        return await self.site.draw(request, who, "people.html", values)

    async def create(self, request: Request, who: SignedInUser) -> Response:
        """Put somebody on record, and show the invitation."""
        given = await self.site.form(request)
        body = {"name": given.get("name", "").strip(), "role": given.get("role") or None}
        made = await self.site.do(who, given, "POST", "/people/users", **body, place=given.get("place") or EVERYWHERE)
        return await self._invited(request, who, {**given, ONCE: f"{given.get(ONCE, '')}-i"}, made["name"])

    async def one(self, request: Request, who: SignedInUser) -> Response:
        """Draw one of them. Raise `UserMissingError`."""
        name, ask, may = request.path_params["name"], self.site.inside.ask, may_administer(who.caller)
        user = await ask(who, ONE, name)
        sees_more = may or who.caller.user == name
        sessions = (await ask(who, "/people/sessions")).items if sees_more else ()
        tokens = (await ask(who, "/people/tokens")).items if sees_more else ()
        values = {
            "person": user,
            "sessions": [one for one in sessions if one["user"] == name],
            "tokens": [one for one in tokens if one["user"] == name],
            "sees_more": sees_more,
            "may": may,
            "is_own": who.caller.user == name,
            "places": await self._places(who),
            "roles": [one.value for one in UserRole],
            "quoted": shlex.quote(name),
            "at": f"{PATH}/{quote(name, safe='')}",
        }
        return await self.site.draw(request, who, "person.html", values)

    async def confirm(self, request: Request, who: SignedInUser) -> Response:
        """Say what is hit when somebody is removed."""
        name = request.path_params["name"]
        values = {"person": await self.site.inside.ask(who, ONE, name), "at": f"{PATH}/{quote(name, safe='')}"}
        values |= {"quoted": shlex.quote(name), "may": may_administer(who.caller), "is_own": who.caller.user == name}
        return await self.site.draw(request, who, "person_remove.html", values)

    async def remove(self, request: Request, who: SignedInUser) -> Response:
        """Remove somebody, with roles, sessions and tokens."""
        given, name = await self.site.form(request), request.path_params["name"]
        await self.site.do(who, given, "DELETE", ONE, name)
        return self.site.go(PATH, said=say("{name} is deleted.").format(name=name))

    async def invite(self, request: Request, who: SignedInUser) -> Response:
        """Show an invitation, once."""
        given = await self.site.form(request)
        return await self._invited(request, who, given, request.path_params["name"])

    async def _invited(self, request: Request, who: SignedInUser, given: Form, name: str) -> Response:
        told = await self.site.do(who, given, "POST", f"{ONE}/invitation", name)
        url = told["url"] or self.site.desk.gate.origin(request)
        values = {"name": name, "link": f"{url}/invitation#{told['code']}", "ends": told["ends"]}
        return await self.site.draw(request, who, "invited.html", values | {"at": f"{PATH}/{quote(name, safe='')}"})

    async def grant(self, request: Request, who: SignedInUser) -> Response:
        """Give a role."""
        given = await self.site.form(request)
        return await self._role(request, who, given, "roles", say("{name} is {role} {where} from now on."))

    async def revoke(self, request: Request, who: SignedInUser) -> Response:
        """Take a role."""
        given = await self.site.form(request)
        return await self._role(request, who, given, "roles/remove", say("{name} is {role} {where} no more."))

    async def _role(self, request: Request, who: SignedInUser, given: Form, verb: str, said: str) -> Response:
        name, role, place = request.path_params["name"], given.get("role", ""), given.get("place") or EVERYWHERE
        await self.site.do(who, given, "POST", f"{ONE}/{verb}", name, role=role, place=place)
        where = say("everywhere") if place == EVERYWHERE else say("at {place}").format(place=place)
        return self._back(name, said.format(name=name, role=role, where=where))

    async def sign_out(self, request: Request, who: SignedInUser) -> Response:
        """End all sessions of somebody."""
        given, name = await self.site.form(request), request.path_params["name"]
        told = await self.site.do(who, given, "POST", f"{ONE}/signout", name)
        many = count_of("{n} session has ended.", "{n} sessions have ended.", told["ended"])
        return self._back(name, many.format(n=number(told["ended"])))

    async def end_session(self, request: Request, who: SignedInUser) -> Response:
        """End one session."""
        return await self._less(request, who, "/people/sessions/{id}", say("That session has ended."))

    async def remove_token(self, request: Request, who: SignedInUser) -> Response:
        """Take a token back."""
        return await self._less(request, who, "/people/tokens/{id}", say("That token counts no more."))

    async def _less(self, request: Request, who: SignedInUser, path: str, said: str) -> Response:
        given = await self.site.form(request)
        await self.site.inside.do(who, ApiOperation("DELETE", path, (given.get("id", ""),), key=given.get(ONCE, "")))
        return self._back(request.path_params["name"], said)

    def _back(self, name: str, said: str) -> Response:
        return self.site.go(f"{PATH}/{quote(name, safe='')}", said=said)

    async def _places(self, who: SignedInUser) -> Sequence[str]:
        """Return where a role can be given."""
        hubs, services = await self.site.inside.look(who, "/hubs"), await self.site.inside.look(who, "/dps")
        found = [f"hub/{one['name']}" for one in hubs.items] if hubs else []
        return [
            EVERYWHERE,
            "server",
            "aws",
            *found,
            *(f"dps/{one['name']}" for one in (services.items if services else ())),
        ]


def said_roles(roles: Sequence[Mapping[str, str]]) -> Sequence[str]:
    """Return the roles of somebody in words."""
    return [
        one["role"]
        if one["place"] == EVERYWHERE
        else say("{role} at {place}").format(role=one["role"], place=one["place"])
        for one in roles
    ]


def explained() -> Mapping[str, Any]:
    """Return what each role is for, and may."""
    return {
        "explained": [
            {"role": role.value, "words": say(ROLES[role]), "rights": [say(RIGHTS[right]) for right in RIGHTS_OF[role]]}
            for role in UserRole
        ]
    }
