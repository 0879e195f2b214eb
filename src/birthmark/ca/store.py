"""Tables of the CA: issued certificates, name and key holders, revoked CAs, and each issuer's last CRL.

A serial number exceeds a 64-bit column and is stored in hexadecimal.
"""

import hashlib
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    LargeBinary,
    Select,
    String,
    Table,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from birthmark.ca.model import IssuedCertificate
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names_and_registration_ids import fold
from birthmark.pki.signature_malleability import MOST, twins_of
from birthmark.store import Changes, insert, metadata, partial_index, statement, to_micros
from birthmark.store.object_counters import week_of
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, is_in_list, page

certificates = Table(
    "ca_certificates",
    metadata,
    blob("thumbprint", key=True),
    blob("issuer"),
    text("serial"),
    text("device_id"),
    text("name", server_default=""),
    number("holds_name", server_default="1"),
    blob("key_digest"),
    text("profile"),
    text("requested_by"),
    number("not_after"),
    blob("der"),
    number("revoked_at", optional=True),
    text("revocation_reason", optional=True),
    blob("parent", optional=True),
    number("registered_at", optional=True),
)
Index("ca_certificates_serial", certificates.c.serial, certificates.c.issuer, unique=True)
Index("ca_certificates_name", certificates.c.name, certificates.c.not_after)
Index("ca_certificates_key", certificates.c.key_digest, certificates.c.revoked_at, certificates.c.not_after)
_ENDS = (certificates.c.not_after, certificates.c.thumbprint)
_TAKEN_BACK = certificates.c.revoked_at.is_not(None)
_GOOD = certificates.c.revoked_at.is_(None)
# A name or a requester may have very many: its valid, used or revoked certificates are found without reading them all.
partial_index(
    "ca_certificates_live",
    certificates.c.name,
    *_ENDS,
    certificates.c.profile,
    condition=_GOOD,
)
partial_index(
    "ca_certificates_taken_back",
    certificates.c.name,
    certificates.c.revoked_at,
    certificates.c.revocation_reason,
    condition=_TAKEN_BACK,
)
Index(
    "ca_certificates_parent",
    certificates.c.parent,
    certificates.c.name,
    certificates.c.revoked_at,
    certificates.c.not_after,
)
_REGISTERED = certificates.c.registered_at.is_not(None)
partial_index(
    "ca_certificates_registered",
    certificates.c.parent,
    certificates.c.name,
    certificates.c.not_after,
    condition=_REGISTERED,
)
Index("ca_certificates_end", *_ENDS)
Index("ca_certificates_profile_end", certificates.c.profile, *_ENDS)
Index("ca_certificates_issuer_end", certificates.c.issuer, *_ENDS)
partial_index("ca_certificates_revoked_end", *_ENDS, condition=_TAKEN_BACK)
Index("ca_certificates_revoked", certificates.c.issuer, certificates.c.revoked_at)

names = Table("ca_names", metadata, text("name", key=True), number("version"), number("lost_at", optional=True))
_LOST = names.c.lost_at.is_not(None)
partial_index("ca_names_lost", names.c.name, condition=_LOST)

keys = Table(
    "ca_keys",
    metadata,
    blob("key_digest", key=True),
    text("name"),
    number("revoked_at", optional=True),
    text("revocation_reason", optional=True),
)
Index("ca_keys_name", keys.c.name, keys.c.revoked_at)

revoked_cas = Table(
    "ca_revoked_cas",
    metadata,
    blob("key_digest", key=True),
    blob("der"),
    number("revoked_at"),
    text("subject_digest", optional=True),  # none in rows of an earlier version
)
Index("ca_revoked_cas_subject", revoked_cas.c.subject_digest)

crls = Table(
    "ca_crls",
    metadata,
    blob("issuer", key=True),
    number("number"),
    number("made_at"),
    number("next_update"),
    blob("der"),
    # Number of revocations by this issuer, and how many of them the list covers; both sides write them.
    number("revocations", server_default="0"),
    number("covers", server_default="0"),
)

FIGURE, VALID, TAKEN_BACK = "certificates", "valid", "revoked"
RENEWALS = "renewals"
PLACE = "server"
"""Scope of certificate names in the name index."""
INVENTORY = RowMapper(IssuedCertificate, certificate="der")
ADD = insert(certificates)
BY_THUMBPRINT = find(certificates)
TWINS = tuple(f"twin_{number}" for number in range(MOST))
BY_EITHER_THUMBPRINT = find(
    certificates, certificates.c.thumbprint.in_([bindparam(name) for name in ("thumbprint", *TWINS)])
)
BY_SERIAL = find(certificates, "serial", limit=2)
_IS_NAMED = certificates.c.name != ""  # our own CAs and servers are not devices
BY_DEVICE = find(certificates, "name", _IS_NAMED, order=certificates.c.not_after.desc(), limit=100)
LATEST = statement(
    select(certificates)
    .where(certificates.c.name != "")
    .order_by(certificates.c.not_after.desc())
    .limit(bindparam("limit"))
)

NAMES_OF_CERTIFICATES = page(names, "name", of=("name",))
NAMES_REVOKED = page(names, "name", _LOST, of=("name",))
NAMES_NAMED = find(names, is_in_list(names.c.name), of=("name", "lost_at"))
LAST_ENDS = statement(
    select(certificates.c.name, func.max(certificates.c.not_after).label("last"))
    .where(
        is_in_list(certificates.c.name),
        certificates.c.revoked_at.is_(None),
        certificates.c.not_after > bindparam("now"),
    )
    .group_by(certificates.c.name)
)
"""Latest expiry of each name's valid certificates; a renewed device has several."""
ENDING = statement(
    select(certificates.c.name, certificates.c.not_after, certificates.c.thumbprint)
    .where(
        certificates.c.revoked_at.is_(None),
        tuple_(certificates.c.not_after, certificates.c.thumbprint)
        > tuple_(bindparam("after_end", type_=BigInteger), bindparam("after", type_=LargeBinary)),
        certificates.c.not_after <= bindparam("upto"),
    )
    .order_by(certificates.c.not_after, certificates.c.thumbprint)
    .limit(bindparam("limit"))
)
"""A page of valid certificates that expire soon, in order of expiry."""

# Names and keys. A decision on a name raises its version in the same commit, so that of two decisions on one state the
# second is retried; a key's row names its one holder.
NAME = find(names)
ADD_NAME = insert(names, ignore_existing=True)
LOSE_NAME = statement(
    update(names)
    .where(names.c.name == bindparam("key_name"), names.c.lost_at.is_(None))
    .values(lost_at=bindparam("lost_at"), version=names.c.version + 1)
)
"""Revokes a name with its device, so that no certificate is issued for it; concurrent decisions are retried."""
FIND_NAME = statement(
    update(names).where(names.c.name == bindparam("key_name")).values(lost_at=null(), version=names.c.version + 1)
)
MOVE_NAME = statement(
    update(names)
    .where(names.c.name == bindparam("key_name"), names.c.version == bindparam("key_version"))
    .values(version=names.c.version + 1)
)
_IS_LIVE = (certificates.c.not_after > bindparam("after"), certificates.c.revoked_at.is_(None))
HOLDERS = find(
    certificates,
    "name",
    certificates.c.holds_name == 1,
    *_IS_LIVE,
    of=("thumbprint", "device_id", "key_digest"),
    limit=1000,
)
LIVE_OF_NAME = find(certificates, "name", _IS_NAMED, *_IS_LIVE, order=certificates.c.not_after.desc(), limit=1000)
_BEYOND = tuple_(bindparam("beyond_end", type_=BigInteger), bindparam("beyond", type_=LargeBinary))
LIVE_PAGE = statement(
    select(certificates)
    .where(certificates.c.name == bindparam("name"), certificates.c.revoked_at.is_(None), tuple_(*_ENDS) > _BEYOND)
    .order_by(*_ENDS)
    .limit(bindparam("limit"))
)
"""Valid certificates of a name in order of expiry, after a time or after the previous page."""
RELEASE_NAME = statement(
    update(certificates)
    .where(certificates.c.name == bindparam("key_name"), certificates.c.holds_name == 1)
    .values(holds_name=0)
)
KEY = find(keys)
ADD_KEY = insert(keys, ignore_existing=True)
HOLD_KEY = statement(
    update(keys)
    .where(
        keys.c.key_digest == bindparam("key_key_digest"),
        keys.c.name == bindparam("key_name"),
        keys.c.revoked_at.is_(None),
    )
    .values(revocation_reason=keys.c.revocation_reason)  # changes no value and no index
)
_REVOCATION = ("revoked_at", "revocation_reason")
REVOKE_KEY = change(keys, _REVOCATION, "key_digest", keys.c.revoked_at.is_(None))
LIVE_OF_KEY = find(certificates, "key_digest", *_IS_LIVE, limit=1000)
# A certificate of another CA that was revoked without a known key is stored here by its thumbprint. Each is looked up
# by every possible thumbprint (`pki.signature_malleability`).
_IT_OR_TWIN: tuple[Any, ...] = tuple(bindparam(name) for name in ("thumbprint", *TWINS))
_KEY_TAKEN_BACK = (keys.c.key_digest.in_((bindparam("key_digest"), *_IT_OR_TWIN)), keys.c.revoked_at.is_not(None))
OTHERS_TAKEN_BACK = statement(
    select(keys.c.key_digest, keys.c.revoked_at, keys.c.revocation_reason)
    .where(
        keys.c.name == bindparam("name"),
        keys.c.revoked_at.is_not(None),
        keys.c.key_digest.not_in(
            select(certificates.c.key_digest).where(certificates.c.key_digest == keys.c.key_digest)
        ),
    )
    .order_by(keys.c.revoked_at.desc(), keys.c.key_digest)
    .limit(100)
)
"""Certificates revoked under a name that were never in this inventory."""
_IT_TAKEN_BACK = (certificates.c.thumbprint.in_(_IT_OR_TWIN), certificates.c.revoked_at.is_not(None))
REVOCATION = statement(
    select(certificates.c.device_id, certificates.c.revoked_at)
    .where(*_IT_TAKEN_BACK)
    .union_all(select(keys.c.name, keys.c.revoked_at).where(*_KEY_TAKEN_BACK))
    .limit(1)
)
PRESENTED = statement(
    select(
        certificates,
        select(keys.c.revoked_at).where(*_KEY_TAKEN_BACK).limit(1).scalar_subquery().label("key_revoked_at"),
    )
    .where(certificates.c.thumbprint.in_(_IT_OR_TWIN))
    .limit(1)
)
"""The row of a certificate, and when its key was revoked."""


def _about(kind: str, name: Any, at: Any, digest: Any = None, thumbprint: Any = None) -> Select[Any]:
    nothing = cast(null(), LargeBinary())
    return select(
        literal_column(f"'{kind}'").label("about"),
        (cast(null(), String()) if name is None else name).label("name"),
        (cast(null(), BigInteger()) if at is None else at).label("number"),
        (nothing if digest is None else digest).label("key_digest"),
        (nothing if thumbprint is None else thumbprint).label("thumbprint"),
    )


_LIVE = (
    select(certificates.c.device_id, certificates.c.key_digest, certificates.c.thumbprint)
    .where(
        certificates.c.name == bindparam("name"),
        certificates.c.holds_name == 1,
        *_IS_LIVE,
        # Those with the same key and spelling do not matter, and a frequently renewed device has many.
        or_(certificates.c.device_id != bindparam("asked"), certificates.c.key_digest != bindparam("asked_digest")),
    )
    .limit(1000)
    .subquery()
)
_ALIVE = (
    select(func.count())
    .select_from(
        select(certificates.c.name)
        .where(certificates.c.name == bindparam("name"), *_IS_LIVE)
        .limit(bindparam("most"))
        .subquery()
    )
    .scalar_subquery()
)
STANDING = statement(
    union_all(
        _about("alive", None, _ALIVE),
        _about("name", None, names.c.version).where(names.c.name == bindparam("name")),
        _about("lost", None, names.c.lost_at).where(names.c.name == bindparam("name"), names.c.lost_at.is_not(None)),
        _about("key", keys.c.name, keys.c.revoked_at).where(keys.c.key_digest == bindparam("asked_digest")),
        _about("live", _LIVE.c.device_id, None, _LIVE.c.key_digest, _LIVE.c.thumbprint),
        _about("held", None, certificates.c.revoked_at).where(*_IT_TAKEN_BACK),
        _about("held", None, keys.c.revoked_at).where(*_KEY_TAKEN_BACK),
    )
)
"""Consistent input of an issuance decision.

It has the version and holder of the name, the key, and the revocation of the presented certificate.
"""
ADD_REVOKED_CA = insert(revoked_cas, ignore_existing=True)
ANY_REVOKED_CA = find(revoked_cas, revoked_cas.c.revoked_at.is_not(None), of=("revoked_at",), limit=1)
REVOKED_CA = find(revoked_cas, of=("revoked_at",))
REVOKED_CAS_NAMED = find(
    revoked_cas,
    or_(revoked_cas.c.subject_digest == bindparam("subject_digest"), revoked_cas.c.subject_digest.is_(None)),
)
"""Revoked CAs of a subject; they cost only requests with a certificate under that name."""
REVOKE = change(certificates, _REVOCATION, "thumbprint", certificates.c.revoked_at.is_(None))
REGISTERED = change(certificates, ("registered_at",), "thumbprint", certificates.c.registered_at.is_(None))
_BELOW = (
    certificates.c.name == bindparam("name"),
    certificates.c.parent == bindparam("parent"),
    certificates.c.revoked_at.is_(None),
)
REGISTERED_BELOW = statement(
    select(certificates)
    .where(
        *_BELOW[:2],
        func.coalesce(certificates.c.revoked_at, 0) == 0,  # not by its index, which includes unregistered ones
        certificates.c.registered_at.is_not(None),
    )
    .order_by(certificates.c.not_after.desc())
    .limit(100)
)
"""Certificates requested with a certificate and then registered."""
HAS_ASKED = statement(select(certificates.c.parent).where(*_BELOW).limit(1))
"""Whether a certificate was used to request others of its name."""
_child, _grandchild = certificates.alias(), certificates.alias()
_LAST_BELOW = (
    select(certificates.c.thumbprint)
    .where(*_BELOW)
    .order_by(certificates.c.not_after.desc())
    .limit(1000)  # hiding one behind 1000 takes an old key that is still valid, which allows worse
    .subquery()
)
ASKED_BELOW = statement(
    select(_child)
    .join(_LAST_BELOW, _LAST_BELOW.c.thumbprint == _child.c.thumbprint)
    .where(
        exists().where(
            _grandchild.c.parent == _LAST_BELOW.c.thumbprint,
            _grandchild.c.name == bindparam("name"),
            _grandchild.c.revoked_at.is_(None),
        )
    )
    .limit(100)
)
"""Certificates requested with a certificate that requested others themselves."""
NEXT_NAME_BELOW = statement(
    select(certificates.c.name)
    .where(certificates.c.parent == bindparam("parent"), certificates.c.name > bindparam("beyond"))
    .order_by(certificates.c.name)
    .limit(1)
)
"""Next name, one at a time, because many certificates per name may have been requested with a certificate."""
TAKEN_BACK_SINCE = statement(
    select(certificates.c.revoked_at)
    .where(
        certificates.c.name == bindparam("name"),
        certificates.c.revoked_at > bindparam("since"),
        certificates.c.revocation_reason != "superseded",
    )
    .limit(1)
)
REVOKED = statement(
    select(certificates.c.serial, certificates.c.revoked_at, certificates.c.revocation_reason)
    .where(
        certificates.c.issuer == bindparam("issuer"),
        certificates.c.revoked_at >= bindparam("at"),
        or_(certificates.c.revoked_at > bindparam("at"), certificates.c.serial > bindparam("serial")),
        certificates.c.not_after > bindparam("after"),
    )
    .order_by(certificates.c.revoked_at, certificates.c.serial)
    .limit(bindparam("limit"))
)
"""A page of an issuer's revocations after `at` and `serial`, by the index of both columns."""
CRL = find(crls)
CRL_STATE = find(crls, of=("number", "made_at", "next_update", "revocations", "covers"))
BEGIN_CRL = insert(crls, ignore_existing=True)
SAVE_CRL = change(crls, ("number", "made_at", "next_update", "der", "covers"), "issuer", "number")
_ISSUER = (
    select(certificates.c.issuer).where(certificates.c.thumbprint == bindparam("key_thumbprint")).scalar_subquery()
)
SPOIL_CRL = statement(update(crls).where(crls.c.issuer == _ISSUER).values(revocations=crls.c.revocations + 1))
STATUS = find(certificates, "issuer", "serial", of=("thumbprint", "revoked_at", "revocation_reason"), limit=1)


def counted(issued: IssuedCertificate, state: str, by: int = 1) -> Changes:
    """Return the changes that count a certificate by its profile and week of expiry."""
    since = week_of(to_micros(issued.certificate.not_after))
    return Changes().count(FIGURE, issued.profile, state, since=since, by=by)


def wanted(certificate: Certificate) -> dict[str, Thumbprint]:
    """Return the thumbprints by which a presented certificate is looked up."""
    return {"thumbprint": certificate.thumbprint, **dict(zip(TWINS, twins_of(certificate), strict=True))}


def subject_digest(name: bytes) -> str:
    """Return the key by which CAs of a subject (DER) are looked up."""
    return hashlib.sha256(name).hexdigest()


def revoked_ca_row(ca: Certificate, digest: bytes, at_micros: int) -> dict[str, Any]:
    """Return the row of a revoked CA; `digest` is its key's."""
    found_by = subject_digest(ca.subject_der)
    return {"key_digest": digest, "der": ca.der, "revoked_at": at_micros, "subject_digest": found_by}


def row_of(issued: IssuedCertificate, *, issuer: Thumbprint, key_digest: bytes, is_own: bool = False) -> dict[str, Any]:
    """Return the inventory row of a new certificate, which holds its name.

    `is_own` marks certificates of local CAs and servers, which hold no name.
    """
    certificate = issued.certificate
    return INVENTORY.row(issued) | {
        "thumbprint": certificate.thumbprint,
        "issuer": issuer,
        "serial": f"{certificate.serial:x}",
        "name": "" if is_own else fold(issued.device_id),
        "holds_name": int(not is_own),
        "key_digest": key_digest,
        "not_after": to_micros(certificate.not_after),
    }
