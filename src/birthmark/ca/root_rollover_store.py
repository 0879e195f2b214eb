"""Tables of a root rollover, and its progress queries over the inventory."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, and_, bindparam, exists, func, not_, select

from birthmark.ca.rules.root_rollover import RolloverState
from birthmark.ca.store import certificates
from birthmark.pki.certificates import Certificate
from birthmark.store import insert, metadata, statement
from birthmark.store.core_tables import server_facts
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

ID = "root"
MAX_ISSUERS = 6
"""A root and its subordinate CAs, one per purpose."""
MAX_NAMED = 20

RECORDS = RowMapper(RolloverState)
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

# A device is a name with a valid certificate; our own CAs and servers do not count.
_LIVE = and_(
    certificates.c.not_after > bindparam("after"), certificates.c.revoked_at.is_(None), certificates.c.name > ""
)
_HAS_FETCHED = exists().where(fetched.c.new == bindparam("new"), fetched.c.name == certificates.c.name)
_DEVICES = func.count(certificates.c.name.distinct()).label("count")
DEVICES = statement(select(_DEVICES).where(_LIVE))
FETCHED = statement(select(_DEVICES).where(_LIVE, _HAS_FETCHED))
MISSING = statement(select(certificates.c.name).distinct().where(_LIVE, not_(_HAS_FETCHED)).limit(MAX_NAMED))

# The latest certificate of a device per profile: a replaced one remains valid, but its key is gone.
_next, _child = certificates.alias(), certificates.alias()
_LATEST_BELOW = and_(
    certificates.c.issuer.in_([bindparam(f"issuer_{n}") for n in range(MAX_ISSUERS)]),
    _LIVE,
    # Two queries, each with its own index: a name may have very many valid certificates.
    not_(
        exists().where(
            _next.c.name == certificates.c.name,
            _next.c.not_after > certificates.c.not_after,
            _next.c.revoked_at.is_(None),
            _next.c.profile + "" == certificates.c.profile,  # not by its index: too many match
        )
    ),
    not_(
        exists().where(
            _child.c.parent == certificates.c.thumbprint,
            _child.c.name == certificates.c.name,
            _child.c.revoked_at.is_(None),
            _child.c.not_after > bindparam("after"),
            _child.c.profile + "" == certificates.c.profile,
        )
    ),
)
LATEST_BELOW = statement(select(_DEVICES, func.max(certificates.c.not_after).label("until")).where(_LATEST_BELOW))
NAMES_BELOW = statement(select(certificates.c.name).distinct().where(_LATEST_BELOW).limit(MAX_NAMED))


def issuers_of(cas: Sequence[Certificate]) -> dict[str, Any]:
    """Return the query parameters with the CAs of a root."""
    digests = [one.thumbprint for one in cas] + [b""] * MAX_ISSUERS
    return {f"issuer_{n}": digests[n] for n in range(MAX_ISSUERS)}
