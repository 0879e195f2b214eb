"""The operator interface of refusals: what `birthmark why` asks."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint, Rows
from birthmark.pki.certificates import parse_thumbprint
from birthmark.refusals import refusals_about
from birthmark.refusals.presented import Presented
from birthmark.store import Database


class RefusalsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The latest refusals, about one subject or all."""

    subject: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


def endpoints(database: Database, presented: Presented) -> Sequence[Endpoint]:
    """Return the routes of `birthmark why`, and of what was shown in a refusal."""

    async def refusals(asked: Asked) -> Rows:
        found = await refusals_about(database, asked.query.subject, asked.query.limit)
        return Rows([refusal.as_json() for refusal in found])

    async def certificate(asked: Asked) -> Any:
        return {"certificate": presented.get(parse_thumbprint(asked["thumbprint"])).pem()}

    at, look = "/refusals/certificates/{thumbprint}", Right.READ
    return [
        Endpoint("GET", "/refusals", look, "The latest refusals.", refusals, query=RefusalsQuery),
        Endpoint("GET", at, look, "A certificate that was shown in one of the latest.", certificate),
    ]
