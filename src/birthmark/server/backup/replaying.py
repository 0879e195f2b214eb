"""What was taken back since the backup, taken back again from audit rows that were exported.

A row names the key's digest (`key`) and, where it was a CA, the certificate. Older rows name a certificate by its
thumbprint alone: the inventory has its key, unless it was issued after the backup: then its thumbprint is all there is.
"""

import json
from collections.abc import Sequence
from typing import Any

from birthmark.ca import store
from birthmark.ca.revocation import digest_of
from birthmark.pki.certificates import parse_der
from birthmark.pki.crl import RevocationReason
from birthmark.pki.names import fold
from birthmark.store import Changes, Database

_CERTIFICATE, _KEY, _NAME, _DEVICE = "certificate.revoke", "key.revoke", "name.lose", "device.revoke"


async def replayed(database: Database, changes: Changes, rows: Sequence[bytes], now: int) -> int:
    """Add to `changes` what audit rows say was revoked, and return how many did; what is revoked already stays so."""
    count = 0
    for row in map(_row, rows):
        if row.get("action") not in {_CERTIFICATE, _KEY, _NAME}:
            continue
        count += 1
        detail = row["detail"] if isinstance(row["detail"], dict) else json.loads(row["detail"])
        reason = str(detail.get("reason", RevocationReason.UNSPECIFIED.value))
        facts: dict[str, Any] = {"revoked_at": now, "revocation_reason": reason}
        name = fold(str(row.get("subject", "")))
        if row["action"] == _NAME:
            changes.run(store.ADD_NAME, name=name, version=0, lost_at=None)
            changes.run(store.LOSE_NAME, key_name=name, lost_at=now)
            continue
        if row["action"] == _CERTIFICATE:
            thumbprint = bytes.fromhex(detail["thumbprint"])
            changes.run(store.REVOKE, key_thumbprint=thumbprint, **facts)
            digest = await _taken_with(database, thumbprint, detail, reason)
        else:
            digest = bytes.fromhex(detail["key"])
        changes.run(store.ADD_KEY, key_digest=digest, name=name, revoked_at=None, revocation_reason=None)
        changes.run(store.REVOKE_KEY, key_key_digest=digest, **facts)
        if "ca" in detail:
            ca = parse_der(bytes.fromhex(detail["ca"]))
            changes.run(store.ADD_REVOKED_CA, key_digest=digest_of(ca), der=ca.der, revoked_at=now)
    return count


def devices_of(rows: Sequence[bytes]) -> dict[str, str]:
    """Return the devices that were taken back whole, each with the reason; one that is none is told as unspecified."""
    found: dict[str, str] = {}
    for row in map(_row, rows):
        if row.get("action") == _DEVICE:
            detail = row["detail"] if isinstance(row["detail"], dict) else json.loads(row["detail"])
            reason = str(detail.get("reason", ""))
            known = reason in {one.value for one in RevocationReason}
            found[str(row["subject"])] = reason if known else RevocationReason.UNSPECIFIED.value
    return found


async def _taken_with(database: Database, thumbprint: bytes, detail: dict[str, Any], reason: str) -> bytes:
    """Return what is taken back beside the certificate: its key, or by its thumbprint the certificate alone."""
    if "key" in detail:
        return bytes.fromhex(detail["key"])
    known = await database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
    if known is None or reason == RevocationReason.SUPERSEDED.value:  # which leaves the key good
        return thumbprint
    return bytes(known["key_digest"])


def _row(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
