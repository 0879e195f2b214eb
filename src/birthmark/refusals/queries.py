"""Queries of recorded refusals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from birthmark.refusals import store
from birthmark.refusals.store import Refusal
from birthmark.store.database import DatabaseReader
from birthmark.store.pagination import PageInvalidError

_END = 2**62
"""Upper bound of all times."""


async def refusals_about(
    database: DatabaseReader,
    subject: str | None,
    limit: int = 20,
    *,
    code: str | None = None,
    before: str | None = None,
) -> Sequence[Refusal]:
    """Return the latest refusals of `subject` (case-insensitive), or of all if it is None.

    Optionally of one `code`, or those before the refusal with ID `before`. Raise `PageInvalidError`.
    """
    asked: dict[str, Any] = {"limit": limit, "before": before or "", "before_at": _END}
    if before is not None:
        if not (known := await database.all(store.AT, id=before)):
            raise PageInvalidError(detail="no refusal with that ID is stored")
        asked["before_at"] = known[0]["at"]
    if code is not None:
        asked["code"] = code
    if subject is None:
        rows = await database.all(store.LATEST if code is None else store.OF_CODE, **asked)
    else:
        about = store.ABOUT if code is None else store.ABOUT_OF_CODE
        rows = await database.all(about, subject=subject.strip().lower(), **asked)
    return [replace(store.REFUSALS.of(row), address=store.address_of(row["address"])) for row in rows]
