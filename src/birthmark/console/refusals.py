"""The operator interface of refusals: what `birthmark why` asks."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from birthmark.console.routing import Asked, Endpoint, Role, Rows
from birthmark.refusals import refusals_about
from birthmark.store import Database


class RefusalsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The latest refusals, about one subject or all."""

    subject: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20


def endpoints(database: Database) -> Sequence[Endpoint]:
    """Return the route of `birthmark why`."""

    async def refusals(asked: Asked) -> Rows:
        found = await refusals_about(database, asked.query.subject, asked.query.limit)
        return Rows([refusal.as_json() for refusal in found])

    return [Endpoint("GET", "/refusals", Role.VIEWER, "The latest refusals.", refusals, query=RefusalsQuery)]
