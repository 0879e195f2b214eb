"""Instances, enrollments, CA certificates on record, registrations. Enrollments are kept as their JSON."""

import hashlib
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, select, union

from birthmark.dps.document import EnrollmentDocument
from birthmark.dps.model import Authority, IdScope, Instance, Registration, Signer
from birthmark.store import insert, metadata, statement
from birthmark.store.database import Row
from birthmark.store.keyed import change, find, page, remove
from birthmark.store.readonly import UnreadableDatabaseError
from birthmark.store.records import Records

instances = Table(
    "dps_instances",
    metadata,
    Column("id_scope", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("hubs", Text, nullable=False),
    Column("policies", Text, nullable=False),
)

enrollments = Table(
    "dps_enrollments",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("etag", Text, nullable=False),
)

signers = Table(
    "dps_signers",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("subject_digest", Text, primary_key=True),
    Column("group_id", Text, primary_key=True),
    Column("thumbprint", Text, primary_key=True),
    Column("der", LargeBinary, nullable=False),
)
Index("dps_signers_group", signers.c.scope, signers.c.group_id)

authorities = Table(
    "dps_authorities",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("subject_digest", Text, nullable=False),
    Column("thumbprint", Text, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("verified", BigInteger, nullable=False),
    Column("verification_code", Text),
    Column("etag", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
Index("dps_authorities_subject", authorities.c.scope, authorities.c.subject_digest)

registrations = Table(
    "dps_registrations",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("registration_id", Text, primary_key=True),
    Column("group_id", Text),
    Column("device_id", Text, nullable=False),
    Column("hub", Text, nullable=False),
    Column("substatus", Text, nullable=False),
    Column("operation_id", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("thumbprint", LargeBinary),
    Column("common_name", Text),
    Column("group_made", Text),
)
Index("dps_registrations_group", registrations.c.scope, registrations.c.group_id)

INSTANCES = Records(Instance)
ADD_INSTANCE = insert(instances)
REPLACE_INSTANCE = change(instances, ("host", "hubs"), "id_scope", "host", "hubs")
ALL_INSTANCES = statement(select(instances).order_by(instances.c.name).limit(1000))

_KEY = ("scope", "kind", "id")
ADD_ENROLLMENT = insert(enrollments)
REPLACE_ENROLLMENT = change(enrollments, ("document", "etag"), *_KEY, "etag")
GET_ENROLLMENT = find(enrollments, of=("document",))
DELETE_ENROLLMENT = remove(enrollments, *_KEY, "etag")
ALL_GROUPS = find(
    enrollments, "scope", enrollments.c.kind == "group", of=("document",), order=enrollments.c.id, limit=10_000
)
LIST_ENROLLMENTS = page(enrollments, "id", "scope", "kind", of=("id", "document"))

SIGNERS = Records(Signer, certificate="der")
ADD_SIGNER = insert(signers, ignore_existing=True)
DROP_SIGNERS = remove(signers, "scope", "group_id")
SIGNERS_NAMED = find(signers, "scope", "subject_digest", limit=100)
SOME_SIGNERS = find(signers, "scope", limit=20)

AUTHORITIES = Records(Authority, certificate="der", is_verified="verified")
ADD_AUTHORITY = insert(authorities)
REPLACE_AUTHORITY = change(
    authorities, [c.name for c in authorities.columns if not c.primary_key], "scope", "name", "etag"
)
GET_AUTHORITY = find(authorities)
DELETE_AUTHORITY = remove(authorities)
LIST_AUTHORITIES = find(authorities, "scope", order=authorities.c.name, limit=1000)
AUTHORITIES_NAMED = find(authorities, "scope", "subject_digest", limit=100)
CAS_NAMED = statement(
    union(
        *(
            select(table.c.der).where(
                table.c.scope == bindparam("scope"), table.c.subject_digest == bindparam("subject_digest")
            )
            for table in (signers, authorities)
        )
    ).limit(100)
)

REGISTRATIONS = Records(Registration)
ADD_REGISTRATION = insert(registrations)
REPLACE_REGISTRATION = change(
    registrations, [c.name for c in registrations.columns if not c.primary_key], "scope", "registration_id", "etag"
)
GET_REGISTRATION = find(registrations)
REGISTRATIONS_OF_PAGE = find(
    registrations,
    "scope",
    registrations.c.registration_id.in_(
        select(enrollments.c.id)
        .where(
            enrollments.c.scope == bindparam("scope"),
            enrollments.c.kind == "individual",
            enrollments.c.id > bindparam("after"),
        )
        .order_by(enrollments.c.id)
        .limit(bindparam("limit"))
    ),
)
DELETE_REGISTRATION = remove(registrations, "scope", "registration_id", "etag")
DELETE_OWN_REGISTRATION = remove(registrations, "scope", "registration_id", registrations.c.group_id.is_(None))
LIST_GROUP_REGISTRATIONS = page(registrations, "registration_id", "scope", "group_id")


def subject_digest(name: bytes) -> str:
    """Return the key under which certificates of one subject, as DER, are found."""
    return hashlib.sha256(name).hexdigest()


def document_of(row: Row) -> EnrollmentDocument:
    """Return the document of a row. Raise `UnreadableDatabaseError` for one that this version did not write."""
    try:
        return msgspec.json.decode(row["document"], type=EnrollmentDocument)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnreadableDatabaseError(path="table dps_enrollments", reason=error) from error


def authority_row(scope: IdScope, authority: Authority) -> dict[str, Any]:
    """Return the row of a CA certificate."""
    certificate = authority.certificate
    found_by = {"subject_digest": subject_digest(certificate.subject_der), "thumbprint": certificate.thumbprint.hex()}
    return {"scope": scope} | AUTHORITIES.row(authority) | found_by
