"""The tables of an exchange of the root, and what is measured of the inventory for it."""

from sqlalchemy import Table, and_, bindparam, exists, func, not_, select

from birthmark.ca.rules.rollover import Rollover
from birthmark.ca.store import certificates
from birthmark.store import insert, metadata, statement
from birthmark.store.columns import blob, number, text
from birthmark.store.keyed import change, find, remove
from birthmark.store.records import Records
from birthmark.store.schema import server_facts

ID = "root"
MAX_NAMED = 20

RECORDS = Records(Rollover)
rollovers = RECORDS.table("ca_rollovers", more=[text("id", key=True)])
ADD = insert(rollovers)
GET = find(rollovers)
_VERSIONED = (rollovers.c.id == ID, rollovers.c.version == bindparam("key_version"))
MOVE = change(rollovers, ("phase", "changed_at", "version"), *_VERSIONED)
REPLACE = change(rollovers, ("old", "new", "phase", "started_at", "changed_at", "version"), *_VERSIONED)
END = remove(rollovers, *_VERSIONED)
SET_ROOT = change(server_facts, ("value",), "name")

fetched = Table("ca_anchors_fetched", metadata, blob("new", key=True), text("name", key=True), number("at"))
ADD_FETCHED = insert(fetched, ignore_existing=True)
FORGET = remove(fetched, "new")

# A device is a name that has a certificate which is alive; our own CAs and servers have none.
_LIVE = and_(
    certificates.c.not_after > bindparam("after"), certificates.c.revoked_at.is_(None), certificates.c.name != ""
)
_BELOW = and_(certificates.c.issuer == bindparam("issuer"), _LIVE)
_HAS_FETCHED = exists().where(fetched.c.new == bindparam("new"), fetched.c.name == certificates.c.name)
_DEVICES = func.count(certificates.c.name.distinct()).label("count")
_NAME = certificates.c.name.distinct().label("name")
DEVICES = statement(select(_DEVICES).where(_LIVE))
FETCHED = statement(select(_DEVICES).where(_LIVE, _HAS_FETCHED))
MISSING = statement(select(_NAME).where(_LIVE, not_(_HAS_FETCHED)).limit(MAX_NAMED))
BELOW = statement(select(func.count().label("count"), func.max(certificates.c.not_after).label("until")).where(_BELOW))
NAMES_BELOW = statement(select(_NAME).where(_BELOW).limit(MAX_NAMED))
