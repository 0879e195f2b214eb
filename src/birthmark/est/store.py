"""EST's tables: users with their password digests, and the CAs that may introduce devices."""

from sqlalchemy import Column, Integer, Table, select

from birthmark.est.model import BootstrapCa, User
from birthmark.store import insert, metadata, statement, upsert
from birthmark.store.columns import blob, number
from birthmark.store.keyed import find, remove
from birthmark.store.records import Records

MAX_BOOTSTRAP_CAS = 64

USER_RECORDS = Records(User)
users = USER_RECORDS.table("est_users", "name", more=[blob("nonce", optional=True)])
ADD_USER = insert(users)
USER = find(users)
USERS = statement(select(users).order_by(users.c.name).limit(1000))
REMOVE_USER = remove(users)

BOOTSTRAP_RECORDS = Records(BootstrapCa, certificate="der")
bootstrap_cas = Table(
    "est_bootstrap_cas",
    metadata,
    blob("thumbprint", key=True),
    blob("der"),
    Column("any_name", Integer, nullable=False),  # as the first migration has it
    number("added_at"),
)
ADD_BOOTSTRAP_CA = upsert(bootstrap_cas)
BOOTSTRAP_CAS = statement(select(bootstrap_cas).order_by(bootstrap_cas.c.added_at).limit(MAX_BOOTSTRAP_CAS))
REMOVE_BOOTSTRAP_CA = remove(bootstrap_cas)
