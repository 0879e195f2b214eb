"""The CA's tables: the inventory of what was issued, and the last revocation list of each issuer.

A serial number overflows a 64-bit column and is kept in hexadecimal.
"""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, select, update

from birthmark.ca.model import Issued
from birthmark.pki.certificates import parse_der
from birthmark.pki.crl import RevocationReason
from birthmark.store import from_micros, insert, metadata, statement, upsert
from birthmark.store.database import Row

certificates = Table(
    "ca_certificates",
    metadata,
    Column("thumbprint", LargeBinary, primary_key=True),
    Column("issuer", LargeBinary, nullable=False),
    Column("serial", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("key_digest", LargeBinary, nullable=False),
    Column("profile", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("revoked_at", BigInteger),
    Column("revocation_reason", Text),
)
Index("ca_certificates_serial", certificates.c.issuer, certificates.c.serial, unique=True)
Index("ca_certificates_device", certificates.c.device_id)
Index("ca_certificates_key", certificates.c.key_digest)
Index("ca_certificates_revoked", certificates.c.issuer, certificates.c.revoked_at)

crls = Table(
    "ca_crls",
    metadata,
    Column("issuer", LargeBinary, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("next_update", BigInteger, nullable=False),
    Column("der", LargeBinary, nullable=False),
)

ADD = insert(certificates)
BY_THUMBPRINT = statement(select(certificates).where(certificates.c.thumbprint == bindparam("thumbprint")))
BY_SERIAL = statement(select(certificates).where(certificates.c.serial == bindparam("serial")).limit(2))
BY_DEVICE = statement(
    select(certificates)
    .where(certificates.c.device_id == bindparam("device_id"))
    .order_by(certificates.c.not_after.desc())
    .limit(100)
)
LATEST = statement(select(certificates).order_by(certificates.c.not_after.desc()).limit(bindparam("limit")))
HOLDERS_OF_KEY = statement(
    select(certificates.c.device_id).where(certificates.c.key_digest == bindparam("key_digest")).distinct().limit(10)
)
REVOKE = statement(
    update(certificates)
    .where(certificates.c.thumbprint == bindparam("key_thumbprint"), certificates.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("revoked_at"), revocation_reason=bindparam("revocation_reason"))
)
REVOKED = statement(
    select(certificates.c.serial, certificates.c.revoked_at, certificates.c.revocation_reason).where(
        certificates.c.issuer == bindparam("issuer"),
        certificates.c.revoked_at.is_not(None),
        certificates.c.not_after > bindparam("after"),
    )
)
CRL = statement(select(crls).where(crls.c.issuer == bindparam("issuer")))
SAVE_CRL = upsert(crls)


def issued_of(row: Row) -> Issued:
    """Return the value of an inventory row."""
    return Issued(
        certificate=parse_der(row["der"]),
        device_id=row["device_id"],
        profile=row["profile"],
        requested_by=row["requested_by"],
        revoked_at=None if row["revoked_at"] is None else from_micros(row["revoked_at"]),
        revocation_reason=None if row["revocation_reason"] is None else RevocationReason(row["revocation_reason"]),
    )
