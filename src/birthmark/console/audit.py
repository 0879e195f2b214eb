"""The operator interface of the audit chains, for databases that are no file of the data directory."""

from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.audit.heads import parse_heads
from birthmark.audit.report import entries, report
from birthmark.audit.verify import verify_chains
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
        exported = [head for text in body.heads for head in parse_heads(text.encode())]
        verified = await verify_chains(database, key=public_key, exported=exported)
        answer = report(verified)
        if body.rows:
            answer["entries"] = [entry async for entry in entries(database, verified)]
        return answer

    return [Endpoint("POST", "/audit/verify", Role.VIEWER, "Verify the audit chains.", verify, AuditQuestion)]
