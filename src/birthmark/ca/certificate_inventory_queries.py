"""Paged inventory of issued certificates: by expiry, profile, issuer and revocation.

Each query is one index scan in order of expiry; a page starts after the last one's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, bindparam, select, tuple_

from birthmark.ca.model import IssuedCertificate
from birthmark.ca.store import INVENTORY, certificates
from birthmark.clock_and_entropy import Clock
from birthmark.pki.certificates import Thumbprint
from birthmark.store import Database, Statement, statement, to_micros
from birthmark.store.pagination import Page, PageInvalidError

_DIGITS = 18
_ENDLESS = 2**62
"""Upper bound of certificate expiry times in the database."""
_LAST = b"\xff" * 32
"""Highest possible thumbprint."""


@dataclass(frozen=True, slots=True)
class CertificateQuery:
    """Filter for certificates; all conditions must hold."""

    expiring: timedelta | None = None
    """Only certificates that are valid and expire within this time."""
    is_expired: bool = False
    is_revoked: bool = False
    profile: str | None = None
    issuer: Thumbprint | None = None
    is_unrevoked: bool = False
    """Not revoked, expired or not."""
    ends_from: datetime | None = None
    ends_to: datetime | None = None
    """Expiring at or after `ends_from`, and before `ends_to`."""

    def span(self, now: int) -> tuple[int, int]:
        """Return the expiry range in microseconds: exclusive start, inclusive end."""
        after, upto = [-1], [_ENDLESS]
        if self.expiring is not None:
            after.append(now)
            upto.append(now + self.expiring // timedelta(microseconds=1))
        elif self.is_expired:
            upto.append(now)
        after += [] if self.ends_from is None else [to_micros(self.ends_from) - 1]
        upto += [] if self.ends_to is None else [to_micros(self.ends_to) - 1]
        return max(after), min(upto)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Certificates of a database, including those of its own CAs and servers."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def page(
        self, query: CertificateQuery, *, after: str | None = None, limit: int = 250
    ) -> Page[IssuedCertificate]:
        """Return the certificates that expire first, or that follow `after`. Raise `PageInvalidError`."""
        begin, upto = query.span(self.clock.micros())
        asked: dict[str, Any] = {"limit": limit + 1, "upto": upto}
        asked["after_end"], asked["after"] = _parsed(after) if after else (begin, _LAST)
        if query.profile is not None:
            asked["profile"] = query.profile
        if query.issuer is not None:
            asked["issuer"] = query.issuer
        rows = await self.database.all(statement_for(query), **asked)
        found = [INVENTORY.of(row) for row in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(found, None if last is None else f"{last['not_after']}.{last['thumbprint'].hex()}")

    async def every(self, query: CertificateQuery) -> Sequence[IssuedCertificate]:
        """Return all matching certificates; intended for small results."""
        found: list[IssuedCertificate] = []
        page = await self.page(query)
        found += page.items
        while page.last is not None:
            page = await self.page(query, after=page.last)
            found += page.items
        return found


def statement_for(query: CertificateQuery) -> Statement:
    """Return the SQL statement for a query."""
    revoked: bool | None = True if query.is_revoked else None
    if revoked is None and (query.is_unrevoked or query.expiring is not None):
        revoked = False
    return _STATEMENTS[revoked, query.profile is not None, query.issuer is not None]


def _statement(revoked: bool | None, by_profile: bool, by_issuer: bool) -> Statement:  # noqa: FBT001 - its storage key
    columns = certificates.c
    place = tuple_(columns.not_after, columns.thumbprint)
    begin = tuple_(bindparam("after_end", type_=BigInteger), bindparam("after", type_=LargeBinary))
    question = select(certificates).where(place > begin, columns.not_after <= bindparam("upto"))
    if revoked is not None:
        question = question.where(columns.revoked_at.is_not(None) if revoked else columns.revoked_at.is_(None))
    if by_profile:
        question = question.where(columns.profile == bindparam("profile"))
    if by_issuer:
        question = question.where(columns.issuer == bindparam("issuer"))
    return statement(question.order_by(columns.not_after, columns.thumbprint).limit(bindparam("limit")))


_STATEMENTS = {kind: _statement(*kind) for kind in product((None, True, False), (False, True), (False, True))}
"""One statement per combination of filters, so that all are compiled ahead."""


def _parsed(after: str) -> tuple[int, bytes]:
    end, _, thumbprint = after.partition(".")
    try:
        place = int(end[:_DIGITS]), bytes.fromhex(thumbprint)
    except ValueError as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
    return place
