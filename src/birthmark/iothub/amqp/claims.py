"""Claims of a connection: the tokens that it presented, and what they authorize it for.

A token is checked when it is presented, and again when a link needs it, so that a rotated key or a deleted hub ends it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import PREFIX, SKEW, SasSignatureError, SasToken, parse_sas
from birthmark.errors import BirthmarkError, PolicyError, UnauthenticatedError
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.authentication import PolicyKeyError
from birthmark.iothub.service.hubs_and_authorization import SERVICE, Hubs

MAX_CLAIMS = 100
MAX_AUDIENCE_CHARS = 512
_LAST_S = 253_402_300_799


class NoClaimError(UnauthenticatedError):
    """No token of the connection authorizes the link."""

    code = "iothub.amqp_not_authorized"
    cause = "A client used {resource} of hub {hub} without a valid token of a service policy."
    fix = (
        "Use a connection string of the policy service or iothubowner. To print the hub's connection strings: "
        "`birthmark hub key {hub} --policy service`"
    )
    hub: str
    resource: str


class TooManyClaimsError(PolicyError):
    """The connection has too many tokens."""

    code = "iothub.too_many_tokens"
    cause = "A connection presented tokens for more than {limit} audiences."
    fix = "Use one token for each hub, or more connections. List hubs: `birthmark hub ls`"
    limit: int


class TokenTypeError(UnauthenticatedError):
    """The token is not a shared access signature."""

    code = "iothub.amqp_token_type"
    message = "A token of type {type} is not a shared access signature"
    cause = (
        "A client presented a token of type {type} over AMQP, such as one of Microsoft Entra ID. This server accepts "
        "shared access signatures over AMQP."
    )
    fix = (
        "Connect with a connection string instead of a credential of azure-identity. To print it: `birthmark hub key "
        "--policy service`"
    )
    type: str


def parse_token(text: str, kind: str) -> SasToken:
    """Return the token of a request to `$cbs`. Raise `TokenTypeError`, `SasMalformedError`."""
    if not text.startswith(PREFIX):
        raise TokenTypeError(type=kind[:50] or "unknown")
    return parse_sas(text)


@dataclass(frozen=True, slots=True)
class CbsClaim:
    """A token that was accepted, with the host name of its hub and the path that it covers."""

    host: str
    path: tuple[str, ...]
    token: str
    expires_at: datetime

    def covers(self, hub: Hub, resource: str, at: datetime) -> bool:
        """Return whether the claim may be for a resource, before its signature is verified again."""
        if self.host != hub.host or self.expires_at + SKEW <= at:
            return False
        return tuple(resource.lower().split("/"))[: len(self.path)] == self.path


class CbsClaims:
    """Claims of one connection, by the audience that the client named."""

    def __init__(self, hubs: Hubs, address: str) -> None:
        self._hubs = hubs
        self._address = address
        self._by_audience: dict[str, CbsClaim] = {}

    def add(self, audience: str, text: str, token: SasToken) -> Hub:
        """Accept a token and return its hub. Raise `BirthmarkError`."""
        host, _, path = (token.resource.partition("://")[2] or token.resource).partition("/")
        hub = self._hubs.by_host(host)
        try:
            self._hubs.authorize(hub, text, SERVICE, path, right=Right.READ, address=self._address)
        except (SasSignatureError, PolicyKeyError) as error:  # `birthmark env` prints the strings of one hub
            error.add_facts(command=f"birthmark hub key {hub.name} --policy service")
            raise
        audience = audience[:MAX_AUDIENCE_CHARS]
        if len(self._by_audience) >= MAX_CLAIMS and audience not in self._by_audience:
            raise TooManyClaimsError(limit=MAX_CLAIMS)
        expires_at = datetime.fromtimestamp(min(token.expiry_s, _LAST_S), UTC)
        parts = tuple(path.rstrip("/").split("/")) if path.strip("/") else ()
        self._by_audience[audience] = CbsClaim(hub.host, parts, text, expires_at)
        return hub

    def authorize(self, hub: Hub, resource: str, right: Right, at: datetime) -> str:
        """Return the policy or user that may use a resource of a hub. Raise `NoClaimError`, `RightMissingError`."""
        self._hubs.check_is_there(hub)
        hub = self._hubs.by_host(hub.host)  # with its present keys
        refused: BirthmarkError = NoClaimError(hub=hub.name, resource=resource[:200])
        for claim in self._by_audience.values():
            if claim.covers(hub, resource, at):
                try:
                    return self._hubs.authorize(hub, claim.token, SERVICE, resource, right=right, address=self._address)
                except UnauthenticatedError:
                    continue  # of another link
                except BirthmarkError as error:
                    refused = error
        raise refused

    def hub(self, at: datetime) -> Hub | None:
        """Return the hub of the claims, None if none is valid or if it was deleted."""
        valid = (one for one in self._by_audience.values() if one.expires_at + SKEW > at)
        return next((hub for one in valid if (hub := self._hubs.find(one.host)) is not None), None)

    def __bool__(self) -> bool:
        return bool(self._by_audience)
