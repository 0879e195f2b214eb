"""The pages by which people sign in at a browser: by password, or by an invitation that sets one."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.console.desk import NOT_THE_SAME, Desk, browser_of, new_password, status_of, words
from birthmark.console.gate import local_path
from birthmark.console.pages import FROM_FRAGMENT, button, entry, form, hidden, page, paragraph, see
from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError
from birthmark.people.passwords import PasswordUnfitError

Others = Sequence[tuple[str, str]]
"""The providers where people sign in instead: names, and what they are called."""
WITH = "/signin/with"


@dataclass(frozen=True, slots=True)
class SignInPages:
    """For a browser at which nobody is signed in yet."""

    desk: Desk
    others: Others = ()

    def routes(self) -> list[Route]:
        """Return the pages."""
        route = self.desk.route
        return [
            route("/invitation", self.invitation),
            route("/invitation", self.accept, "POST"),
            route("/signin", self.form),
            route("/signin", self.by_password, "POST"),
        ]

    async def form(self, request: Request) -> Response:
        """Ask for name and password; who is signed in goes on."""
        path = local_path(request.query_params.get("next"))
        return see(path) if self.desk.gate.is_signed_in(request) else self._ask(request, path)

    async def by_password(self, request: Request) -> Response:
        """Sign in."""
        given = await self.desk.form_before(request)
        path, name, password = local_path(given.get("next")), given.get("name", ""), given.get("password", "")
        try:
            text = await self.desk.sign_in.by_password(name, password, browser_of(request))
        except (UnauthenticatedError, ThrottledError) as error:
            self.desk.note(error, request)
            return self._ask(request, path, error)
        return await self.desk.signed_in(request, text, path)

    async def invitation(self, request: Request) -> Response:
        """Ask for the code of an invitation, which the link has behind its `#`, and a password."""
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
            return self._ask_invited(request, code, words(error), status_of(error))
        return await self.desk.signed_in(request, text, "/")

    def _ask(self, request: Request, path: str, error: BirthmarkError | None = None) -> Response:
        told = "" if error is None else paragraph(f"{error}. {error.explain_fix()}", "bad")

        def made(csrf: str) -> Response:
            name = entry("name", "Name", fills="username", most=128)
            secret = entry("password", "Password", kind="password", fills="current-password")
            own = form("/signin", csrf, hidden("next", path), name, secret, button("Sign in"))
            other = form("/signin", csrf, hidden("next", path), *self._ways()) if self.others else ""
            return page("Sign in", told, own, other, status=200 if error is None else status_of(error))

        return self.desk.opened(request, made)

    def _ask_invited(self, request: Request, code: str = "", told: str = "", status: int = 200) -> Response:
        def made(csrf: str) -> Response:
            shown = entry("code", "Code of the invitation", value=code, most=128)
            body = form("/invitation", csrf, shown, *new_password(), button("Set the password"), *self._ways())
            return page("You are invited", paragraph(told, "bad"), body, status=status, script=FROM_FRAGMENT)

        return self.desk.opened(request, made)

    def _ways(self) -> list[str]:
        return [button(f"Use {title}", action=f"{WITH}/{name}", is_other=True) for name, title in self.others]
