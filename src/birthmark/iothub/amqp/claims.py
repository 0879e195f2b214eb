"""Claims of a connection: the tokens that it presented, and the hubs that they authorize it for.

A token is checked when it is presented, and again when a link needs it, so that a rotated key or a deleted hub ends it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import SKEW, parse_sas
from birthmark.errors import BirthmarkError, PolicyError, UnauthenticatedError
from birthmark.iothub.model import Hub
from birthmark.iothub.service.hubs_and_authorization import SERVICE, Hubs

MAX_CLAIMS = 100
EVENTS = "messages/events"


class NoClaimError(UnauthenticatedError):
    """No token of the connection authorizes the link."""

    code = "iothub.amqp_not_authorized"
    cause = "A client attached a link to {address} without a token of a service policy of hub {hub}."
    fix = "Use the Event Hubs-compatible connection string of the hub: `birthmark hub key service --hub {hub}`"
    address: str
    hub: str


class TooManyClaimsError(PolicyError):
    """The connection has too many tokens."""

    code = "iothub.too_many_tokens"
    cause = "A connection presented more than {limit} tokens."
    fix = "Use one token for each hub, or more connections. List hubs: `birthmark hub ls`"
    limit: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A token that was accepted, with the host name that it is for."""

    host: str
    token: str
    expires_at: datetime


class Claims:
    """Claims of one connection, by the audience that the client named."""

    def __init__(self, hubs: Hubs, address: str) -> None:
        self._hubs = hubs
        self._address = address
        self._by_audience: dict[str, Claim] = {}

    def __bool__(self) -> bool:
        return bool(self._by_audience)

    def add(self, audience: str, text: str) -> Hub:
        """Accept a token and return its hub. Raise `BirthmarkError`."""
        token = parse_sas(text)
        host = token.resource.partition("://")[2] or token.resource
        hub = self._hubs.by_host(host.partition("/")[0])
        self._authorize(hub, text)
        if len(self._by_audience) >= MAX_CLAIMS and audience not in self._by_audience:
            raise TooManyClaimsError(limit=MAX_CLAIMS)
        end = datetime.fromtimestamp(min(token.expiry_s, 253_402_300_799), UTC)
        self._by_audience[audience] = Claim(hub.host, text, end)
        return hub

    def check(self, hub: Hub, address: str, at: datetime) -> datetime:
        """Return until when a claim authorizes the connection to read from a hub. Raise `NoClaimError`."""
        for claim in self._by_audience.values():
            if claim.host == hub.host and claim.expires_at + SKEW > at:
                try:
                    self._authorize(hub, claim.token)
                except BirthmarkError:
                    continue
                return claim.expires_at + SKEW
        raise NoClaimError(address=address[:200], hub=hub.name)

    def hub(self) -> Hub | None:
        """Return the hub of the claims, None if there is none or if it was deleted."""
        return next((hub for one in self._by_audience.values() if (hub := self._hubs.find(one.host)) is not None), None)

    def _authorize(self, hub: Hub, text: str) -> None:
        resource = f"{hub.name}/consumergroups/$default/partitions/0"
        try:
            self._hubs.authorize(hub, text, SERVICE, resource, right=Right.READ, address=self._address)
        except UnauthenticatedError:
            self._hubs.authorize(hub, text, SERVICE, f"{EVENTS}/$management", right=Right.READ, address=self._address)
