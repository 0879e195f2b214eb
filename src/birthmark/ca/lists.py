"""Revocation lists: one of each CA, made anew at once after a revocation and when half of its life is over.

Which revocations a list has is counted on both sides, by whoever revokes and by whoever makes the list, so that what is
revoked while a list is made is on the next one; and a list is kept only in the place of the one it was made after, so
that of two processes that make one at once both hand out the same, and numbers only grow.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from birthmark.ca import store
from birthmark.ca.hierarchy import Hierarchy
from birthmark.clock import Clock
from birthmark.errors import ChangedMeanwhileError
from birthmark.pki.crl import Revocation, RevocationReason, build_crl
from birthmark.pki.issue import Issuer
from birthmark.store import Changes, Database, decided_again, from_micros, to_micros
from birthmark.store.database import Row

CRL_LIFETIME = timedelta(days=7)
ROOT_CRL_LIFETIME = timedelta(days=90)
"""Of a root, whose key may be in a safe; it revokes CAs alone."""
# An entry stays on one list after its certificate expired (RFC 5280 section 3.3).
_LINGER = CRL_LIFETIME
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list, and when it was made and ends."""

    der: bytes = field(repr=False)
    number: int
    made_at: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists of the CAs of a hierarchy, as its database has them."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def named(self, name: str) -> RevocationList | None:
        """Return the list of a CA, by its purpose or key identifier; of a root that is away, what was installed."""
        certificate = self.hierarchy.named(name)
        issuer = None if certificate is None else self.hierarchy.with_key(certificate)
        if issuer is not None:
            return await self.of(issuer)
        der = self.hierarchy.keeper.root_list() if certificate is not None else None
        return None if der is None else _read(der)

    async def of(self, issuer: Issuer) -> RevocationList:
        """Return the list that holds now."""
        return await decided_again(lambda: self._attempt(issuer), attempts=_ATTEMPTS)

    async def _attempt(self, issuer: Issuer) -> RevocationList:
        name, now = issuer.certificate.thumbprint, self.clock.now()
        last = await self.database.one(store.CRL, issuer=name)
        if last is None:
            nothing: dict[str, Any] = {
                "number": 0,
                "made_at": 0,
                "next_update": 0,
                "der": b"",
                "revocations": 0,
                "covers": 0,
            }
            await self.database.commit(Changes().run(store.BEGIN_CRL, issuer=name, **nothing))
            raise ChangedMeanwhileError(what="The revocation list")
        if not _is_stale(last, now):
            return RevocationList(
                last["der"], last["number"], from_micros(last["made_at"]), from_micros(last["next_update"])
            )
        # Read after the count: what comes between is on this list, and makes it stale all the same.
        rows = await self.database.all(store.REVOKED, issuer=name, after=to_micros(now - _LINGER))
        revocations = [revocation_of(int(row["serial"], 16), row) for row in rows]
        lifetime = ROOT_CRL_LIFETIME if issuer.certificate.is_self_signed else CRL_LIFETIME
        number, end = last["number"] + 1, now + lifetime
        der = build_crl(issuer, revocations, number=number, now=now, lifetime=lifetime)
        facts = {"made_at": to_micros(now), "next_update": to_micros(end), "der": der, "covers": last["revocations"]}
        keep = Changes().run(
            store.SAVE_CRL,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The revocation list"),
            key_issuer=name,
            key_number=last["number"],
            number=number,
            **facts,
        )
        await self.database.commit(keep)
        return RevocationList(der, number, now, end)


def _read(der: bytes) -> RevocationList:
    parsed = x509.load_der_x509_crl(der)
    number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return RevocationList(der, number, parsed.last_update_utc, parsed.next_update_utc or parsed.last_update_utc)


def revocation_of(serial: int, row: Row) -> Revocation:
    """Return what a row of the inventory says of a certificate that was revoked."""
    return Revocation(serial, from_micros(row["revoked_at"]), RevocationReason(row["revocation_reason"]))


def _is_stale(last: Row, now: datetime) -> bool:
    half = last["made_at"] + (last["next_update"] - last["made_at"]) // 2
    return bool(to_micros(now) >= half or last["revocations"] != last["covers"])
