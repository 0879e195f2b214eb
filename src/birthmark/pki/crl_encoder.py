"""Certificate revocation lists (RFC 5280 section 5) of this CA; foreign CRLs are not parsed here.

The library's builder copies its list for each added entry. This module encodes entries directly from their shared
parts: a million per second.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from cryptography import x509

from birthmark.pki.der import (
    BIT_STRING,
    ENUMERATED,
    EXPLICIT_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    positive,
    time,
    wrap,
)
from birthmark.pki.issuance import LeafIssuer, algorithm_of, authority_key_id, signature_of

_VERSION_2 = positive(1)
_REASON, _NUMBER, _AUTHORITY_KEY = (wrap(OID, bytes((0x55, 0x1D, last))) for last in (21, 20, 35))  # id-ce
_NEGATIVE = 0x80
_MICROS, _DAY_S, _HOUR_S, _MINUTE_S = 1_000_000, 86_400, 3600, 60
_SHORT = 128
_SIZED, _ENTRY = ([bytes((tag, size)) for size in range(_SHORT)] for tag in (INTEGER, SEQUENCE))


class RevocationReason(Enum):
    """Revocation reason; the names of RFC 5280 section 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


_CODES = {
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.CA_COMPROMISE: 2,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}
Revoked: TypeAlias = tuple[str, int, str]
"""A revocation in the database: hexadecimal serial number, time in microseconds, and reason."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One revoked certificate."""

    serial: int
    revoked_at: datetime
    reason: RevocationReason = RevocationReason.UNSPECIFIED


def build_crl(
    issuer: LeafIssuer, revocations: Iterable[Revocation], *, number: int, now: datetime, lifetime: timedelta
) -> bytes:
    """Return the CRL in DER. `number` must increase with each CRL of this issuer."""
    rows = [(f"{one.serial:x}", int(one.revoked_at.timestamp()) * _MICROS, one.reason.value) for one in revocations]
    return build_crl_of(issuer, entries_of(rows), number=number, now=now, lifetime=lifetime)


def entries_of(rows: Iterable[Revoked]) -> bytes:
    """Encode CRL entries; for many rows at a time, in a separate thread."""
    days: dict[int, bytes] = {}
    reasons = {reason.value: _reason(reason) for reason in RevocationReason}
    made: list[bytes] = []
    add, from_hex, clock = made.append, bytes.fromhex, _clock()
    for serial, at, reason in rows:
        number = from_hex(serial if len(serial) % 2 == 0 else f"0{serial}")
        if number[0] >= _NEGATIVE:
            number = b"\0" + number
        day, second = divmod(at // _MICROS, _DAY_S)
        if (date := days.get(day)) is None:
            date = days[day] = time(datetime.fromtimestamp(day * _DAY_S, UTC))[: -len("000000Z")]
        content = _SIZED[len(number)] + number + date + clock[second] + reasons[reason]
        add(_ENTRY[len(content)] + content)  # at most 21 bytes of number and 29 of rest: all lengths are short
    return b"".join(made)


def build_crl_of(issuer: LeafIssuer, entries: bytes, *, number: int, now: datetime, lifetime: timedelta) -> bytes:
    """Return the DER CRL with these entries."""
    this_update = now.astimezone(UTC).replace(microsecond=0)
    extensions = wrap(
        SEQUENCE,
        wrap(SEQUENCE, _AUTHORITY_KEY, wrap(OCTET_STRING, authority_key_id(issuer).public_bytes())),
        wrap(SEQUENCE, _NUMBER, wrap(OCTET_STRING, x509.CRLNumber(number).public_bytes())),
    )
    algorithm = algorithm_of(issuer.private_key)
    signed = wrap(
        SEQUENCE,
        _VERSION_2,
        algorithm,
        issuer.certificate.subject_der,
        time(this_update),
        time(this_update + lifetime),
        wrap(SEQUENCE, entries) if entries else b"",  # section 5.1.2.6: absent if nothing is revoked
        wrap(EXPLICIT_0, extensions),
    )
    return wrap(SEQUENCE, signed, algorithm, wrap(BIT_STRING, b"\0", signature_of(issuer.private_key, signed)))


@lru_cache
def _clock() -> list[bytes]:
    """Return the encoded time of each second of a day."""
    return [b"%02d%02d%02dZ" % (s // _HOUR_S, s // _MINUTE_S % 60, s % 60) for s in range(_DAY_S)]


def _reason(reason: RevocationReason) -> bytes:
    """Return the reason extension of an entry."""
    if (code := _CODES.get(reason)) is None:  # section 5.3.1: no entry for unspecified
        return b""
    told = wrap(OCTET_STRING, wrap(ENUMERATED, bytes((code,))))
    return wrap(SEQUENCE, wrap(SEQUENCE, _REASON, told))
