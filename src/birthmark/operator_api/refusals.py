"""Operator API of refusals, used by `birthmark why`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.clock_and_entropy import Clock
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.pki.certificates import parse_thumbprint
from birthmark.refusals import refusals_about
from birthmark.refusals.presented_certificates import Find
from birthmark.refusals.reason_counts import reasons
from birthmark.store import Database

MAX_BACK_S = 180 * 86_400


class RefusalsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The latest refusals: about one subject or all, of one code, before the refusal with an ID."""

    subject: str | None = None
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    before: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


class ReasonsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Period in seconds: at most half a year, because an equal earlier period is compared."""

    back_s: Annotated[int, msgspec.Meta(ge=3600, le=MAX_BACK_S)] = 86_400


def endpoints(database: Database, presented: Find, clock: Clock) -> Sequence[Endpoint]:
    """Return the routes of `birthmark why`, and of the certificates presented in refusals."""

    async def refusals(request: ApiRequest) -> Rows:
        query: RefusalsQuery = request.query
        found = await refusals_about(database, query.subject, query.limit, code=query.code, before=query.before)
        return Rows([refusal.as_json() for refusal in found])

    async def why(request: ApiRequest) -> Rows:
        found = await reasons(database, clock.now(), timedelta(seconds=request.query.back_s))
        return Rows([one.as_json() for one in found])

    async def certificate(request: ApiRequest) -> Any:
        return {"certificate": (await presented(parse_thumbprint(request["thumbprint"]))).pem()}

    at, look = "/refusals/certificates/{thumbprint}", Right.READ
    return [
        Endpoint("GET", "/refusals", look, "List the latest refusals.", refusals, query=RefusalsQuery),
        Endpoint("GET", "/refusals/reasons", look, "Count refusals by code.", why, query=ReasonsQuery),
        Endpoint("GET", at, look, "Return a certificate that a rejected client presented.", certificate),
    ]
