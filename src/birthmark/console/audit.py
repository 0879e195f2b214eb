"""The operator interface of the audit chain, for databases that are no file of the data directory."""

from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.audit.heads import parse_head
from birthmark.audit.report import entries, report
from birthmark.audit.verify import verify_chain
from birthmark.console.routing import Asked, Endpoint, Role
from birthmark.store import Database


class AuditQuestion(msgspec.Struct):
    """Exported heads to compare with, and whether the rows are wanted too."""

    heads: list[str] = []
    rows: bool = False


def endpoints(database: Database, public_key: bytes) -> Sequence[Endpoint]:
    """Return the route of `birthmark audit`."""

    async def verify(asked: Asked) -> Any:
        body: AuditQuestion = asked.body
        exported = [parse_head(text.encode()) for text in body.heads]
        answer = report(await verify_chain(database, key=public_key, exported=exported))
        if body.rows:
            answer["entries"] = [entry async for entry in entries(database)]
        return answer

    return [Endpoint("POST", "/audit/verify", Role.VIEWER, "Verify the audit chain.", verify, AuditQuestion)]
