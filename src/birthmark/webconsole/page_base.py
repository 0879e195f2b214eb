"""Common parts of all console pages: the user, the page frame, and refusals as pages."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError, ForbiddenError, InvalidRequestError, UnauthenticatedError
from birthmark.events.merged_event_feed import Feed, place_of
from birthmark.iam.browser_sessions import SessionEndedError
from birthmark.operator_api.cookie_request_guard import BY_ITSELF, CSRF_FIELD, address_of, path_of
from birthmark.operator_api.page_api_client import ApiOperation, InProcessClient, SignedInUser
from birthmark.operator_api.sign_in_handler_base import Form, SignInHandlers, read_form, status_of
from birthmark.webconsole.i18n import reader, translate
from birthmark.webconsole.templates_and_static_files import TemplateRenderer, reader_of

Page: TypeAlias = Callable[[Request, SignedInUser], Awaitable[Response]]
DAY = timedelta(days=1)
ONCE = "once"
_MAX_SAID, _SAID_S = 400, 60
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9._-]")


class FormUnfitError(InvalidRequestError):
    """A page's form lacks a field or has an invalid value."""

    code = "console.form_unfit"
    message = "The form cannot be processed: {detail}"
    cause = "The form is not valid, and nothing was changed: {detail}."
    fix = "Go back and correct the form."
    for_a_person = "the user must do this in the browser"
    detail: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Identification of this server on the pages."""

    host: str
    version: str
    workers: int


@dataclass(frozen=True, slots=True)
class PageRenderer:
    """Renders pages for signed-in users."""

    desk: SignInHandlers
    inside: InProcessClient
    drawing: TemplateRenderer
    about: ServerInfo
    feed: Feed

    def route(self, path: str, answer: Page, method: str = "GET") -> Route:
        """Return the route of a page; users without a session are redirected to sign-in, and back."""

        async def answered(request: Request) -> Response:
            return await self.respond(request, answer)

        return Route(path, answered, methods=[method])

    async def respond(self, request: Request, answer: Page) -> Response:
        """Return a page's response, or its refusal, in the user's language."""
        person: SignedInUser | None = None
        reads = reader.set(reader_of(request))
        try:
            self.desk.gate.check_host(request)
            person = self.get_user(request)
            self.desk.gate.mark_connection_authenticated(request, person.caller)
            return await answer(request, person)
        except SessionEndedError:
            return self._to_sign_in(request)
        except BirthmarkError as error:
            self.note(error, request)
            return await self.refused(request, person, error)
        finally:
            reader.reset(reads)

    def note(self, error: BirthmarkError, request: Request) -> None:
        """Record forbidden or forged write requests; reads and input mistakes are not refusals."""
        is_look = request.method == "GET"  # browsing often reaches forbidden pages
        if isinstance(error, ForbiddenError | UnauthenticatedError) and not is_look:
            self.desk.note(error, request)

    def get_user(self, request: Request) -> SignedInUser:
        """Return the signed-in user. Raise `SessionEndedError`."""
        return SignedInUser(self.desk.gate.signed_in(request), address_of(request))

    async def draw(
        self, request: Request, caller: SignedInUser, template: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        """Return a page with its frame."""
        around: dict[str, Any] = {
            "user": caller.caller.user or "operator",
            "csrf": self.desk.gate.mask_token(request, self.desk.entropy),
            "about": self.about,
            "said": unquote(request.cookies.get(self._said, ""))[:_MAX_SAID],
            "query": dict(request.query_params),
            "counts": await self.counts(caller),
            "feed_place": place_of(await self.feed.end()),
        }
        response = self.drawing.page(request, template, around | dict(values), status)
        if around["said"] and "hx-request" not in request.headers:
            self.desk.gate.drop(response, self._said)
        return response

    @property
    def _said(self) -> str:
        """Name of the cookie that passes a result to the next page; a URL could be forged."""
        return f"{self.desk.gate.cookie}-said"

    async def counts(self, caller: SignedInUser) -> Mapping[str, int]:
        """Return the counts next to page names: items that await a user."""
        approvals = await self.inside.look(caller, "/people/approvals")
        alerts = await self.inside.look(caller, "/alerts")
        requests = await self.inside.look(caller, "/est/requests")
        return {
            "approvals": sum(1 for one in approvals.items) if approvals else 0,
            "requests": len(requests.items) if requests else 0,
            "alerts": sum(1 for one in alerts.items if not one["silenced"]) if alerts else 0,
        }

    async def refused(self, request: Request, user: SignedInUser | None, error: BirthmarkError) -> Response:
        """Return a refusal as a page: cause and fix."""
        cause, fix = error.explain_for_display()
        told = {"problem": str(error), "cause": cause, "fix": fix, "code": error.code}
        told["title"] = translate("Action failed") if request.method != "GET" else translate("Page not available")
        if user is None:
            return self.drawing.page(request, "refused_outside.html", told, status_of(error))
        if "hx-request" in request.headers:  # shown at the pressed button; a plain refresh keeps the page
            if request.method == "GET":
                return Response(status_code=204, headers={"cache-control": "no-store"})
            return self.drawing.page(request, "refused_part.html", told, status_of(error))
        return await self.draw(request, user, "refused.html", told, status_of(error))

    async def form(self, request: Request) -> Form:
        """Return the content of a form of this server. Raise `RequestForgedError`, `SessionEndedError`."""
        found = await read_form(request)
        self.desk.gate.check_from_here(request, self.desk.gate.text(request), found.get(CSRF_FIELD, ""))
        return found

    async def do(self, caller: SignedInUser, form: Form, method: str, path: str, /, *names: str, **body: Any) -> Any:
        """Execute the action of a form; a repeated submission has no effect."""
        return await self.inside.do(caller, ApiOperation(method, path, names, body, key=form.get(ONCE, "")))

    def go(self, path: str, message: str = "") -> Response:
        """Redirect the browser after an action; the next page shows the result."""
        response = RedirectResponse(path, 303, {"cache-control": "no-store"})
        if message:
            self.desk.gate.keep(response, self._said, quote(message[:_MAX_SAID]), _SAID_S)
        return response

    def file(self, content: bytes, media_type: str, name: str) -> Response:
        """Return a file as a download that no browser renders, with an ASCII name."""
        plain = _NOT_IN_NAMES.sub("_", name)[:_MAX_SAID]
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(
            content, headers=headers | {"content-disposition": f'attachment; filename="{plain}"'}, media_type=media_type
        )

    def _to_sign_in(self, request: Request) -> Response:
        asked = path_of(request) + (f"?{request.url.query}" if request.url.query else "")
        path = f"/signin?next={quote(asked, safe='/')}" if request.method == "GET" else "/signin?said=ended"
        if "hx-request" in request.headers or BY_ITSELF in request.headers:  # partial page: redirect the full page
            return Response(status_code=401, headers={"hx-redirect": path, "cache-control": "no-store"})
        return self.go(path)
