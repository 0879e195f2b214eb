"""Operator API of the server itself: its certificate, endpoints and settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from birthmark.auth.permission_statements import Right
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.hubs_cas_and_telemetry import ServedNames
from birthmark.pki.certificates import Certificate


class ServerIdentity(ServedNames, Protocol):
    """The server's certificate."""

    @property
    def leaf(self) -> Certificate:
        """The served certificate."""
        ...

    @property
    def certificate_error(self) -> str:
        """Error of the configured certificate if it is not served; otherwise empty."""
        ...


def endpoints(
    own: ServerIdentity, services: Callable[[], Mapping[str, Any]], settings: Callable[[], Sequence[Mapping[str, Any]]]
) -> Sequence[Endpoint]:
    """Return the routes used by `birthmark doctor`, and of the signed-in user.

    `services` and `settings` contain no secrets.
    """

    async def certificate(_asked: ApiRequest) -> Any:
        not_after = own.leaf.not_after.isoformat()
        return {"not_after": not_after, "hosts": list(own.hosts()), "trouble": own.certificate_error}

    async def reached(_asked: ApiRequest) -> Any:
        return services()

    async def in_force(_asked: ApiRequest) -> Rows:
        return Rows(settings())

    told = "List settings with value, default and description, without secrets."
    return [
        Endpoint("GET", "/server/settings", Right.READ, told, in_force),
        Endpoint("GET", "/server/certificate", Right.READ, "Return the server certificate.", certificate),
        Endpoint("GET", "/server/endpoints", None, "Return the endpoints of the services.", reached),
    ]
