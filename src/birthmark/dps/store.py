"""Storage of instances, enrollments, CA certificates and registrations. Enrollments are stored as JSON."""

import hashlib
from typing import Any

import msgspec
from sqlalchemy import Index, Table, UniqueConstraint, bindparam, exists, select, union

from birthmark.dps.enrollment_document import EnrollmentDocument
from birthmark.dps.model import EnrollmentSigner, IdScope, Instance, Registration
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.store import insert, metadata, statement
from birthmark.store.database import Row
from birthmark.store.plain_and_encrypted_column_types import text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.schema_revision import UnreadableDatabaseError
from birthmark.store.table_statements import change, find, guard_exists, guard_locked, is_in_list, page, remove
from birthmark.untrusted_json_and_text import decode_json

INSTANCES = RowMapper(Instance)
instances = INSTANCES.table("dps_instances", "id_scope", more=[UniqueConstraint("name")], sealed=["policies"])
ADD_INSTANCE = insert(instances)
REPLACE_INSTANCE = change(instances, ("host", "hubs"), "id_scope", "host", "hubs")
CHANGE_KEYS = change(instances, ("policies",), "id_scope", "policies")
CHANGE_TIER = change(instances, ("tier",), "id_scope", "name")
DELETE_INSTANCE = remove(instances, "id_scope", "name")
INSTANCE_IS_THERE = guard_exists(instances)
NAME_IS_THERE = guard_exists(instances, "name")
ALL_INSTANCES = statement(select(instances).order_by(instances.c.name).limit(1000))

tpm_roots = Table(
    "dps_tpm_roots",
    metadata,
    text("scope", key=True),
    text("registration_id", key=True),
    text("storage_root_keys"),
)
ADD_ROOTS = insert(tpm_roots)
REPLACE_ROOTS = change(tpm_roots, ("storage_root_keys",), "scope", "registration_id", "storage_root_keys")
GET_ROOTS = find(tpm_roots)
DROP_ROOTS = remove(tpm_roots)

_KEY = ("scope", "kind", "id")
enrollments = Table(
    "dps_enrollments", metadata, *(text(name, key=True) for name in _KEY), text("document", sealed=True), text("etag")
)
ADD_ENROLLMENT = insert(enrollments)


def place_of(scope: str) -> str:
    """Return the word-index place of a scope's individual enrollments."""
    return f"dps:{scope}"


REPLACE_ENROLLMENT = change(enrollments, ("document", "etag"), *_KEY, "etag")
GET_ENROLLMENT = find(enrollments, of=("document",))
DELETE_ENROLLMENT = remove(enrollments, *_KEY, "etag")
STILL_ENROLLED = guard_locked(enrollments, *_KEY, "etag")
_own = enrollments.alias("own")
STILL_OF_GROUP = guard_locked(
    enrollments,
    *_KEY,
    "etag",
    ~exists().where(
        _own.c.scope == bindparam("key_scope"),
        _own.c.kind == "individual",
        _own.c.id == bindparam("key_registration_id"),
    ),
)
"""Guard that also requires that the group's device has no individual enrollment."""
ALL_GROUPS = find(
    enrollments, "scope", enrollments.c.kind == "group", of=("document",), order=enrollments.c.id, limit=10_000
)
_IS_INDIVIDUAL = enrollments.c.kind == "individual"
NAMES_ENROLLED = page(enrollments, "id", "scope", _IS_INDIVIDUAL, of=("id",))
ENROLLED_NAMED = find(enrollments, "scope", _IS_INDIVIDUAL, is_in_list(enrollments.c.id), of=("id",))
LIST_ENROLLMENTS = page(enrollments, "id", "scope", "kind", of=("id", "document"))

SIGNERS = RowMapper(EnrollmentSigner, certificate="der")
_FOUND_BY = [text(name, key=True) for name in ("scope", "subject_digest", "thumbprint")]
signers = SIGNERS.table("dps_signers", "group_id", more=_FOUND_BY)
Index("dps_signers_group", signers.c.scope, signers.c.group_id)
ADD_SIGNER = insert(signers, ignore_existing=True)
DROP_SIGNERS = remove(signers, "scope", "group_id")
SIGNERS_NAMED = find(signers, "scope", "subject_digest", limit=100)
SOME_SIGNERS = find(signers, "scope", limit=20)

AUTHORITIES = RowMapper(CaCertificate, certificate="der", is_verified="verified")
authorities = AUTHORITIES.table(
    "dps_authorities", "name", more=[text("scope", key=True), text("subject_digest"), text("thumbprint")]
)
Index("dps_authorities_subject", authorities.c.scope, authorities.c.subject_digest)
ADD_AUTHORITY = insert(authorities)
REPLACE_AUTHORITY = change(
    authorities, [c.name for c in authorities.columns if not c.primary_key], "scope", "name", "etag"
)
GET_AUTHORITY = find(authorities)
AUTHORITY_IS_THERE = guard_exists(authorities)
DELETE_AUTHORITY = remove(authorities)
DELETE_AUTHORITY_AS = remove(authorities, "scope", "name", "etag")
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

FIGURE = "registrations"
"""Counter of registrations in the audit log, by provisioning service and hour."""
REGISTRATIONS = RowMapper(Registration)
registrations = REGISTRATIONS.table("dps_registrations", "registration_id", more=[text("scope", key=True)])
Index("dps_registrations_group", registrations.c.scope, registrations.c.group_id)
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
REGISTERED_NAMED = find(registrations, "scope", is_in_list(registrations.c.registration_id), of=("registration_id",))
DELETE_REGISTRATION = remove(registrations, "scope", "registration_id", "etag")
DELETE_OWN_REGISTRATION = remove(registrations, "scope", "registration_id", registrations.c.group_id.is_(None))
LIST_GROUP_REGISTRATIONS = page(registrations, "registration_id", "scope", "group_id")


def subject_digest(name: bytes) -> str:
    """Return the lookup key for certificates with this subject, as DER."""
    return hashlib.sha256(name).hexdigest()


def document_of(row: Row) -> EnrollmentDocument:
    """Return the document of a row. Raise `UnreadableDatabaseError` for one that another version wrote."""
    try:
        return decode_json(row["document"], EnrollmentDocument)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnreadableDatabaseError(path="table dps_enrollments", reason=error) from error


def authority_row(scope: IdScope, authority: CaCertificate) -> dict[str, Any]:
    """Return the row of a CA certificate."""
    certificate = authority.certificate
    found_by = {"subject_digest": subject_digest(certificate.subject_der), "thumbprint": certificate.thumbprint.hex()}
    return {"scope": scope} | AUTHORITIES.row(authority) | found_by


DROP_SCOPE = tuple(remove(table, "scope") for table in (registrations, signers, authorities, enrollments, tpm_roots))
"""Statements that delete all records of a provisioning service."""
