"""The CA's tables: what was issued, who holds a name or a key, CAs taken back, the last list of each issuer.

A serial number overflows a 64-bit column and is kept in hexadecimal.
"""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, or_, select, update

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
    Column("name", Text, nullable=False, server_default=""),
    Column("holds_name", BigInteger, nullable=False, server_default="1"),
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
Index("ca_certificates_name", certificates.c.name, certificates.c.not_after)
Index("ca_certificates_key", certificates.c.key_digest)
Index("ca_certificates_revoked", certificates.c.issuer, certificates.c.revoked_at)

names = Table(
    "ca_names",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

keys = Table(
    "ca_keys",
    metadata,
    Column("key_digest", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    Column("revoked_at", BigInteger),
    Column("revocation_reason", Text),
)
Index("ca_keys_name", keys.c.name)

revoked_cas = Table(
    "ca_revoked_cas",
    metadata,
    Column("key_digest", LargeBinary, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("revoked_at", BigInteger, nullable=False),
)

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
    .where(certificates.c.name == bindparam("name"))
    .order_by(certificates.c.not_after.desc())
    .limit(100)
)
LATEST = statement(select(certificates).order_by(certificates.c.not_after.desc()).limit(bindparam("limit")))

# Names and keys. Whoever decides on a name raises its version in the same commit, so that of two who decided on the
# same state one is told to look again; a key's row names its one holder.
NAME = statement(select(names.c.version).where(names.c.name == bindparam("name")))
ADD_NAME = insert(names, ignore_existing=True)
MOVE_NAME = statement(
    update(names)
    .where(names.c.name == bindparam("key_name"), names.c.version == bindparam("key_version"))
    .values(version=names.c.version + 1)
)
BUMP_NAME = statement(update(names).where(names.c.name == bindparam("key_name")).values(version=names.c.version + 1))
LIVE_OF_NAME = statement(
    select(certificates.c.thumbprint, certificates.c.device_id, certificates.c.key_digest, certificates.c.holds_name)
    .where(
        certificates.c.name == bindparam("name"),
        certificates.c.not_after > bindparam("after"),
        certificates.c.revoked_at.is_(None),
    )
    .order_by(certificates.c.not_after.desc())
    .limit(1000)
)
RELEASE_NAME = statement(
    update(certificates)
    .where(certificates.c.name == bindparam("key_name"), certificates.c.holds_name == 1)
    .values(holds_name=0)
)
KEY = statement(select(keys).where(keys.c.key_digest == bindparam("key_digest")))
ADD_KEY = insert(keys, ignore_existing=True)
HOLD_KEY = statement(
    update(keys)
    .where(
        keys.c.key_digest == bindparam("key_key_digest"),
        keys.c.name == bindparam("key_name"),
        keys.c.revoked_at.is_(None),
    )
    .values(name=keys.c.name)
)
REVOKE_KEY = statement(
    update(keys)
    .where(keys.c.key_digest == bindparam("key_key_digest"), keys.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("revoked_at"), revocation_reason=bindparam("revocation_reason"))
)
LIVE_OF_KEY = statement(
    select(certificates.c.thumbprint)
    .where(
        certificates.c.key_digest == bindparam("key_digest"),
        certificates.c.not_after > bindparam("after"),
        certificates.c.revoked_at.is_(None),
    )
    .limit(1000)
)
REVOCATION = statement(
    select(certificates.c.device_id, certificates.c.revoked_at)
    .where(certificates.c.thumbprint == bindparam("thumbprint"), certificates.c.revoked_at.is_not(None))
    .union_all(
        # A certificate of another CA that was taken back without its key being known stands here by its thumbprint.
        select(keys.c.name, keys.c.revoked_at).where(
            or_(keys.c.key_digest == bindparam("key_digest"), keys.c.key_digest == bindparam("thumbprint")),
            keys.c.revoked_at.is_not(None),
        )
    )
    .limit(1)
)
ADD_REVOKED_CA = insert(revoked_cas, ignore_existing=True)
REVOKED_CAS = statement(select(revoked_cas).limit(1000))
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
