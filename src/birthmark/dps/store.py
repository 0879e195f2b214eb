"""Instances, enrollments, CA certificates on record, registrations. Enrollments are kept as their JSON."""

import base64
import hashlib
import json
from functools import lru_cache
from typing import Any

import msgspec
from cryptography import x509
from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, bindparam, delete, select, update

from birthmark.dps.document import EnrollmentDocument
from birthmark.dps.model import Authority, IdScope, Instance, Registration, Signer
from birthmark.pki.certificates import Thumbprint, parse_der
from birthmark.pki.names import RegistrationId
from birthmark.store import from_micros, insert, metadata, statement, to_micros
from birthmark.store.database import Row
from birthmark.store.readonly import UnreadableDatabaseError

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

REPLACE_INSTANCE = statement(
    update(instances)
    .where(
        instances.c.id_scope == bindparam("key_id_scope"),
        instances.c.host == bindparam("key_host"),
        instances.c.hubs == bindparam("key_hubs"),
    )
    .values(host=bindparam("host"), hubs=bindparam("hubs"))
)
ADD_INSTANCE = insert(instances)
ALL_INSTANCES = statement(select(instances).order_by(instances.c.name).limit(1000))

ADD_ENROLLMENT = insert(enrollments)
REPLACE_ENROLLMENT = statement(
    update(enrollments)
    .where(
        enrollments.c.scope == bindparam("key_scope"),
        enrollments.c.kind == bindparam("key_kind"),
        enrollments.c.id == bindparam("key_id"),
        enrollments.c.etag == bindparam("key_etag"),
    )
    .values(document=bindparam("document"), etag=bindparam("etag"))
)
_KEY = (
    enrollments.c.scope == bindparam("scope"),
    enrollments.c.kind == bindparam("kind"),
    enrollments.c.id == bindparam("id"),
)
GET_ENROLLMENT = statement(select(enrollments.c.document).where(*_KEY))
DELETE_ENROLLMENT = statement(delete(enrollments).where(*_KEY, enrollments.c.etag == bindparam("etag")))
LIST_ENROLLMENTS = statement(
    select(enrollments.c.id, enrollments.c.document)
    .where(
        enrollments.c.scope == bindparam("scope"),
        enrollments.c.kind == bindparam("kind"),
        enrollments.c.id > bindparam("after"),
    )
    .order_by(enrollments.c.id)
    .limit(bindparam("limit"))
)

ADD_SIGNER = insert(signers, ignore_existing=True)
DROP_SIGNERS = statement(
    delete(signers).where(signers.c.scope == bindparam("scope"), signers.c.group_id == bindparam("group_id"))
)
SIGNERS_NAMED = statement(
    select(signers.c.group_id, signers.c.der)
    .where(signers.c.scope == bindparam("scope"), signers.c.subject_digest == bindparam("subject_digest"))
    .limit(100)
)
SIGNERS = statement(select(signers.c.group_id, signers.c.der).where(signers.c.scope == bindparam("scope")).limit(20))

ADD_AUTHORITY = insert(authorities)
REPLACE_AUTHORITY = statement(
    update(authorities)
    .where(
        authorities.c.scope == bindparam("key_scope"),
        authorities.c.name == bindparam("key_name"),
        authorities.c.etag == bindparam("key_etag"),
    )
    .values({c.name: bindparam(c.name) for c in authorities.columns if not c.primary_key})
)
CAS_NAMED = statement(
    select(signers.c.der)
    .where(signers.c.scope == bindparam("scope"), signers.c.subject_digest == bindparam("subject_digest"))
    .union(
        select(authorities.c.der).where(
            authorities.c.scope == bindparam("scope"), authorities.c.subject_digest == bindparam("subject_digest")
        )
    )
    .limit(100)
)
GET_AUTHORITY = statement(
    select(authorities).where(authorities.c.scope == bindparam("scope"), authorities.c.name == bindparam("name"))
)
DELETE_AUTHORITY = statement(
    delete(authorities).where(authorities.c.scope == bindparam("scope"), authorities.c.name == bindparam("name"))
)
LIST_AUTHORITIES = statement(
    select(authorities).where(authorities.c.scope == bindparam("scope")).order_by(authorities.c.name).limit(1000)
)
AUTHORITIES_NAMED = statement(
    select(authorities)
    .where(authorities.c.scope == bindparam("scope"), authorities.c.subject_digest == bindparam("subject_digest"))
    .limit(100)
)

ADD_REGISTRATION = insert(registrations)
REPLACE_REGISTRATION = statement(
    update(registrations)
    .where(
        registrations.c.scope == bindparam("key_scope"),
        registrations.c.registration_id == bindparam("key_registration_id"),
        registrations.c.etag == bindparam("key_etag"),
    )
    .values({c.name: bindparam(c.name) for c in registrations.columns if not c.primary_key})
)
GET_REGISTRATION = statement(
    select(registrations).where(
        registrations.c.scope == bindparam("scope"),
        registrations.c.registration_id == bindparam("registration_id"),
    )
)
REGISTRATIONS_OF_PAGE = statement(
    select(registrations).where(
        registrations.c.scope == bindparam("scope"),
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
)
DELETE_REGISTRATION = statement(
    delete(registrations).where(
        registrations.c.scope == bindparam("scope"),
        registrations.c.registration_id == bindparam("registration_id"),
        registrations.c.etag == bindparam("etag"),
    )
)
DELETE_OWN_REGISTRATION = statement(
    delete(registrations).where(
        registrations.c.scope == bindparam("scope"),
        registrations.c.registration_id == bindparam("registration_id"),
        registrations.c.group_id.is_(None),
    )
)
LIST_GROUP_REGISTRATIONS = statement(
    select(registrations)
    .where(
        registrations.c.scope == bindparam("scope"),
        registrations.c.group_id == bindparam("group_id"),
        registrations.c.registration_id > bindparam("after"),
    )
    .order_by(registrations.c.registration_id)
    .limit(bindparam("limit"))
)


# The same few CAs are behind every registration; reading them each time would cost more than the look-up.
parse = lru_cache(maxsize=4096)(parse_der)


def subject_digest(name: x509.Name) -> str:
    """Return the key under which certificates of one subject are found."""
    return hashlib.sha256(name.public_bytes()).hexdigest()


def document_of(row: Row) -> EnrollmentDocument:
    """Return the document of a row. Raise `UnreadableDatabaseError` for one that this version did not write."""
    try:
        return msgspec.json.decode(row["document"], type=EnrollmentDocument)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnreadableDatabaseError(path="table dps_enrollments", reason=error) from error


def instance_of(row: Row) -> Instance:
    """Return the instance of a row."""
    keys = {
        name: (base64.b64decode(first), base64.b64decode(second))
        for name, (first, second) in json.loads(row["policies"]).items()
    }
    return Instance(IdScope(row["id_scope"]), row["name"], row["host"], tuple(json.loads(row["hubs"])), keys)


def instance_row(instance: Instance) -> dict[str, Any]:
    """Return the row of an instance."""
    keys = {name: [base64.b64encode(key).decode() for key in pair] for name, pair in instance.policies.items()}
    return {
        "id_scope": instance.id_scope,
        "name": instance.name,
        "host": instance.host,
        "hubs": json.dumps(instance.hubs),
        "policies": json.dumps(keys),
    }


def signer_of(row: Row) -> Signer:
    """Return the signer of a row."""
    return Signer(row["group_id"], parse(row["der"]))


def authority_of(row: Row) -> Authority:
    """Return the CA certificate of a row."""
    return Authority(
        row["name"],
        parse(row["der"]),
        bool(row["verified"]),
        row["verification_code"],
        row["etag"],
        from_micros(row["created_at"]),
        from_micros(row["updated_at"]),
    )


def authority_row(scope: IdScope, authority: Authority) -> dict[str, Any]:
    """Return the row of a CA certificate."""
    return {
        "scope": scope,
        "name": authority.name,
        "subject_digest": subject_digest(authority.certificate.subject),
        "thumbprint": authority.certificate.thumbprint.hex(),
        "der": authority.certificate.der,
        "verified": int(authority.is_verified),
        "verification_code": authority.verification_code,
        "etag": authority.etag,
        "created_at": to_micros(authority.created_at),
        "updated_at": to_micros(authority.updated_at),
    }


def registration_of(row: Row) -> Registration:
    """Return the registration of a row."""
    return Registration(
        RegistrationId(row["registration_id"]),
        row["group_id"],
        row["device_id"],
        row["hub"],
        row["substatus"],
        row["operation_id"],
        row["etag"],
        from_micros(row["created_at"]),
        from_micros(row["updated_at"]),
        None if row["thumbprint"] is None else Thumbprint(row["thumbprint"]),
        row["common_name"],
        row["group_made"],
    )


def registration_row(scope: IdScope, registration: Registration) -> dict[str, Any]:
    """Return the row of a registration."""
    return {
        "scope": scope,
        "registration_id": registration.registration_id,
        "group_id": registration.group_id,
        "device_id": registration.device_id,
        "hub": registration.hub,
        "substatus": registration.substatus,
        "operation_id": registration.operation_id,
        "etag": registration.etag,
        "created_at": to_micros(registration.created_at),
        "updated_at": to_micros(registration.updated_at),
        "thumbprint": registration.thumbprint,
        "common_name": registration.common_name,
        "group_made": registration.group_made,
    }
