"""X.509 identities: there already, or issued by EST, a local CA, or self-signed."""

from collections.abc import Mapping
from datetime import timedelta

from birthmark.agent.config.est import EstDefaults, est_issuance
from birthmark.agent.config.locations import file_of, key_of
from birthmark.agent.config.model import EstIssuance, Issued, LocalIssuance, Preloaded
from birthmark.agent.config.reader import Table
from birthmark.agent.config.renewals import parse_renewal
from birthmark.errors import BirthmarkError
from birthmark.pki.names import parse_common_name, parse_registration_id

_METHODS = '`method = "est"`, `method = "local_ca"` or `method = "self_signed"`'
_ATTRIBUTES = frozenset({"CN", "C", "ST", "L", "O", "OU", "DC", "STREET", "SERIALNUMBER", "EMAILADDRESS"})
_KNOWN = "Known: " + ", ".join(sorted(_ATTRIBUTES))
_DEFAULT_DAYS = 30
DEVICE_ID = "device-id"


def parse_identity(
    table: Table, registration_id: str | None, est: EstDefaults | None, local_ca: LocalIssuance | None
) -> Preloaded | Issued:
    """Return the identity in `table` (`attestation` or `authentication`)."""
    value = table.take("identity_cert")
    if isinstance(value, dict):
        inner = Table(table.source, value, (*table.path, "identity_cert"))
        if table.take("identity_pk") is not None:
            table.warn("identity_pk", "is ignored: the certificate is issued, and its key is made here")
        return parse_issued(inner, registration_id, est, local_ca, DEVICE_ID)
    if value is None:
        raise table.error(
            "identity_cert",
            "is missing",
            '`identity_cert = { method = "est" }`, or `identity_cert = "file:///device.pem"` with identity_pk',
        )
    certificate, key = file_of(table, "identity_cert", value), table.take("identity_pk")
    if key is None:
        raise table.error("identity_pk", "is missing", '`identity_pk = "file:///device.key"`, or a pkcs11: URI')
    return Preloaded(certificate, key_of(table, "identity_pk", key))


def parse_issued(
    table: Table,
    registration_id: str | None,
    est: EstDefaults | None,
    local_ca: LocalIssuance | None,
    certificate_id: str,
) -> Issued:
    """Return an identity that is issued, and the rules of its renewal."""
    method = table.need_text("method", '"est"')
    common_name, subject = _subject(table, registration_id)
    days = table.take_int("expiry_days", 1)
    by: EstIssuance | LocalIssuance
    match method:
        case "est":
            by = est_issuance(table, est, certificate_id)
            if days is not None:
                table.warn("expiry_days", "is ignored: the EST server decides how long the certificate lives")
        case "self_signed":
            by = LocalIssuance(timedelta(days=days or _DEFAULT_DAYS))
        case "local_ca":
            if local_ca is None:
                raise table.error(
                    "method", "is local_ca, and there is none", "`[cert_issuance.local_ca]` with cert and pk"
                )
            by = LocalIssuance(timedelta(days=days or _DEFAULT_DAYS), local_ca.ca)
        case _:
            raise table.error("method", "is not known", _METHODS)
    renew = table.take_table("auto_renew")
    renewal = None if renew is None else parse_renewal(renew)
    table.finish()
    return Issued(common_name, subject, by, renewal)


def _subject(table: Table, registration_id: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the common name and the other attributes. The registration id, where there is one, is the common name."""
    common_name, subject = table.take_text("common_name"), table.take("subject")
    if common_name is not None and subject is not None:
        raise table.error("subject", "stands beside common_name", "Keep only one of them, such as subject with CN")
    attributes: dict[str, str] = {}
    if subject is not None:
        if not isinstance(subject, dict) or not all(isinstance(v, str) and v for v in subject.values()):
            raise table.error("subject", "must be a table of texts", '`subject = { CN = "device-1", L = "Bern" }`')
        attributes = {name.upper(): value for name, value in subject.items()}
        if unknown := sorted(set(attributes) - _ATTRIBUTES):
            raise table.error("subject", f"has the unknown attribute {unknown[0][:20]}", _KNOWN)
    configured = common_name or attributes.pop("CN", None)
    name = registration_id or configured
    if name is None:
        raise table.error("common_name", "is missing, and there is no registration_id", '`common_name = "my-device"`')
    if registration_id is not None and configured not in (None, registration_id):
        table.warn("common_name", f"is not used: the certificate is for the registration id {registration_id}")
    try:
        return parse_common_name(name), attributes
    except BirthmarkError as error:
        key = "subject" if common_name is None else "common_name"
        detail = "a common name has 1 to 64 printable characters"
        raise table.error(key, detail, "A shorter name: it is not cut") from error


def check_registration_id(table: Table, text: str | None) -> str | None:
    """Return the registration id as written. DPS compares it without regard to case."""
    if text is None:
        return None
    try:
        parse_registration_id(text)
    except BirthmarkError as error:
        raise table.error(
            "registration_id",
            "is not a registration id",
            "At most 128 letters, digits and - . _ :, ending with a letter, a digit or -",
        ) from error
    return text
