"""Certificate issuance settings: over EST, by a local CA or self-signed, with names and renewal rules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.agent.config.key_and_file_uris import files_of, take_pair
from birthmark.agent.config.model import (
    AzureIssuance,
    EstAuth,
    EstIssuance,
    IssuedIdentity,
    KeyLocation,
    LocalIssuance,
    PreloadedIdentity,
    X509Pair,
)
from birthmark.agent.config.toml_tables import (
    ANY,
    FILLED,
    FLAG,
    SECRET,
    TEXT,
    MistakeError,
    Table,
    kind_of,
    number_from,
    text_like,
)
from birthmark.agent.renewal_policy import Renewal, RenewalSpan, leaves_time, parse_span
from birthmark.agent.state_directory import DEVICE_ID, EDGE_CA, EST_ID, LOCAL_CA
from birthmark.device_transports.urls import UrlInvalidError, parse_url, suggest_url
from birthmark.errors import BirthmarkError
from birthmark.pki.names_and_registration_ids import parse_common_name

_PATH = "/.well-known/est"
_HTTPS = f"https://host:8085{_PATH}"
_LOCAL_CA = '`cert = "file:///ca.pem"` with `pk = "file:///ca.key"`'
_METHODS = '`method = "est"`, `method = "azure"`, `method = "local_ca"` or `method = "self_signed"`'
_BOOTSTRAP = '`bootstrap_identity_cert = "file:///born.pem"` and bootstrap_identity_pk, by which it registers'
ATTRIBUTES: Mapping[str, x509.ObjectIdentifier] = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "DC": NameOID.DOMAIN_COMPONENT,
    "STREET": NameOID.STREET_ADDRESS,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "EMAILADDRESS": NameOID.EMAIL_ADDRESS,
}
_KNOWN = frozenset({"CN", *ATTRIBUTES})
_SUBJECT = kind_of(dict[str, FILLED], "must be a table of texts", '`subject = { CN = "device-1", L = "Bern" }`')
_DEFAULT_DAYS = 30
_LOCAL_CA_NAME = "aziot local CA"
EDGE_CA_NAME = "aziot-edge CA"
_EDGE_CA_DAYS = 90
_MINUTES = re.compile("([0-9]+)m")
_ALL_THREE = "is missing: auto_renew needs rotate_key, threshold and retry"
_GRAMMAR = 'an integer and %, min or day without a space, such as "80%", "60min", "2day"; percent from 1 to 99'


@dataclass(frozen=True, slots=True)
class Issuers:
    """Default issuers for certificates that configure none: an EST server with its trust, a CA on the device."""

    trusted: tuple[Path, ...] | None = None
    auth: EstAuth | None = None
    urls: Mapping[str, str | None] = field(default_factory=dict)
    local_ca: tuple[Path, KeyLocation] | IssuedIdentity | None = None
    identity_renewal: Renewal = field(default_factory=Renewal)


def parse_issuers(table: Table) -> Issuers:
    """Return the issuers in `[cert_issuance]`."""
    est, local = table.table("est"), table.table("local_ca")
    auth, urls = est.table("auth"), est.table("urls")
    found = Issuers(
        est.take("trusted_certs", files_of),
        _auth(auth),
        {name: urls.take(name, _url_of) for name in urls.names},
        identity_renewal=_renewal(est.table("identity_auto_renew")) if "identity_auto_renew" in est else Renewal(),
    )
    if "local_ca" in table:
        found = replace(found, local_ca=_local_ca(local, found))
    for one in (auth, est, local, table):
        one.finish()
    return found


def _local_ca(table: Table, issuers: Issuers) -> tuple[Path, KeyLocation] | IssuedIdentity | None:
    if isinstance(table.take("cert", ANY), dict):
        if table.take("pk", ANY) is not None:
            table.warn("pk", "is ignored: the certificate is issued, and the agent generates its key")
        inner = table.table("cert")
        has_name = "common_name" in inner or "subject" in inner
        return parse_issued(inner, None if has_name else _LOCAL_CA_NAME, issuers, LOCAL_CA, renewal=Renewal())
    pair = take_pair(table, "cert", "pk", "is missing", _LOCAL_CA)
    if pair is None:
        table.wrong("cert", "is missing", _LOCAL_CA)
    return None if pair is None else (pair.certificate, pair.key)


def parse_issued(
    table: Table, registration_id: str | None, issuers: Issuers, certificate_id: str, renewal: Renewal | None = None
) -> IssuedIdentity:
    """Return an issued certificate with its renewal rules; `renewal` applies if the table has none."""
    method = table.need("method", '"est"')
    common_name, subject = _subject(table, registration_id)
    days = table.take("expiry_days", number_from(1))
    ca = None if method != "local_ca" or isinstance(issuers.local_ca, IssuedIdentity) else issuers.local_ca
    lifetime = timedelta(days=days or _DEFAULT_DAYS)
    by: EstIssuance | LocalIssuance | AzureIssuance = LocalIssuance(
        lifetime, ca, is_self_signed=method == "self_signed"
    )
    if method == "est":
        by = _est_issuance(table, issuers, certificate_id)
        if days is not None:
            table.warn("expiry_days", "is ignored: the EST server decides how long the certificate lives")
    elif method == "azure":
        by = _azure_issuance(table, certificate_id)
        if days is not None:
            table.warn("expiry_days", "is ignored: the policy of the enrollment decides how long the certificate lives")
    elif method not in ("local_ca", "self_signed"):
        table.wrong("method", "is not known", _METHODS)
    elif method == "local_ca" and issuers.local_ca is None and not table.source.has_mistakes("cert_issuance"):
        table.wrong(
            "method", "is local_ca, but no local CA is configured", "`[cert_issuance.local_ca]` with cert and pk"
        )
    renewal = _renewal(table.table("auto_renew")) if "auto_renew" in table else renewal
    table.finish()
    return IssuedIdentity(common_name, subject, by, renewal)


def parse_edge_ca(table: Table, issuers: Issuers, *, is_wanted: bool) -> IssuedIdentity | PreloadedIdentity | None:
    """Return the edge CA: preloaded, issued, or self-signed if the table has only its lifetime."""
    if "method" in table and "cert" not in table:
        has_name = "common_name" in table or "subject" in table
        return parse_issued(table, None if has_name else EDGE_CA_NAME, issuers, EDGE_CA, renewal=Renewal())
    if "cert" in table:
        found: IssuedIdentity | PreloadedIdentity | None = take_pair(table, "cert", "pk")
    else:
        days = table.take("auto_generated_edge_ca_expiry_days", number_from(1)) or _EDGE_CA_DAYS
        renewal = _renewal(table.table("auto_renew")) if "auto_renew" in table else Renewal()
        if not renewal.rotate_key:
            table.wrong("auto_renew", "has rotate_key = false: this CA always gets a new key", "`rotate_key = true`")
        by = LocalIssuance(timedelta(days=days), is_self_signed=True)
        found = IssuedIdentity(EDGE_CA_NAME, {}, by, renewal) if is_wanted else None
    table.finish()
    return found


def _subject(table: Table, registration_id: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the common name and the other attributes; the registration ID, if present, is the common name."""
    common_name, subject = table.take("common_name", TEXT), table.take("subject", _SUBJECT)
    attributes = {name.upper(): value for name, value in (subject or {}).items()}
    if common_name is not None and subject is not None:
        table.wrong("subject", "conflicts with common_name", "Keep only one of them, such as subject with CN")
    if unknown := sorted(set(attributes) - _KNOWN):
        table.wrong("subject", f"has the unknown attribute {unknown[0][:20]}", f"Known: {', '.join(sorted(_KNOWN))}")
    configured = common_name or attributes.pop("CN", None)
    name = registration_id or configured
    if registration_id is not None and configured not in (None, registration_id):
        table.warn("common_name", f"is not used: the certificate is for the registration id {registration_id}")
    if name is None:
        table.wrong("common_name", "is missing, and no registration_id is set", '`common_name = "my-device"`')
        return "", attributes
    try:
        return parse_common_name(name), attributes
    except BirthmarkError:
        key = "subject" if common_name is None else "common_name"
        table.wrong(key, "a common name has 1 to 64 printable characters", "A shorter name: it is not cut")
        return name, attributes


def _est_issuance(table: Table, defaults: Issuers, certificate_id: str) -> EstIssuance:
    """Return how `certificate_id` is issued; its own URL and credentials override the global ones."""
    url = table.take("url", _url_of) or defaults.urls.get(certificate_id) or defaults.urls.get("default")
    is_told = table.source.has_mistakes("cert_issuance")  # values with errors are missing here
    if url is None and not is_told:
        table.wrong("url", "no EST URL is given", f'Under `[cert_issuance.est.urls]`: `default = "{_HTTPS}"`')
    own = _auth(table)
    auth = own or defaults.auth
    if auth is None and not is_told:
        table.wrong(
            "method",
            "EST auth is not configured",
            "`[cert_issuance.est.auth]` with username and password, or bootstrap_identity_cert and _pk",
        )
    identity_id = EST_ID if own is None else f"{EST_ID}-{certificate_id}"
    return EstIssuance(url or "", auth or EstAuth(), defaults.trusted, identity_id, defaults.identity_renewal)


def _azure_issuance(table: Table, certificate_id: str) -> AzureIssuance:
    pair = take_pair(table, "bootstrap_identity_cert", "bootstrap_identity_pk", "is missing", _BOOTSTRAP)
    if certificate_id != DEVICE_ID:
        table.wrong("method", "is azure, which issues a device's own certificate alone", '`method = "est"`')
    elif pair is None:
        table.wrong("bootstrap_identity_cert", "is missing: registration requires a certificate", _BOOTSTRAP)
    return AzureIssuance(pair or PreloadedIdentity(Path(), Path()))


def _auth(table: Table) -> EstAuth | None:
    """Return the credentials in a table; None if it has none. Other keys may be present."""
    username, password = table.take("username", TEXT), table.take("password", SECRET)
    if (username is None) != (password is None):
        missing = "password" if password is None else "username"
        table.wrong(missing, "is missing: user name and password belong together", f'`{missing} = "…"`')
    if username is not None and ":" in username:
        table.wrong("username", "has a colon, which HTTP Basic cannot carry", '`username = "without-colon"`')
    bootstrap = take_pair(table, "bootstrap_identity_cert", "bootstrap_identity_pk")
    identity = take_pair(table, "identity_cert", "identity_pk")
    if bootstrap is not None and identity is not None:
        table.wrong(
            "identity_cert",
            "conflicts with bootstrap_identity_cert; only one of them can be set",
            "Keep bootstrap_identity_cert and _pk for a first introduction, or identity_cert and _pk; not both",
        )
    pair = bootstrap or identity
    if username is None and password is None and pair is None:
        return None
    shown = None if pair is None else X509Pair(pair.certificate, pair.key, is_bootstrap=pair is bootstrap)
    return EstAuth(username, password, shown)


def _url_of(value: object) -> str:
    url = text_like(f'`{{name}} = "{_HTTPS}"`')(value)
    accepted = f'`{{name}} = "{suggest_url(url, _PATH) or _HTTPS}"`'
    if url.lower().startswith("http://"):
        raise MistakeError("uses http, which sends the password unencrypted", accepted)
    try:
        parse_url(url)
    except UrlInvalidError as error:
        raise MistakeError("is not a URL", accepted) from error
    return url


def _renewal(table: Table) -> Renewal:
    """Return the rules of an `auto_renew` table; if the table exists, all three keys are required."""
    rotate = table.take("rotate_key", FLAG)
    if rotate is None:
        table.wrong("rotate_key", _ALL_THREE, "`rotate_key = true`")
    renewal = Renewal(rotate is True, _span(table, "threshold", "80%"), _span(table, "retry", "4%"))
    if not leaves_time(renewal):
        table.wrong(
            "retry",
            f"is {renewal.retry}, longer than the time left after the threshold of {renewal.threshold}",
            '`threshold = "80%"` with `retry = "4%"` leaves five tries',
        )
    table.finish()
    return renewal


def _span(table: Table, name: str, example: str) -> RenewalSpan:
    accepted = f'`{name} = "{example}"`: {_GRAMMAR}'
    text = table.take(name, text_like(accepted.replace("{", "{{").replace("}", "}}")))
    span = parse_span(text or "")
    if span is None and (minutes := _MINUTES.fullmatch(text or "")) is not None:
        meant = f"{minutes[1]}min"
        table.warn(name, f'"{text}" is interpreted as "{meant}"; aziot itself rejects it')
        span = parse_span(meant)
    if span is None:
        table.wrong(name, _ALL_THREE if text is None else "is outside the grammar", accepted)
    return span or RenewalSpan(percent=1)
