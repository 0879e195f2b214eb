"""The pages of who is signed in at a browser: what that one may do, where else, the password, and the way out."""

from dataclasses import dataclass
from html import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.principals import Caller
from birthmark.console.desk import NOT_THE_SAME, Desk, new_password, status_of, words
from birthmark.console.gate import address_of, csrf_of
from birthmark.console.pages import button, entry, form, hidden, link, page, paragraph, rows, see
from birthmark.errors import ThrottledError, UnauthenticatedError
from birthmark.people.passwords import PasswordUnfitError
from birthmark.people.sign_in_model import Session
from birthmark.text import printable


@dataclass(frozen=True, slots=True)
class OwnPages:
    """What people see and do of their own."""

    desk: Desk

    def routes(self) -> list[Route]:
        """Return the pages."""
        route = self.desk.route
        return [
            route("/", self.home),
            route("/password", self.password),
            route("/password", self.change_password, "POST"),
            route("/sessions/end", self.end_session, "POST"),
            route("/signout", self.sign_out, "POST"),
            route("/signout/everywhere", self.sign_out_everywhere, "POST"),
        ]

    async def home(self, request: Request) -> Response:
        """Say who is signed in, and where else."""
        caller, csrf = self.desk.gate.signed_in(request), self._csrf(request)
        user, people = str(caller.user), self.desk.sign_in.people
        roles = ", ".join(f"{one.role.value} at {one.place}" for one in people.grants(user)) or "none"
        own = caller.actor.told["session"]
        everywhere = button("Sign out everywhere", action="/signout/everywhere", is_other=True)
        return page(
            f"You are signed in as {user}",
            paragraph(f"Roles: {roles}."),
            form("/signout", csrf, button("Sign out"), everywhere),
            link("/password", "Change your password"),
            link("/device", "Let a command of another machine in"),
            rows(_line(one, csrf, is_own=one.id == own) for one in self.desk.sign_in.sessions.of(user)),
        )

    async def end_session(self, request: Request) -> Response:
        """End one of one's own."""
        given, caller = await self.desk.form_of(request)
        await self.desk.sign_in.sessions.end(given.get("id", ""), of=caller.user, actor=caller.actor)
        return see("/")

    async def sign_out(self, request: Request) -> Response:
        """End this one."""
        await self.desk.form_of(request)
        await self.desk.sign_in.sessions.sign_out(self.desk.gate.text(request), address_of(request))
        return self._left()

    async def sign_out_everywhere(self, request: Request) -> Response:
        """End all of them."""
        _, caller = await self.desk.form_of(request)
        await self.desk.sign_in.sessions.end_all(str(caller.user), actor=caller.actor)
        return self._left()

    async def password(self, request: Request) -> Response:
        """Ask for another password."""
        return await self._ask_password(request, self.desk.gate.signed_in(request))

    async def change_password(self, request: Request) -> Response:
        """Set it; it takes the one before, and all sessions end."""
        given, caller = await self.desk.form_of(request)
        new, current = given.get("password", ""), given.get("current", "")
        if new != given.get("again"):
            return await self._ask_password(request, caller, NOT_THE_SAME, 400)
        try:
            await self.desk.sign_in.set_password(str(caller.user), new, current, caller, address_of(request))
        except (PasswordUnfitError, UnauthenticatedError, ThrottledError) as error:
            self.desk.note(error, request)
            return await self._ask_password(request, caller, words(error), status_of(error))
        return self._left()

    async def _ask_password(self, request: Request, caller: Caller, told: str = "", status: int = 200) -> Response:
        has_one = await self.desk.sign_in.has_password(str(caller.user))
        current = entry("current", "Current password", kind="password", fills="current-password") if has_one else ""
        body = form("/password", self._csrf(request), current, *new_password(), button("Change it"))
        note = paragraph("All your sessions end by it.", "note")
        return page("Change your password", paragraph(told, "bad"), body, note, status=status)

    def _csrf(self, request: Request) -> str:
        return csrf_of(self.desk.gate.text(request))

    def _left(self) -> Response:
        response = see("/signin")
        self.desk.gate.drop(response, self.desk.gate.cookie)
        return response


def _line(one: Session, csrf: str, *, is_own: bool) -> tuple[str, str]:
    since = f"{one.address}, since {one.created_at:%Y-%m-%d %H:%M} UTC"
    told = f'{escape(printable(one.agent or "a browser"))}<br><span class="note">{escape(since)}</span>'
    return told, "this one" if is_own else form("/sessions/end", csrf, hidden("id", one.id), button("End"))
