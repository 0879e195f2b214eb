"""Certificates, CA certificates, the registration code, and operators' access keys."""

from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, delete, or_, select, update

from birthmark.awsiot.model import (
    AccessKey,
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    RegisteredCa,
)
from birthmark.awsiot.store.tables import access_keys, cas, certificates, registration_codes
from birthmark.pki.certificates import parse_der
from birthmark.store import from_micros, insert, statement, to_micros, upsert
from birthmark.store.database import Row

ADD = insert(certificates)
GET = statement(select(certificates).where(certificates.c.id == bindparam("id")))
UPDATE_STATUS = statement(
    update(certificates)
    .where(
        certificates.c.id == bindparam("key_id"), certificates.c.customer_version == bindparam("key_customer_version")
    )
    .values({name: bindparam(name) for name in ("status", "modified_at", "customer_version")})
)
DELETE = statement(
    delete(certificates).where(
        certificates.c.id == bindparam("id"), certificates.c.status != CertificateStatus.ACTIVE.value
    )
)
_BY_AGE = (certificates.c.created_at, certificates.c.id)
_NEWER = or_(
    certificates.c.created_at > bindparam("at"),
    and_(certificates.c.created_at == bindparam("at"), certificates.c.id > bindparam("after")),
)
_OLDER = or_(
    certificates.c.created_at < bindparam("at"),
    and_(certificates.c.created_at == bindparam("at"), certificates.c.id < bindparam("after")),
)
_OF_CA = certificates.c.ca_id == bindparam("ca_id")
_DOWN = tuple(column.desc() for column in _BY_AGE)
_LIMIT: BindParameter[int] = bindparam("limit")
OLDEST_FIRST = statement(select(certificates).where(_NEWER).order_by(*_BY_AGE).limit(_LIMIT))
NEWEST_FIRST = statement(select(certificates).where(_OLDER).order_by(*_DOWN).limit(_LIMIT))
OF_CA_OLDEST_FIRST = statement(select(certificates).where(_OF_CA, _NEWER).order_by(*_BY_AGE).limit(_LIMIT))
OF_CA_NEWEST_FIRST = statement(select(certificates).where(_OF_CA, _OLDER).order_by(*_DOWN).limit(_LIMIT))

BY_ID = statement(
    select(certificates).where(certificates.c.id > bindparam("after")).order_by(certificates.c.id).limit(_LIMIT)
)

ADD_CA = insert(cas)
GET_CA = statement(select(cas).where(cas.c.id == bindparam("id")))
CAS_BY_SUBJECT = statement(
    select(cas).where(cas.c.subject == bindparam("subject")).order_by(cas.c.created_at).limit(20)
)
LIST_CAS = statement(select(cas).where(cas.c.id > bindparam("after")).order_by(cas.c.id).limit(_LIMIT))
LIST_CAS_DOWN = statement(
    select(cas)
    .where(or_(bindparam("after") == "", cas.c.id < bindparam("after")))
    .order_by(cas.c.id.desc())
    .limit(_LIMIT)
)
UPDATE_CA = statement(
    update(cas)
    .where(cas.c.id == bindparam("key_id"), cas.c.customer_version == bindparam("key_customer_version"))
    .values(
        {
            name: bindparam(name)
            for name in ("active", "auto_registration", "registration", "modified_at", "customer_version")
        }
    )
)
DELETE_CA = statement(delete(cas).where(cas.c.id == bindparam("id"), cas.c.active == 0))

CODE = statement(select(registration_codes.c.code).where(registration_codes.c.account == bindparam("account")).limit(1))
PUT_CODE = upsert(registration_codes)
DROP_CODE = statement(delete(registration_codes).where(registration_codes.c.account == bindparam("account")))

ADD_KEY = insert(access_keys)
ALL_KEYS = statement(select(access_keys).order_by(access_keys.c.created_at, access_keys.c.id).limit(10_000))
DROP_KEY = statement(delete(access_keys).where(access_keys.c.id == bindparam("id")))


def certificate_of(row: Row) -> DeviceCertificate:
    """Return the certificate of a row."""
    return DeviceCertificate(
        CertificateId(row["id"]),
        parse_der(row["der"]),
        CertificateStatus(row["status"]),
        CertificateMode(row["mode"]),
        None if row["ca_id"] is None else CertificateId(row["ca_id"]),
        from_micros(row["created_at"]),
        from_micros(row["modified_at"]),
        row["customer_version"],
        row["generation_id"],
    )


def certificate_row(known: DeviceCertificate) -> dict[str, Any]:
    """Return the row of a certificate."""
    return {
        "id": known.id,
        "der": known.certificate.der,
        "status": known.status.value,
        "mode": known.mode.value,
        "ca_id": known.ca_id,
        "created_at": to_micros(known.created_at),
        "modified_at": to_micros(known.modified_at),
        "customer_version": known.customer_version,
        "generation_id": known.generation_id,
    }


def ca_of(row: Row) -> RegisteredCa:
    """Return the CA of a row."""
    return RegisteredCa(
        CertificateId(row["id"]),
        parse_der(row["der"]),
        bool(row["active"]),
        CertificateMode(row["mode"]),
        bool(row["auto_registration"]),
        row["registration"],
        from_micros(row["created_at"]),
        from_micros(row["modified_at"]),
        row["customer_version"],
        row["generation_id"],
    )


def ca_row(known: RegisteredCa) -> dict[str, Any]:
    """Return the row of a CA."""
    return {
        "id": known.id,
        "der": known.certificate.der,
        "subject": known.certificate.subject_der,
        "active": int(known.is_active),
        "mode": known.mode.value,
        "auto_registration": int(known.auto_registration),
        "registration": known.registration,
        "created_at": to_micros(known.created_at),
        "modified_at": to_micros(known.modified_at),
        "customer_version": known.customer_version,
        "generation_id": known.generation_id,
    }


def key_of(row: Row) -> AccessKey:
    """Return the access key of a row."""
    return AccessKey(row["id"], row["secret"], row["name"], from_micros(row["created_at"]))
