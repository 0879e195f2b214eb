"""Device authentication over HTTPS without access keys: TLS client certificate or custom authorizer."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from starlette.requests import Request

from birthmark.awsiot.rules.custom_authorizers import NAME, AuthorizerRequest
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.clock_and_entropy import Clock
from birthmark.net.tls import TlsPeer

_MOST_CACHED = 1024
_CHANGING = frozenset({"content-length", "content-type"})


class HttpDevices:
    """Authenticates device requests one by one.

    The result of a function is cached per connection if its authorizer has `enableCachingForHttp`.
    """

    def __init__(self, aws: AwsIot, clock: Clock) -> None:
        self._aws = aws
        self._clock = clock
        self._cached: OrderedDict[bytes, tuple[TlsPeer, ConnectionGrant, float]] = OrderedDict()

    async def admit(self, request: Request, query: str) -> ConnectionGrant:
        """Return the permissions of the caller. Raise why it is refused."""
        peer: TlsPeer = request.scope["extensions"]["tls"]
        address = request.client.host if request.client else ""
        visitor = ConnectionContext(peer.leaf, None, address, peer.sni, chain=peer.chain)
        headers = {name.lower(): value for name, value in request.headers.items()}
        presented = AuthorizerRequest(
            "over HTTPS", address, peer.sni, headers=headers, query=query, is_mqtt=False, asks=False
        )
        if peer.leaf is not None and presented.value(NAME) is None:
            return await self._aws.devices.admit(visitor)
        key = _key(peer, headers, query)
        if (known := self._cached.get(key)) is not None and known[0] is peer and known[2] > self._clock.monotonic():
            authorized = known[1].authorized
            assert authorized is not None  # noqa: S101 - no others are kept
            await self._aws.authorizers.check_stands(authorized.authorizer, "over HTTPS")
            return known[1]
        grant = await self._aws.authorizers.authorize(presented, visitor)
        self._keep(key, peer, grant)
        return grant

    def _keep(self, key: bytes, peer: TlsPeer, grant: ConnectionGrant) -> None:
        authorized = grant.authorized
        if authorized is None or not authorized.caches_http:
            return
        self._cached[key] = peer, grant, self._clock.monotonic() + authorized.verdict.refresh_s
        self._cached.move_to_end(key)
        while len(self._cached) > _MOST_CACHED:
            self._cached.popitem(last=False)


def _key(peer: TlsPeer, headers: Mapping[str, str], query: str) -> bytes:
    """Return the cache key of the presented credentials and the connection."""
    said = sorted((name, value) for name, value in headers.items() if name not in _CHANGING)
    return hashlib.sha256(repr((id(peer), said, query)).encode()).digest()
