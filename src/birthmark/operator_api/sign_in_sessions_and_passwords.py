"""The operator interface of sign-in: sessions of browsers, and passwords."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.errors import InvalidRequestError
from birthmark.iam.device_authorization_grant import EVERY_S, DeviceCodeFlow
from birthmark.iam.missing_right_errors import check_whole
from birthmark.iam.model import SERVER
from birthmark.iam.oidc import GOOD_FOR, Providers
from birthmark.iam.oidc_model import PendingOidcLogin
from birthmark.iam.password_sign_in import SignIn
from birthmark.iam.sign_in_model import BrowserSession
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.cookie_request_guard import local_path
from birthmark.operator_api.html_page_elements import link, page, paragraph
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.sign_in_handler_base import SignInHandlers, browser_of
from birthmark.operator_api.sign_in_pages import WITH
from birthmark.operator_api.user_access import Reached, may_administer, view_once
from birthmark.untrusted_json_and_text import decode_json


@dataclass(frozen=True, slots=True)
class ProviderPages:
    """Pages that send a browser to a provider and receive its return."""

    desk: SignInHandlers
    providers: Providers

    def routes(self) -> list[Route]:
        """Return the pages."""
        route = self.desk.route
        return [
            route(f"{WITH}/{{name}}", self.leave, "POST"),
            route(f"{WITH}/{{name}}/callback", self.finish_provider_sign_in),
        ]

    async def leave(self, request: Request) -> Response:
        """Send a browser to a provider through a page.

        Browsers do not follow a form to another origin (`form-action`).
        """
        given, name = await self.desk.form_before(request), request.path_params["name"]
        path = local_path(given.get("next"))
        url, kept = await self.providers.begin(name, self._back_at(request, name), path, given.get("code", ""))
        host = urlsplit(url).hostname or ""
        response = page(
            f"On to {host}",
            paragraph("Sign in there. You then return to this server."),
            link(url, "Continue"),
            leads_to=url,
        )
        text = base64.urlsafe_b64encode(msgspec.json.encode(kept)).decode()
        self.desk.gate.keep(response, self._cookie, text, int(GOOD_FOR.total_seconds()))
        return response

    async def finish_provider_sign_in(self, request: Request) -> Response:
        """Sign in a user whom the identity provider has authenticated."""
        name, kept = request.path_params["name"], self._kept(request)
        given = dict(request.query_params)
        text = await self.providers.finish(name, given, kept, self._back_at(request, name), browser_of(request))
        response = await self.desk.signed_in(request, text, local_path(kept.path if kept else None))
        self.desk.gate.drop(response, self._cookie)
        return response

    @property
    def _cookie(self) -> str:
        return f"{self.desk.gate.cookie}-with"

    def _kept(self, request: Request) -> PendingOidcLogin | None:
        try:
            return decode_json(base64.urlsafe_b64decode(request.cookies.get(self._cookie, "")), PendingOidcLogin)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _back_at(self, request: Request, name: str) -> str:
        return f"{self.desk.gate.origin(request)}{WITH}/{name}/callback"


_Secret = Annotated[str, msgspec.Meta(max_length=4096)]


class UserRequiredError(InvalidRequestError):
    """No user was specified."""

    code = "people.password_of_whom"
    cause = "A password belongs to a user, and the local administrator is not a user."
    fix = "Specify a user: `birthmark user password NAME`. To list the users: `birthmark user ls`"
    for_a_person = "only the administrator knows which user is meant"


class NewPassword(msgspec.Struct):
    """A password: the caller's own, which requires the current one if set, or that of a user."""

    password: _Secret
    current: _Secret = ""
    user: str | None = None


class LoginRequest(msgspec.Struct):
    """Machine of the command that requests a sign-in."""

    label: Annotated[str, msgspec.Meta(max_length=64)] = ""


class DeviceCodeBody(msgspec.Struct):
    """Device code of a command that waits for sign-in."""

    device_code: Annotated[str, msgspec.Meta(max_length=128)]


def session_endpoints(sign_in: SignIn) -> Sequence[Endpoint]:
    """Return the routes of `birthmark session` and `birthmark user password`."""
    sessions = sign_in.sessions

    async def listing(request: ApiRequest) -> Rows:
        if request.caller.is_narrowed and not may_administer(request.caller):
            return Rows([])
        return Rows([_view(one) for one in sessions.of(_whose(request.caller))])

    async def end(request: ApiRequest) -> None:
        check_whole(request.caller)
        await sessions.end(request["id"], of=_whose(request.caller), actor=request.actor)

    async def end_all(request: ApiRequest) -> Any:
        _check_own(request, request["name"])
        sign_in.people.user(request["name"])
        return {"user": request["name"], "ended": await sessions.end_all(request["name"], actor=request.actor)}

    async def set_password(request: ApiRequest) -> Any:
        body: NewPassword = request.body
        user = request.caller.user if body.user is None else body.user
        if user is None:
            raise UserRequiredError
        _check_own(request, user)
        await sign_in.set_password(user, body.password, body.current, request.caller, request.address)
        return {"user": user}

    async def remove_password(request: ApiRequest) -> None:
        check_whole(request.caller)
        await sign_in.remove_password(request["name"], actor=request.actor)

    async def open_console(request: ApiRequest) -> Any:
        if request.caller.user is not None:
            raise OperatorRequestError(detail="the link is for the local administrator; users sign in at /signin")
        code, ends_at = await sign_in.open(actor=request.actor)
        return {"path": f"/open#{code}", "ends": ends_at.isoformat()}

    at, one = "/people/sessions", "/people/users/{name}"
    link = "Create a one-time link to the console, for the server's machine."
    return [
        Endpoint("POST", "/console/open", Right.ADMINISTER, link, open_console),
        Endpoint("GET", at, None, "List your browser sessions; administrators see all.", listing),
        Endpoint("DELETE", f"{at}/{{id}}", None, "End a session.", end, status=204),
        Endpoint("POST", f"{one}/signout", None, "End all sessions of a user.", end_all),
        Endpoint("POST", "/people/password", None, "Set a password and end all sessions.", set_password, NewPassword),
        Endpoint("DELETE", f"{one}/password", Right.ADMINISTER, "Delete a password.", remove_password, status=204),
    ]


def asking_endpoints(askings: DeviceCodeFlow, reached: Reached) -> Sequence[Endpoint]:
    """Return the unauthenticated routes of `birthmark login URL`."""

    async def begin(request: ApiRequest) -> Any:
        begun = await askings.begin(request.body.label, request.address)
        url = reached()["url"]
        return {
            "device_code": begun.secret,
            "user_code": begun.code,
            "verification_uri": None if url is None else f"{url}/device",
            "ends": begun.ends_at.isoformat(),
            "interval": EVERY_S,
        }

    async def token(request: ApiRequest) -> Any:
        made = await askings.poll_token(request.body.device_code, request.address)
        return {"interval": made} if isinstance(made, int) else {"interval": None, **view_once(made)}

    async def roots(_asked: ApiRequest) -> Any:
        return {"roots": reached()["roots"]}

    at = "/people/asking"
    return [
        Endpoint("POST", at, None, "Request sign-in with a device code.", begin, LoginRequest, is_open=True),
        Endpoint(
            "POST", f"{at}/token", None, "Return the token of a device code, once.", token, DeviceCodeBody, is_open=True
        ),
        Endpoint("GET", "/server/roots", None, "Return the root certificates of this server.", roots, is_open=True),
    ]


def _whose(caller: Caller) -> str | None:
    return None if may_administer(caller) else caller.user


def _check_own(request: ApiRequest, user: str) -> None:
    check_whole(request.caller)
    if user != request.caller.user:
        request.require_permission(Right.ADMINISTER, SERVER)


def _view(session: BrowserSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "how": session.how,
        "from": session.address,
        "browser": session.agent,
        "created": session.created_at.isoformat(),
        "used": session.used_at.isoformat(),
        "ends": session.ends_at.isoformat(),
    }
