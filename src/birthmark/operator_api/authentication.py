"""Authentication at the operator API by the request's token or by a browser session."""

import hmac

from starlette.requests import Request

from birthmark.auth.principals import MACHINE, Caller
from birthmark.iam.service import People, TokenRefusedError
from birthmark.operator_api.api_router import OperatorTokenError
from birthmark.operator_api.cookie_request_guard import SessionGuard

_BEARER = "Bearer "


class Authenticator:
    """Authenticates the caller: a user, or the local administrator if the data directory's token is accepted."""

    def __init__(self, people: People, gate: SessionGuard, token: str | None = None) -> None:
        """Create the authenticator; `token` is the token of the data directory."""
        self._people = people
        self._gate = gate
        self._token = token

    def __call__(self, request: Request) -> Caller:
        """Return the caller.

        Raise `OperatorTokenError`, `TokenRefusedError`, or the errors of `SessionGuard.caller`.
        """
        given = request.headers.get("authorization", "")
        if not given and self._gate.text(request):
            return self._gate.caller(request)
        if self._token is not None and hmac.compare_digest(given.encode(), f"{_BEARER}{self._token}".encode()):
            return MACHINE
        try:
            address = request.client.host if request.client else ""
            return self._people.caller(given.removeprefix(_BEARER), address)
        except TokenRefusedError as error:
            if self._token is None:
                raise
            raise OperatorTokenError from error
