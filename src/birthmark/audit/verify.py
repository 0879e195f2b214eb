"""Recompute the chain and name the first row that does not fit."""

from sqlalchemy import bindparam, select

from birthmark.errors import ConflictError
from birthmark.store import AuditRow, Database, statement
from birthmark.store.chain import GENESIS, link
from birthmark.store.schema import audit

_PAGE = 1000
_ROWS = statement(
    select(audit)
    .where(audit.c.chain == bindparam("chain"), audit.c.seq > bindparam("after"))
    .order_by(audit.c.seq)
    .limit(bindparam("limit"))
)


class AuditBrokenError(ConflictError):
    """A row was changed, dropped or put in."""

    code = "audit.chain_broken"
    cause = "Audit row {seq} of chain {chain} does not follow from the one before it."
    fix = "Compare with a backup from before: this database was edited outside Birthmark."


async def verify_chain(database: Database, chain: str = "main") -> int:
    """Return how many rows were checked. Raise `AuditBrokenError` naming the first bad one."""
    seq, digest = 0, GENESIS
    while rows := await database.all(_ROWS, chain=chain, after=seq, limit=_PAGE):
        for row in rows:
            written = AuditRow(row["actor"], row["action"], row["subject"], row["detail"])
            digest = link(digest, chain, seq + 1, row["at"], written)
            if row["seq"] != seq + 1 or row["digest"] != digest:
                raise AuditBrokenError("The audit chain is broken", seq=row["seq"], chain=chain)
            seq += 1
    return seq
