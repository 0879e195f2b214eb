"""X.509 identities: there already, or issued by EST, a local CA, or self-signed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from birthmark.agent.config.est import EstDefaults, est_issuance
from birthmark.agent.config.locations import take_pair
from birthmark.agent.config.model import EstIssuance, Issued, KeyLocation, LocalIssuance, Preloaded
from birthmark.agent.config.reader import ANY, FILLED, TEXT, MistakeError, Table, kind_of, number_from
from birthmark.agent.config.renewals import parse_renewal
from birthmark.errors import BirthmarkError
from birthmark.pki.names import parse_common_name, parse_registration_id

_METHODS = '`method = "est"`, `method = "local_ca"` or `method = "self_signed"`'
_ATTRIBUTES = frozenset({"CN", "C", "ST", "L", "O", "OU", "DC", "STREET", "SERIALNUMBER", "EMAILADDRESS"})
_KNOWN = "Known: " + ", ".join(sorted(_ATTRIBUTES))
_SUBJECT = kind_of(dict[str, FILLED], "must be a table of texts", '`subject = { CN = "device-1", L = "Bern" }`')
_DEFAULT_DAYS = 30
DEVICE_ID = "device-id"


@dataclass(frozen=True, slots=True)
class Issuers:
    """Who issues, for all certificates that do not say it themselves."""

    est: EstDefaults = field(default_factory=EstDefaults)
    local_ca: tuple[Path, KeyLocation] | None = None


def parse_identity(table: Table, registration_id: str | None, issuers: Issuers) -> Preloaded | Issued:
    """Return the identity in `table` (`attestation` or `authentication`)."""
    if isinstance(table.take("identity_cert", ANY), dict) and (issued := table.take_table("identity_cert")) is not None:
        if table.take("identity_pk", ANY) is not None:
            table.warn("identity_pk", "is ignored: the certificate is issued, and its key is made here")
        return parse_issued(issued, registration_id, issuers, DEVICE_ID)
    if "identity_cert" not in table:
        accepted = '`identity_cert = { method = "est" }`, or `identity_cert = "file:///device.pem"` with identity_pk'
        table.wrong("identity_cert", "is missing", accepted)
    example = '`identity_pk = "file:///device.key"`, or a pkcs11: URI'
    return take_pair(table, "identity_cert", "identity_pk", "is missing", example) or Preloaded(Path(), Path())


def parse_issued(table: Table, registration_id: str | None, issuers: Issuers, certificate_id: str) -> Issued:
    """Return an identity that is issued, and the rules of its renewal."""
    method = table.need("method", '"est"')
    common_name, subject = _subject(table, registration_id)
    days = table.take("expiry_days", number_from(1))
    ca = issuers.local_ca if method == "local_ca" else None
    by: EstIssuance | LocalIssuance = LocalIssuance(timedelta(days=days or _DEFAULT_DAYS), ca)
    if method == "est":
        by = est_issuance(table, issuers.est, certificate_id)
        if days is not None:
            table.warn("expiry_days", "is ignored: the EST server decides how long the certificate lives")
    elif method not in ("local_ca", "self_signed"):
        table.wrong("method", "is not known", _METHODS)
    elif method == "local_ca" and ca is None and not table.source.has_mistakes("cert_issuance"):
        table.wrong("method", "is local_ca, and there is none", "`[cert_issuance.local_ca]` with cert and pk")
    renew = table.take_table("auto_renew")
    renewal = None if renew is None else parse_renewal(renew)
    table.finish()
    return Issued(common_name, subject, by, renewal)


def _subject(table: Table, registration_id: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the common name and the other attributes. The registration id, where there is one, is the common name."""
    common_name, subject = table.take("common_name", TEXT), table.take("subject", _SUBJECT)
    attributes = {name.upper(): value for name, value in (subject or {}).items()}
    if common_name is not None and subject is not None:
        table.wrong("subject", "stands beside common_name", "Keep only one of them, such as subject with CN")
    if unknown := sorted(set(attributes) - _ATTRIBUTES):
        table.wrong("subject", f"has the unknown attribute {unknown[0][:20]}", _KNOWN)
    configured = common_name or attributes.pop("CN", None)
    name = registration_id or configured
    if registration_id is not None and configured not in (None, registration_id):
        table.warn("common_name", f"is not used: the certificate is for the registration id {registration_id}")
    if name is None:
        table.wrong("common_name", "is missing, and there is no registration_id", '`common_name = "my-device"`')
        return "", attributes
    try:
        return parse_common_name(name), attributes
    except BirthmarkError:
        key = "subject" if common_name is None else "common_name"
        table.wrong(key, "a common name has 1 to 64 printable characters", "A shorter name: it is not cut")
        return name, attributes


def registration_id_of(value: object) -> str:
    """Return the registration id as written. DPS compares it without regard to case."""
    text = TEXT(value)
    try:
        parse_registration_id(text)
    except BirthmarkError as error:
        accepted = "At most 128 letters, digits and - . _ :, ending with a letter, a digit or -"
        raise MistakeError("is not a registration id", accepted) from error
    return text
