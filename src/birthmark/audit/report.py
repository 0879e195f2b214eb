"""A verified chain as programs read it."""

import json
from collections.abc import AsyncIterator
from typing import Any

from birthmark.audit.verify import ROWS, Verified
from birthmark.store import from_micros
from birthmark.store.database import Reader

_PAGE = 1000


def report(verified: Verified) -> dict[str, Any]:
    """Return the stable JSON form."""
    return {"rows": verified.rows, "head": None if verified.head is None else verified.head.as_json()}


async def entries(database: Reader, chain: str = "main") -> AsyncIterator[dict[str, Any]]:
    """Yield every row, oldest first."""
    seq = 0
    while rows := await database.all(ROWS, chain=chain, after=seq, limit=_PAGE):
        for row in rows:
            seq = row["seq"]
            yield {
                "seq": seq,
                "at": from_micros(row["at"]).isoformat(),
                "actor": row["actor"],
                "action": row["action"],
                "subject": row["subject"],
                "detail": json.loads(row["detail"]),
                "digest": bytes(row["digest"]).hex(),
            }
