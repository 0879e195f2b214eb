"""The operator interface of the inventory: all issued certificates, page by page."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.ca.certificate_inventory_queries import CertificateQuery, Inventory
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.certificate_views import inventory_view, issuer_of
from birthmark.pki.certificates import parse_thumbprint

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class InventoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Certificate filter: valid and expiring within some seconds, expired, revoked or not, by profile or CA.

    Alternatively those that expire from one time on and before another.
    """

    expiring_s: Annotated[int, msgspec.Meta(ge=1, le=10**10)] | None = None
    expired: bool = False
    revoked: bool = False
    unrevoked: bool = False
    ends_from: Moment | None = None
    ends_to: Moment | None = None
    profile: str | None = None
    issuer: str | None = None
    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 250


_Name = Annotated[str, msgspec.Meta(max_length=256)]


class StandingQuestion(msgspec.Struct):
    """Device names and certificate thumbprints, of any issuer."""

    names: Annotated[list[_Name], msgspec.Meta(max_length=1000)] = []
    thumbprints: Annotated[list[_Name], msgspec.Meta(max_length=1000)] = []


def inventory_endpoints(authority: CertificateAuthority) -> Sequence[Endpoint]:
    """Return the route of `birthmark pki ls` with its filters."""
    inventory = Inventory(authority.database, authority.clock)

    async def listing(request: ApiRequest) -> Rows:
        query: InventoryQuery = request.query
        wanted = CertificateQuery(
            expiring=None if query.expiring_s is None else timedelta(seconds=query.expiring_s),
            is_expired=query.expired,
            is_revoked=query.revoked,
            profile=query.profile,
            issuer=None if query.issuer is None else issuer_of(authority, query.issuer),
            is_unrevoked=query.unrevoked,
            ends_from=query.ends_from,
            ends_to=query.ends_to,
        )
        page = await inventory.page(wanted, after=query.after, limit=query.limit)
        return Rows([inventory_view(one) for one in page.items], page.last)

    async def standing(request: ApiRequest) -> Any:
        body: StandingQuestion = request.body
        revocations = authority.revocations
        thumbprints = [one for one in body.thumbprints if await revocations.is_revoked(parse_thumbprint(one))]
        return {"names": [one for one in body.names if await revocations.is_lost(one)], "thumbprints": thumbprints}

    return [
        Endpoint("GET", "/inventory", Right.READ, "List issued certificates.", listing, query=InventoryQuery),
        Endpoint(
            "POST",
            "/inventory/standing",
            Right.READ,
            "Return which certificates are revoked.",
            standing,
            StandingQuestion,
        ),
    ]
