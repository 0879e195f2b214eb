"""Account pages of a signed-in user: password, device codes, sessions, tokens, and sign-out.

The console has their overview page (`webconsole.account`).
"""

from dataclasses import dataclass
from html import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.principals import Caller
from birthmark.errors import ThrottledError, UnauthenticatedError
from birthmark.iam.device_authorization_grant import CodeUnknownError, DeviceCodeFlow, printable_code
from birthmark.iam.model import MACHINE_USER
from birthmark.iam.password_policy_and_hashes import PasswordUnfitError
from birthmark.operator_api.cookie_request_guard import address_of, csrf_of
from birthmark.operator_api.html_page_elements import button, entry, form, hidden, link, page, paragraph, rows, see
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.operator_api.sign_in_handler_base import (
    NOT_THE_SAME,
    SignInHandlers,
    format_refusal,
    new_password,
    status_of,
)
from birthmark.untrusted_json_and_text import printable


@dataclass(frozen=True, slots=True)
class OwnPages:
    """Account pages of the signed-in user."""

    desk: SignInHandlers
    askings: DeviceCodeFlow

    def routes(self) -> list[Route]:
        """Return the routes of the pages."""
        route = self.desk.route
        return [
            route("/device", self.device),
            route("/device", self.show_command, "POST"),
            route("/device/decide", self.decide, "POST"),
            route("/password", self.password),
            route("/password", self.change_password, "POST"),
            route("/sessions/end", self.end_session, "POST"),
            route("/tokens/remove", self.revoke_token, "POST"),
            route("/signout", self.sign_out, "POST"),
            route("/signout/everywhere", self.sign_out_everywhere, "POST"),
        ]

    async def revoke_token(self, request: Request) -> Response:
        """Revoke one of the user's own access tokens."""
        given, caller = await self.desk.form_of(request)
        await self.desk.sign_in.people.remove_token(given.get("id", ""), of=caller.user, actor=caller.actor)
        return see("/me")

    async def end_session(self, request: Request) -> Response:
        """End one of the user's own sessions."""
        given, caller = await self.desk.form_of(request)
        await self.desk.sign_in.sessions.end(given.get("id", ""), of=caller.user or MACHINE_USER, actor=caller.actor)
        return see("/me")

    async def sign_out(self, request: Request) -> Response:
        """End the current session."""
        await self.desk.form_of(request)
        await self.desk.sign_in.sessions.sign_out(self.desk.gate.text(request), address_of(request))
        return self._left()

    async def sign_out_everywhere(self, request: Request) -> Response:
        """End all sessions of the user."""
        _, caller = await self.desk.form_of(request)
        await self.desk.sign_in.sessions.end_all(caller.user or MACHINE_USER, actor=caller.actor)
        return self._left()

    async def password(self, request: Request) -> Response:
        """Show the form for a new password."""
        return await self._ask_password(request, _require_user(self.desk.gate.signed_in(request)))

    async def change_password(self, request: Request) -> Response:
        """Change the password; this requires the current password and ends all sessions."""
        given, caller = await self.desk.form_of(request)
        _require_user(caller)
        new, current = given.get("password", ""), given.get("current", "")
        if new != given.get("again"):
            return await self._ask_password(request, caller, NOT_THE_SAME, 400)
        try:
            await self.desk.sign_in.set_password(str(caller.user), new, current, caller, address_of(request))
        except (PasswordUnfitError, UnauthenticatedError, ThrottledError) as error:
            self.desk.note(error, request)
            return await self._ask_password(request, caller, format_refusal(error), status_of(error))
        return self._left("changed")

    async def device(self, request: Request) -> Response:
        """Show the form for a command's device code."""
        _require_user(self.desk.gate.signed_in(request))
        return self._ask_code(request)

    async def show_command(self, request: Request) -> Response:
        """Show the machine that requests the sign-in."""
        given, caller = await self.desk.form_of(request)
        _require_user(caller)
        try:
            found = await self.askings.find(given.get("code", ""), caller)
        except (CodeUnknownError, ThrottledError) as error:
            self.desk.note(error, request)
            return self._ask_code(request, format_refusal(error), status_of(error))
        asks = f"A command requests to sign in as {caller.user}, with all permissions of this user."
        warned = (
            "Approve only if you started this sign-in yourself, just now. Otherwise, the sender of this code gets "
            "your access."
        )
        answers = (
            button("Approve sign-in", name="agree", value="yes"),
            button("Do not", name="agree", value="no", is_other=True),
        )
        seen = rows(
            [
                ("On the machine", escape(printable(found.label or "name unknown"))),
                ("From the address", escape(found.address)),
                ("Code", escape(printable_code(found.code))),
            ]
        )
        body = form("/device/decide", self._csrf(request), hidden("code", found.code), *answers)
        return page("Approve the sign-in of a command?", paragraph(asks), seen, paragraph(warned, "bad"), body)

    async def decide(self, request: Request) -> Response:
        """Approve or deny the sign-in."""
        given, caller = await self.desk.form_of(request)
        _require_user(caller)
        is_agreed = given.get("agree") == "yes"
        found = await self.askings.decide(given.get("code", ""), caller, is_agreed=is_agreed)
        name = printable(found.label or found.address)
        said = (
            f"The command at {name} is signed in and continues."
            if is_agreed
            else f"The sign-in of the command at {name} was denied."
        )
        return page("Let in" if is_agreed else "Sign-in denied", paragraph(said), link("/", "Continue"))

    def _ask_code(self, request: Request, message: str = "", status: int = 200) -> Response:
        code = entry("code", "The code that it shows", limit=64)
        body = form("/device", self._csrf(request), code, button("Show the request"))
        return page("Sign in a command on another machine", paragraph(message, "bad"), body, status=status)

    async def _ask_password(self, request: Request, caller: Caller, message: str = "", status: int = 200) -> Response:
        has_one = await self.desk.sign_in.has_password(str(caller.user))
        current = entry("current", "Current password", kind="password", fills="current-password") if has_one else ""
        body = form("/password", self._csrf(request), current, *new_password(), button("Change it"))
        note = paragraph("All your browser sessions end. Commands stay signed in.", "note")
        return page("Change your password", paragraph(message, "bad"), body, note, status=status)

    def _csrf(self, request: Request) -> str:
        return csrf_of(self.desk.gate.text(request))

    def _left(self, message: str = "out") -> Response:
        response = see(f"/signin?said={message}")
        self.desk.gate.drop(response, self.desk.gate.cookie)
        return response


def _require_user(caller: Caller) -> Caller:
    """Return the caller if it is a user. Raise `OperatorRequestError` for the local administrator."""
    if caller.user is None:
        raise OperatorRequestError(detail="the local administrator is not a user and has no password")
    return caller
