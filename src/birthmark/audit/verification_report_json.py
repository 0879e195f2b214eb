"""JSON views of verified audit chains."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from birthmark.audit.chain_verification import ROWS, VerifiedChain
from birthmark.net.fair_scheduler import yield_turn
from birthmark.store import from_micros
from birthmark.store.database import DatabaseReader
from birthmark.store.database_lock import MAIN

_PAGE = 1000


def report(verified: Sequence[VerifiedChain]) -> dict[str, Any]:
    """Return the stable JSON form: all rows, the head of the chain with only server rows, and each chain."""
    chains = [
        {"chain": one.chain, "rows": one.rows - one.left_out, "head": one.head and one.head.as_json()}
        for one in verified
    ]
    main = next((one for one in chains if one["chain"] == MAIN), chains[0])
    return {"rows": sum(one.rows - one.left_out for one in verified), "head": main["head"], "chains": chains}


async def entries(database: DatabaseReader, verified: Sequence[VerifiedChain]) -> AsyncIterator[dict[str, Any]]:
    """Yield every verified row, chain by chain, oldest first."""
    for one in verified:
        seq = 0
        while seq < one.rows:
            for row in await database.all(ROWS, chain=one.chain, after=seq, limit=min(_PAGE, one.rows - seq)):
                seq = row["seq"]
                await yield_turn()
                yield {
                    "chain": one.chain,
                    "seq": seq,
                    "at": from_micros(row["at"]).isoformat(),
                    "actor": row["actor"],
                    "action": row["action"],
                    "subject": row["subject"],
                    "detail": json.loads(row["detail"]),
                    "digest": bytes(row["digest"]).hex(),
                }
