"""What every page of the console shares: who looks, what stands around it, and refusals as pages."""

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
from birthmark.events.reader import Feed, place_of
from birthmark.iam.sessions import SessionEndedError
from birthmark.operator_api.in_process_client import ApiOperation, InProcessClient, SignedInUser
from birthmark.operator_api.session_guard import BY_ITSELF, CSRF_FIELD, address_of, path_of
from birthmark.operator_api.sign_in_handlers import Form, SignInHandlers, read_form, status_of
from birthmark.webconsole.i18n import reader, say
from birthmark.webconsole.rendering import TemplateRenderer, reader_of

Page: TypeAlias = Callable[[Request, SignedInUser], Awaitable[Response]]
DAY = timedelta(days=1)
ONCE = "once"
_MAX_SAID, _SAID_S = 400, 60
_NOT_IN_NAMES = re.compile("[^A-Za-z0-9._-]")


class FormUnfitError(InvalidRequestError):
    """A form of a page that lacks something, or holds what is none of what it asks for."""

    code = "console.form_unfit"
    message = "That cannot be done: {detail}"
    cause = "The form is not valid, and nothing was changed: {detail}."
    fix = "Go back and correct the form."
    for_a_person = "the user at the browser has to do it"
    detail: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Which server this is, as the pages say it."""

    host: str
    version: str
    workers: int


@dataclass(frozen=True, slots=True)
class PageRenderer:
    """Draws pages for who is signed in."""

    desk: SignInHandlers
    inside: InProcessClient
    drawing: TemplateRenderer
    about: ServerInfo
    feed: Feed

    def route(self, path: str, answer: Page, method: str = "GET") -> Route:
        """Return the route of a page; who is not signed in is led there, and back."""

        async def answered(request: Request) -> Response:
            return await self.answered(request, answer)

        return Route(path, answered, methods=[method])

    async def answered(self, request: Request, answer: Page) -> Response:
        """Return what a page answers, or what it refuses, in the language of who asks."""
        person: SignedInUser | None = None
        reads = reader.set(reader_of(request))
        try:
            self.desk.gate.check_host(request)
            person = self.who(request)
            self.desk.gate.let_in(request, person.caller)
            return await answer(request, person)
        except SessionEndedError:
            return self._to_sign_in(request)
        except BirthmarkError as error:
            self.note(error, request)
            return await self.refused(request, person, error)
        finally:
            reader.reset(reads)

    def note(self, error: BirthmarkError, request: Request) -> None:
        """File what somebody may not, or what no page of ours asked for; who mistypes is refused nothing."""
        is_look = request.method == "GET"  # who looks around meets what is not his at every corner
        if isinstance(error, ForbiddenError | UnauthenticatedError) and not is_look:
            self.desk.note(error, request)

    def who(self, request: Request) -> SignedInUser:
        """Return who looks. Raise `SessionEndedError`."""
        return SignedInUser(self.desk.gate.signed_in(request), address_of(request))

    async def draw(
        self, request: Request, who: SignedInUser, template: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        """Return a page with what stands around it."""
        around: dict[str, Any] = {
            "user": who.caller.user or "operator",
            "csrf": self.desk.gate.masked(request, self.desk.entropy),
            "about": self.about,
            "said": unquote(request.cookies.get(self._said, ""))[:_MAX_SAID],
            "query": dict(request.query_params),
            "counts": await self.counts(who),
            "feed_place": place_of(await self.feed.end()),
        }
        response = self.drawing.page(request, template, around | dict(values), status)
        if around["said"] and "hx-request" not in request.headers:
            self.desk.gate.drop(response, self._said)
        return response

    @property
    def _said(self) -> str:
        """How the cookie is called by which one page tells the next what was done: an address could be anybody's."""
        return f"{self.desk.gate.cookie}-said"

    async def counts(self, who: SignedInUser) -> Mapping[str, int]:
        """Return what stands beside the names of pages: what waits for somebody."""
        approvals = await self.inside.look(who, "/people/approvals")
        alerts = await self.inside.look(who, "/alerts")
        requests = await self.inside.look(who, "/est/requests")
        return {
            "approvals": sum(1 for one in approvals.items) if approvals else 0,
            "requests": len(requests.items) if requests else 0,
            "alerts": sum(1 for one in alerts.items if not one["silenced"]) if alerts else 0,
        }

    async def refused(self, request: Request, who: SignedInUser | None, error: BirthmarkError) -> Response:
        """Return a refusal as a page: what was wrong, and what to do."""
        cause, fix = error.explain_apart()
        told = {"problem": str(error), "cause": cause, "fix": fix, "code": error.code}
        told["title"] = say("That was not done") if request.method != "GET" else say("This cannot be shown")
        if who is None:
            return self.drawing.page(request, "refused_outside.html", told, status_of(error))
        if "hx-request" in request.headers:  # at the place that was pressed; what is only drawn anew stays as it is
            if request.method == "GET":
                return Response(status_code=204, headers={"cache-control": "no-store"})
            return self.drawing.page(request, "refused_part.html", told, status_of(error))
        return await self.draw(request, who, "refused.html", told, status_of(error))

    async def form(self, request: Request) -> Form:
        """Return what a form of ours sent. Raise `RequestForgedError`, `SessionEndedError`."""
        found = await read_form(request)
        self.desk.gate.check_from_here(request, self.desk.gate.text(request), found.get(CSRF_FIELD, ""))
        return found

    async def do(self, who: SignedInUser, given: Form, method: str, path: str, /, *names: str, **body: Any) -> Any:
        """Carry out what a form asks for, once however often it is sent."""
        return await self.inside.do(who, ApiOperation(method, path, names, body, key=given.get(ONCE, "")))

    def go(self, path: str, said: str = "") -> Response:
        """Lead a browser on, after something was done; the page there says what."""
        response = RedirectResponse(path, 303, {"cache-control": "no-store"})
        if said:
            self.desk.gate.keep(response, self._said, quote(said[:_MAX_SAID]), _SAID_S)
        return response

    def file(self, content: bytes, media_type: str, name: str) -> Response:
        """Hand out a file, which no browser shows as a page; its name is of plain characters."""
        plain = _NOT_IN_NAMES.sub("_", name)[:_MAX_SAID]
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(
            content, headers=headers | {"content-disposition": f'attachment; filename="{plain}"'}, media_type=media_type
        )

    def _to_sign_in(self, request: Request) -> Response:
        asked = path_of(request) + (f"?{request.url.query}" if request.url.query else "")
        path = f"/signin?next={quote(asked, safe='/')}" if request.method == "GET" else "/signin?said=ended"
        if "hx-request" in request.headers or BY_ITSELF in request.headers:  # a part of a page: the whole goes there
            return Response(status_code=401, headers={"hx-redirect": path, "cache-control": "no-store"})
        return self.go(path)
