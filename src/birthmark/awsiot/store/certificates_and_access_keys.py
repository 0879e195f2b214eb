"""Certificates, CA certificates, the registration code, and operators' access keys."""

from typing import Any

from sqlalchemy import ColumnElement, Index, Table, bindparam, select, tuple_

from birthmark.awsiot.model import AccessKey, DeviceCertificate, RegisteredCa
from birthmark.store import Statement, insert, metadata, statement
from birthmark.store.plain_and_encrypted_column_types import blob, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, page, remove

CERTIFICATES = RowMapper(DeviceCertificate, certificate="der")
certificates = CERTIFICATES.table("aws_certificates", "id")
Index("aws_certificates_created", certificates.c.created_at, certificates.c.id)
Index("aws_certificates_ca", certificates.c.ca_id, certificates.c.created_at, certificates.c.id)
ADD = insert(certificates, ignore_existing=True)
GET = find(certificates)
UPDATE_STATUS = change(certificates, ("status", "modified_at", "customer_version", "until"), "id", "customer_version")
BY_ID = page(certificates, "id")
IS_STILL_SO = guard_unchanged(certificates, "id", "customer_version")
REPLACED = change(certificates, ("replaces",), "id", "replaces")
REPLACES = change(certificates, ("replaces",), "id")


def _by_age(*conditions: ColumnElement[bool], descending: bool) -> Statement:
    """Return a statement for a page ordered by age, then by ID."""
    by_age = (certificates.c.created_at, certificates.c.id)
    last = tuple_(bindparam("at"), bindparam("after"))
    follows = tuple_(*by_age) < last if descending else tuple_(*by_age) > last
    order = [column.desc() if descending else column for column in by_age]
    return statement(select(certificates).where(*conditions, follows).order_by(*order).limit(bindparam("limit")))


_OF_CA = certificates.c.ca_id == bindparam("ca_id")
BY_AGE = {ascending: _by_age(descending=not ascending) for ascending in (True, False)}
BY_AGE_OF_CA = {ascending: _by_age(_OF_CA, descending=not ascending) for ascending in (True, False)}

CAS = RowMapper(RegisteredCa, certificate="der", is_active="active")
cas = CAS.table("aws_cas", "id", more=[blob("subject")])
Index("aws_cas_subject", cas.c.subject)
_CA_STATE = ("active", "auto_registration", "registration", "modified_at", "customer_version")
ADD_CA = insert(cas, ignore_existing=True)
GET_CA = find(cas)
CAS_BY_SUBJECT_PAGE = page(cas, "id", "subject")
LIST_CAS, LIST_CAS_DOWN = page(cas, "id"), page(cas, "id", descending=True)
UPDATE_CA = change(cas, _CA_STATE, "id", "customer_version")
DELETE_CA = remove(cas, "id", cas.c.active == 0)
CA_IS_THERE = guard_unchanged(cas, "id")

registration_codes = Table("aws_registration_codes", metadata, text("account", key=True), text("code"))
CODE = find(registration_codes)
ADD_CODE = insert(registration_codes, ignore_existing=True)
DROP_CODE = remove(registration_codes)

KEYS = RowMapper(AccessKey)
access_keys = KEYS.table("aws_access_keys", "id", sealed=["secret"])
ADD_KEY = insert(access_keys)
KEYS_PAGE = page(access_keys, "id")
DROP_KEY = remove(access_keys)


def ca_row(ca: RegisteredCa) -> dict[str, Any]:
    """Return the row of a CA certificate, which is looked up by its subject."""
    return CAS.row(ca) | {"subject": ca.certificate.subject_der}
