"""The operator interface of the audit chain, for databases that are no file of the data directory."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from birthmark.audit import parse_head, verify_chain
from birthmark.audit.report import entries, report
from birthmark.console.api import answering, body_of
from birthmark.store import Database


class _Wanted(msgspec.Struct):
    heads: list[str] = []
    rows: bool = False


def audit_routes(database: Database, public_key: bytes) -> list[Route]:
    """Return the route of `birthmark audit`."""

    async def verify(request: Request) -> Any:
        asked = await body_of(request, _Wanted)
        exported = [parse_head(text.encode()) for text in asked.heads]
        answer = report(await verify_chain(database, key=public_key, exported=exported))
        if asked.rows:
            answer["entries"] = [entry async for entry in entries(database)]
        return answer

    return [Route("/audit/verify", answering(verify), methods=["POST"])]
