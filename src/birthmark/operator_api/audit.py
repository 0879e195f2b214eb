"""Operator API of the audit chains, for databases outside the data directory."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.audit.chain_verification import verify_chains
from birthmark.audit.queries import AuditQuery, latest
from birthmark.audit.signed_heads import parse_heads
from birthmark.audit.verification_report_json import entries, report
from birthmark.auth.permission_statements import Right
from birthmark.clock_and_entropy import Clock
from birthmark.net.fair_scheduler import begin_task
from birthmark.operator_api.api_router import SIGN_OF_LIFE_S, ApiRequest, Endpoint, LineStream, Rows
from birthmark.store import Database

_PAGE = 200
"""Rows per line of the response: few, because others wait while it is written."""


class AuditQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Exported heads to compare with the chains."""

    heads: list[str] = []


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class LatestQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The latest rows, or the rows before a position: the `next` of the previous page."""

    actor: _Text | None = None
    subject: _Text | None = None
    action: _Text | None = None
    people: bool = False
    back_s: Annotated[int, msgspec.Meta(ge=1, le=10**10)] | None = None
    before: Annotated[str, msgspec.Meta(max_length=512)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=250)] = 100


def endpoints(database: Database, public_key: bytes, clock: Clock) -> Sequence[Endpoint]:
    """Return the routes of `birthmark server audit`."""

    async def verify(request: ApiRequest) -> Any:
        body: AuditQuestion = request.body
        exported = [head for text in body.heads for head in parse_heads(text.encode())]
        return report(await verify_chains(database, key=public_key, exported=exported))

    async def rows(_asked: ApiRequest) -> Any:
        return LineStream(_pages(database, public_key))

    async def newest(request: ApiRequest) -> Rows:
        query: LatestQuery = request.query
        since = None if query.back_s is None else clock.now() - timedelta(seconds=query.back_s)
        wanted = AuditQuery(query.actor, query.subject, query.action, query.people, since)
        page = await latest(database, wanted, before=query.before, limit=query.limit)
        return Rows(page.items, page.last)

    told = "List audit rows, newest first, without verification. An action that ends with a dot is a prefix."
    return [
        Endpoint("GET", "/audit/latest", Right.READ, told, newest, query=LatestQuery),
        Endpoint("POST", "/audit/verify", Right.READ, "Verify the audit chains.", verify, AuditQuestion),
        Endpoint("GET", "/audit/rows", Right.READ, "Verify the audit chains and return every row.", rows),
    ]


async def _pages(database: Database, public_key: bytes) -> AsyncIterator[Mapping[str, Any]]:
    """Yield pages of rows, the last with the verification result; empty pages before serve as keep-alive messages."""
    verifying = begin_task(verify_chains(database, key=public_key))
    try:
        while not (await asyncio.wait([verifying], timeout=SIGN_OF_LIFE_S))[0]:
            yield {"entries": []}
        verified = await verifying
    finally:
        verifying.cancel()
    page: list[Mapping[str, Any]] = []
    async for entry in entries(database, verified):
        page.append(entry)
        if len(page) == _PAGE:
            yield {"entries": page}
            page = []
    yield {"entries": page, **report(verified)}
