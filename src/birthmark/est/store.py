"""EST's tables: users with their password digests, and the CAs that may introduce devices."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text, bindparam, delete, select

from birthmark.est.model import BootstrapCa, User
from birthmark.pki.certificates import parse_der
from birthmark.store import from_micros, insert, metadata, statement, upsert
from birthmark.store.database import Row

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

ADD_USER = insert(users)
USER = statement(select(users).where(users.c.name == bindparam("name")))
USERS = statement(select(users).order_by(users.c.name).limit(1000))
REMOVE_USER = statement(delete(users).where(users.c.name == bindparam("key_name")))
ADD_BOOTSTRAP_CA = upsert(bootstrap_cas)
BOOTSTRAP_CAS = statement(select(bootstrap_cas).order_by(bootstrap_cas.c.added_at).limit(MAX_BOOTSTRAP_CAS))
REMOVE_BOOTSTRAP_CA = statement(delete(bootstrap_cas).where(bootstrap_cas.c.thumbprint == bindparam("key_thumbprint")))


def user_of(row: Row) -> User:
    return User(row["name"], row["password_hash"], row["device_id"], from_micros(row["created_at"]))


def bootstrap_ca_of(row: Row) -> BootstrapCa:
    return BootstrapCa(parse_der(row["der"]), bool(row["any_name"]))
