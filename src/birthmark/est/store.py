"""EST's tables: users with their password digests, and the CAs that may introduce devices."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text, select

from birthmark.est.model import BootstrapCa, User
from birthmark.store import insert, metadata, statement, upsert
from birthmark.store.keyed import find, remove
from birthmark.store.records import Records

users = Table(
    "est_users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("device_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("nonce", LargeBinary),
)

bootstrap_cas = Table(
    "est_bootstrap_cas",
    metadata,
    Column("thumbprint", LargeBinary, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("any_name", Integer, nullable=False),
    Column("added_at", BigInteger, nullable=False),
)

MAX_BOOTSTRAP_CAS = 64

USER_RECORDS = Records(User)
ADD_USER = insert(users)
USER = find(users)
USERS = statement(select(users).order_by(users.c.name).limit(1000))
REMOVE_USER = remove(users)

BOOTSTRAP_RECORDS = Records(BootstrapCa, certificate="der")
ADD_BOOTSTRAP_CA = upsert(bootstrap_cas)
BOOTSTRAP_CAS = statement(select(bootstrap_cas).order_by(bootstrap_cas.c.added_at).limit(MAX_BOOTSTRAP_CAS))
REMOVE_BOOTSTRAP_CA = remove(bootstrap_cas)
