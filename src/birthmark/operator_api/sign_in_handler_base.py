"""Shared parts of the sign-in pages: host and origin checks, forms, and refusals as pages."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.principals import Caller
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.iam.browser_sessions import SessionEndedError
from birthmark.iam.password_sign_in import SignIn
from birthmark.iam.sign_in_model import Browser
from birthmark.operator_api.api_router import STATUS
from birthmark.operator_api.cookie_request_guard import (
    CSRF_FIELD,
    SessionGuard,
    address_of,
    csrf_of,
    machine_user,
    path_of,
)
from birthmark.operator_api.html_page_elements import entry, link, page, paragraph, see
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.untrusted_json_and_text import printable

Form = dict[str, str]
Refused = Callable[[BirthmarkError, str], None]
Page = Callable[[Request], Awaitable[Response]]
_FORM = "application/x-www-form-urlencoded"
_MAX_AGENT = 64
_BROWSERS = (
    *(("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chromium/", "Chromium")),
    *(("Chrome/", "Chrome"), ("Safari/", "Safari")),
)
_SYSTEMS = (
    *(("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad")),
    *(("Mac OS X", "macOS"), ("Linux", "Linux")),
)
_MAX_FIELDS, _MAX_FORM = 128, 64 * 1024
_SECRET_BYTES = 32
NOT_THE_SAME = "The two new passwords are not the same."
_NEW = "At least 12 characters; four words by chance are good."


@dataclass(frozen=True, slots=True)
class SignInHandlers:
    """Shared functions of the sign-in pages."""

    gate: SessionGuard
    sign_in: SignIn = field(repr=False)
    entropy: Entropy = field(repr=False)
    refused: Refused
    """Refusal sink."""

    def route(self, path: str, answer: Page, method: str = "GET") -> Route:
        """Return a route that checks the host name and renders refusals as pages."""

        async def answered(request: Request) -> Response:
            try:
                self.gate.check_host(request)
                return await answer(request)
            except SessionEndedError:
                asked = f"next={quote(path_of(request), safe='/')}" if method == "GET" else "said=ended"
                return see(f"/signin?{asked}")
            except BirthmarkError as error:
                self.note(error, request)
                return refusal(error)

        return Route(path, answered, methods=[method])

    def note(self, error: BirthmarkError, request: Request) -> None:
        """Record a refusal; throttled requests are not recorded again."""
        if not isinstance(error, ThrottledError):
            self.refused(error, address_of(request))

    def opened(self, request: Request, make: Callable[[str], Response]) -> Response:
        """Return a page with a form that requires no sign-in: `make` receives its CSRF token."""
        secret = request.cookies.get(self.gate.presignin_cookie, "") or self.entropy.token(_SECRET_BYTES).hex()
        response = make(csrf_of(secret))
        self.gate.keep(response, self.gate.presignin_cookie, secret)
        return response

    async def form_before(self, request: Request) -> Form:
        """Return the submitted form of such a page. Raise `RequestForgedError`."""
        found = await read_form(request)
        self.gate.check_from_here(
            request, request.cookies.get(self.gate.presignin_cookie, ""), found.get(CSRF_FIELD, "")
        )
        return found

    async def form_of(self, request: Request) -> tuple[Form, Caller]:
        """Return the form of a signed-in user. Raise `RequestForgedError`, `SessionEndedError`."""
        found = await read_form(request)
        caller = self.gate.signed_in(request)
        self.gate.check_from_here(request, self.gate.text(request), found.get(CSRF_FIELD, ""))
        return found, caller

    async def signed_in(self, request: Request, text: str, path: str) -> Response:
        """Set the cookie of a new session and end the previous session and pre-sign-in state."""
        if old := self.gate.text(request):
            await self.sign_in.sessions.sign_out(old, address_of(request))
        response = see(path)
        self.gate.keep(response, self.gate.cookie, text)
        self.gate.drop(response, self.gate.presignin_cookie)
        return response


async def read_form(request: Request) -> Form:
    """Return the fields of a form, the last of each name. Raise `OperatorRequestError`."""
    return {name: values[-1] for name, values in (await read_many(request)).items()}


async def read_many(request: Request) -> Mapping[str, Sequence[str]]:
    """Return the fields of a form, every value of each name. Raise `OperatorRequestError`."""
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM or len(body) > _MAX_FORM:
        raise OperatorRequestError(detail="it is not a form of this page")
    found: dict[str, list[str]] = {}
    try:
        text = body.decode("ascii")
        for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"):
            found.setdefault(name, []).append(value)
    except ValueError as error:
        raise OperatorRequestError(detail="its form cannot be read") from error
    return found


def browser_of(request: Request) -> Browser:
    """Return the browser of a sign-in."""
    agent = browser_name(printable(request.headers.get("user-agent", "")))
    return Browser(address_of(request), agent, machine_user(request))


def browser_name(agent: str) -> str:
    """Return the common name of a browser from its user agent, which also names other browsers."""
    kind = next((name for sign, name in _BROWSERS if sign in agent), "")
    system = next((name for sign, name in _SYSTEMS if sign in agent), "")
    return (f"{kind} on {system}" if kind and system else kind or agent)[:_MAX_AGENT]


def status_of(error: BirthmarkError) -> int:
    """Return the HTTP status of a refusal."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def refusal(error: BirthmarkError) -> Response:
    """Return a refusal as a page."""
    cause, fix = error.explain_for_display()
    told = (paragraph(cause, "bad"), paragraph(fix), link("/", "Back to sign-in"))
    return page(str(error), *told, status=status_of(error))


def format_refusal(error: BirthmarkError, message: str = "") -> str:
    """Return a refusal as text of a form page; `said` replaces its cause."""
    return f"{(message or error.explain_cause()).removesuffix('.')}. {error.explain_fix()}".replace("`", "")


def new_password() -> tuple[str, str, str]:
    """Return the form inputs for a new password."""
    return (
        entry("password", "New password", kind="password", fills="new-password"),
        entry("again", "The same again", kind="password", fills="new-password"),
        paragraph(_NEW, "note"),
    )
