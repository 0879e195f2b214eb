"""Audit rows as `birthmark server audit export --rows` writes them."""

import json
from pathlib import Path

from birthmark.audit.chain_verification import verify_chains
from birthmark.audit.verification_report_json import entries, report
from birthmark.store import Database


async def exported(database: Database, key: bytes, to: Path) -> Path:
    """Write every row of the database, and the heads that confirm them."""
    verified = await verify_chains(database, key=key)
    rows = [json.dumps(row) async for row in entries(database, verified)]
    heads = [json.dumps(one["head"]) for one in report(verified)["chains"]]
    to.write_text("".join(f"{line}\n" for line in [*rows, *heads]))
    return to
