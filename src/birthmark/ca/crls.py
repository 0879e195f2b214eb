"""Certificate revocation lists: one per CA, renewed after each revocation and at half of its lifetime.

A CRL that starts in the future is renewed as well, because the clock was ahead.

Revocations are counted on both sides, by the revoking and by the issuing process. A certificate that is revoked during
CRL generation is therefore in the next CRL. A CRL is stored only if it replaces the one it was generated after. Two
concurrent processes therefore return the same CRL, and CRL numbers only increase.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from birthmark.ca import store
from birthmark.ca.hierarchy import Hierarchy
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ChangedMeanwhileError
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl_encoder import Revocation, RevocationReason, build_crl_of, entries_of
from birthmark.pki.issuance import LeafIssuer
from birthmark.store import Changes, Database, from_micros, retry_on_conflict, to_micros
from birthmark.store.database import Row

CRL_LIFETIME = timedelta(days=7)
ROOT_CRL_LIFETIME = timedelta(days=90)
"""CRL lifetime of a root, whose key may be offline; it revokes only CAs."""
# An entry stays on one list after its certificate expires (RFC 5280 section 3.3).
_LINGER = CRL_LIFETIME
_ATTEMPTS = 5
_PAGE = 5000
_NOTHING: dict[str, Any] = {"number": 0, "made_at": 0, "next_update": 0, "der": b"", "revocations": 0, "covers": 0}


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A CRL with its start and end."""

    der: bytes = field(repr=False)
    number: int
    made_at: datetime
    next_update: datetime


@dataclass(slots=True)
class RevocationLists:
    """CRLs of the CAs of a hierarchy, from the database."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    _last: dict[Thumbprint, RevocationList] = field(default_factory=dict, init=False, repr=False)
    _turns: dict[Thumbprint, asyncio.Lock] = field(default_factory=dict, init=False, repr=False)

    async def named(self, name: str) -> RevocationList | None:
        """Return the CRL of a CA by purpose or key identifier; for an offline root, the installed CRL."""
        certificate = self.hierarchy.named(name)
        issuer = None if certificate is None else self.hierarchy.with_key(certificate)
        if issuer is not None:
            return await self.of(issuer)
        der = self.hierarchy.keeper.root_list() if certificate is not None else None
        return None if der is None else _read(der)

    async def of(self, issuer: LeafIssuer) -> RevocationList:
        """Return the current CRL; concurrent callers share one generation."""
        async with self._turns.setdefault(issuer.certificate.thumbprint, asyncio.Lock()):
            return await retry_on_conflict(lambda: self._attempt(issuer), attempts=_ATTEMPTS)

    async def _attempt(self, issuer: LeafIssuer) -> RevocationList:
        name, now = issuer.certificate.thumbprint, self.clock.now()
        last = await self.database.one(store.CRL_STATE, issuer=name)
        if last is None:
            await self.database.commit(Changes().run(store.BEGIN_CRL, issuer=name, **_NOTHING))
            raise ChangedMeanwhileError(what="The CRL")
        if not _is_stale(last, now):
            return await self._kept(name, last["number"])
        # Read after the count: a revocation in between is on this list, and still makes it stale.
        entries = await self._entries(name, to_micros(now - _LINGER))
        lifetime = ROOT_CRL_LIFETIME if issuer.certificate.is_self_signed else CRL_LIFETIME
        number, end = last["number"] + 1, now + lifetime
        der = await asyncio.to_thread(build_crl_of, issuer, entries, number=number, now=now, lifetime=lifetime)
        facts = {"made_at": to_micros(now), "next_update": to_micros(end), "der": der, "covers": last["revocations"]}
        keep = Changes().run(
            store.SAVE_CRL,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The CRL"),
            key_issuer=name,
            key_number=last["number"],
            number=number,
            **facts,
        )
        await self.database.commit(keep)
        made = self._last[name] = RevocationList(der, number, now, end)
        return made

    async def _kept(self, name: Thumbprint, number: int) -> RevocationList:
        """Return the stored CRL with this number, read once, because a long CRL has several megabytes."""
        known = self._last.get(name)
        if known is None or known.number != number:
            row = await self.database.one(store.CRL, issuer=name)
            if row is None or row["number"] != number:
                raise ChangedMeanwhileError(what="The CRL")
            made_at, next_update = from_micros(row["made_at"]), from_micros(row["next_update"])
            known = self._last[name] = RevocationList(bytes(row["der"]), number, made_at, next_update)
        return known

    async def _entries(self, name: Thumbprint, after: int) -> bytes:
        """Return the encoded entries of an issuer's revocations.

        They are read page by page, so that the event loop is not blocked.
        """
        made, at, serial = [], 0, ""
        while rows := await self.database.all(
            store.REVOKED, issuer=name, after=after, at=at, serial=serial, limit=_PAGE
        ):
            page = [(row["serial"], row["revoked_at"], row["revocation_reason"]) for row in rows]
            made.append(await asyncio.to_thread(entries_of, page))
            serial, at, _ = page[-1]
        return b"".join(made)


def _read(der: bytes) -> RevocationList:
    parsed = x509.load_der_x509_crl(der)
    number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return RevocationList(der, number, parsed.last_update_utc, parsed.next_update_utc or parsed.last_update_utc)


def revocation_of(serial: int, row: Row) -> Revocation:
    """Return the revocation in an inventory row."""
    return Revocation(serial, from_micros(row["revoked_at"]), RevocationReason(row["revocation_reason"]))


def _is_stale(last: Row, now: datetime) -> bool:
    half = last["made_at"] + (last["next_update"] - last["made_at"]) // 2
    is_current = last["made_at"] <= to_micros(now) < half
    return bool(not is_current or last["revocations"] != last["covers"])
