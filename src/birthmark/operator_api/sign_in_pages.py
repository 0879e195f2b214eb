"""Sign-in pages for browsers: by password, or by an invitation that sets one."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError
from birthmark.iam.password_policy_and_hashes import PasswordUnfitError
from birthmark.iam.password_sign_in import LinkRefusedError
from birthmark.operator_api.cookie_request_guard import RequestForgedError, local_path
from birthmark.operator_api.html_page_elements import (
    FROM_FRAGMENT,
    FROM_FRAGMENT_ON,
    button,
    entry,
    form,
    hidden,
    link,
    page,
    paragraph,
    see,
)
from birthmark.operator_api.sign_in_handler_base import (
    NOT_THE_SAME,
    SignInHandlers,
    browser_of,
    format_refusal,
    new_password,
    status_of,
)

Others = Sequence[tuple[str, str]]
"""Alternative identity providers: names and display names."""
_SAID = {
    "changed": "Your password is changed, and all your sessions have ended. Sign in by the new one.",
    "ended": "Your session had expired, and your last request was not processed.",
    "out": "You are signed out.",
}
WITH = "/signin/with"


@dataclass(frozen=True, slots=True)
class SignInPages:
    """Pages for a browser without a signed-in user."""

    desk: SignInHandlers
    others: Others = ()

    def routes(self) -> list[Route]:
        """Return the pages."""
        route = self.desk.route
        return [
            route("/invitation", self.invitation),
            route("/invitation", self.accept, "POST"),
            route("/open", self.link),
            route("/open", self.open, "POST"),
            route("/signin", self.form),
            route("/signin", self.by_password, "POST"),
        ]

    async def form(self, request: Request) -> Response:
        """Show the form for name and password; a signed-in user is redirected."""
        path = local_path(request.query_params.get("next"))
        said = _SAID.get(request.query_params.get("said", ""), "")
        return see(path) if self.desk.gate.is_signed_in(request) else self._ask(request, path, message=said)

    async def by_password(self, request: Request) -> Response:
        """Sign in; a user who signed in in another tab is redirected."""
        try:
            given = await self.desk.form_before(request)
        except RequestForgedError:
            if self.desk.gate.is_signed_in(request):
                return see("/")
            raise
        path, name, password = local_path(given.get("next")), given.get("name", ""), given.get("password", "")
        try:
            text = await self.desk.sign_in.by_password(name, password, browser_of(request))
        except (UnauthenticatedError, ThrottledError) as error:
            self.desk.note(error, request)
            return self._ask(request, path, error, name=name[:128])
        return await self.desk.signed_in(request, text, path)

    async def link(self, request: Request) -> Response:
        """Accept the code of a link that `birthmark console open` printed."""

        def made(csrf: str) -> Response:
            note = paragraph("The link opens the console once, for the local administrator.")
            code = entry("code", "Code of the link", limit=128)
            return page("Open the console", note, form("/open", csrf, code, button("Open it")), script=FROM_FRAGMENT_ON)

        return self.desk.opened(request, made)

    async def open(self, request: Request) -> Response:
        """Sign in with the code."""
        given = await self.desk.form_before(request)
        if self.desk.gate.port is None:
            raise LinkRefusedError
        text = await self.desk.sign_in.opened(given.get("code", ""), browser_of(request))
        return await self.desk.signed_in(request, text, "/")

    async def invitation(self, request: Request) -> Response:
        """Show the form for the invitation code, which the link has after its `#`, and a password."""
        return self._ask_invited(request)

    async def accept(self, request: Request) -> Response:
        """Set the password, and sign in."""
        given = await self.desk.form_before(request)
        code, password = given.get("code", ""), given.get("password", "")
        if password != given.get("again"):
            return self._ask_invited(request, code, NOT_THE_SAME, 400)
        try:
            text = await self.desk.sign_in.accept(code, password, browser_of(request))
        except (PasswordUnfitError, UnauthenticatedError) as error:
            self.desk.note(error, request)
            return self._ask_invited(request, code, format_refusal(error), status_of(error))
        return await self.desk.signed_in(request, text, "/")

    def _ask(
        self, request: Request, path: str, error: BirthmarkError | None = None, *, name: str = "", message: str = ""
    ) -> Response:
        told = paragraph(message) if error is None else paragraph(format_refusal(error, str(error)), "bad")

        def made(csrf: str) -> Response:
            named = entry("name", "Name", fills="username", limit=128, value=name)
            secret = entry("password", "Password", kind="password", fills="current-password")
            own = form("/signin", csrf, hidden("next", path), named, secret, button("Sign in"))
            other = form("/signin", csrf, hidden("next", path), *self._ways()) if self.others else ""
            return page("Sign in", told, own, other, status=200 if error is None else status_of(error))

        return self.desk.opened(request, made)

    def _ask_invited(self, request: Request, code: str = "", message: str = "", status: int = 200) -> Response:
        def made(csrf: str) -> Response:
            shown = entry("code", "Code of the invitation", value=code, limit=128)
            body = form("/invitation", csrf, shown, *new_password(), button("Set the password"), *self._ways())
            asks = paragraph(f"To the Birthmark server at {request.url.netloc}. Set a password, to sign in by there.")
            before = link("/signin", "You have one already? Sign in")
            return page(
                "You are invited", asks, paragraph(message, "bad"), body, before, status=status, script=FROM_FRAGMENT
            )

        return self.desk.opened(request, made)

    def _ways(self) -> list[str]:
        return [button(f"Sign in with {title}", action=f"{WITH}/{name}", is_other=True) for name, title in self.others]
