"""Parsed certificate extensions, limited to those in use (RFC 5280 section 4.2).

Parsed by `cryptography` if possible, eight times as fast, and otherwise by asn1crypto. `cryptography` rejects the
extensions of genuine Microchip TNGTLS certificates, which have an underscore in a PrintableString. Parsing is therefore
lenient about string types but strict about structure. Names are compared as bytes, so they stay encoded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asn1crypto import x509 as asn1
from cryptography import x509

from birthmark.pki.der import check_quick
from birthmark.pki.name_constraints import MAX_CONSTRAINTS, ConstrainedName, NameConstraints

# asn1crypto raises more types for damaged values than it documents.
ASN1_TROUBLE = (ValueError, TypeError, OverflowError, IndexError, KeyError, AttributeError, RecursionError)

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CMC_RA = "1.3.6.1.5.5.7.3.28"
"""Extended key usage of a registration authority (RFC 6402 section 2.10)."""
# Extension name -> the field it fills, and the function that reads its value.
_READERS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "basic_constraints": (
        "basic",
        lambda value: (value.parsed["ca"].native, value.parsed["path_len_constraint"].native),
    ),
    "key_usage": ("key_usage", lambda value: frozenset(value.parsed.native)),
    "extended_key_usage": ("extended_key_usage", lambda value: frozenset(dotted_of(one) for one in value.parsed)),
    "key_identifier": ("subject_key_id", lambda value: value.parsed.native),
    "authority_key_identifier": ("authority_key_id", lambda value: value.parsed["key_identifier"].native),
    "subject_alt_name": ("subject_alt_name", lambda value: value.contents),
    "name_constraints": ("name_constraints_der", lambda value: value.contents),
}
_SUBTREES = ("permitted_subtrees", "excluded_subtrees")
# Critical extensions that are enforced here; key identifiers must not be critical.
_MOST_BYTES = {"key_usage": 16, "basic_constraints": 64, "name_constraints": 8192}
_OFTEN_BYTES = 4096
"""Maximum length of a parsed value: far more than any CA uses, and parsed in milliseconds."""
_MOST_EXTENSIONS = 100
_MOST_OID_BYTES = 63
"""Maximum length of an OID, as in `cryptography`.

asn1crypto takes quadratic time: 500 ms for one of 64 KiB.
"""
_KNOWN_CRITICAL = {*_READERS, "certificate_policies"} - {"key_identifier", "authority_key_identifier"}
_MUST_BE_CRITICAL = frozenset({"name_constraints", "policy_constraints"})  # RFC 5280 sections 4.2.1.10 and 4.2.1.11
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)
"""Independent keyUsage bits, named as in cryptography."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """Extensions of a certificate. Absent extensions are None; for a usage, None permits every usage."""

    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] | None = None
    """asn1crypto's names: digital_signature, key_cert_sign, crl_sign …"""
    extended_key_usage: frozenset[str] | None = None
    """Object IDs in dotted notation."""
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    subject_alt_name: bytes | None = None
    """The DER value, for comparison byte by byte."""
    name_constraints_der: bytes | None = None
    """DER of the name constraints, parsed lazily: it takes 10 ms, and a client may send several per handshake."""
    unknown_critical: tuple[str, ...] = ()
    wrongly_critical: tuple[str, ...] = ()
    """Non-critical extensions that RFC 5280 requires to be critical, by asn1crypto's names."""
    critical: frozenset[str] = frozenset()
    """Those of basic_constraints and subject_alt_name that are critical."""

    @property
    def name_constraints(self) -> NameConstraints | None:
        """Parse the name constraints of a CA whose signature is used. Raise `ValueError`."""
        try:
            return None if self.name_constraints_der is None else _constraints_in(self.name_constraints_der)
        except ASN1_TROUBLE as error:
            raise ValueError("the name constraints are damaged") from error


def read_extensions(der: bytes, parsed: x509.Certificate | None = None) -> Extensions:
    """Read the extensions of a DER certificate. Raise `ValueError` or `TypeError` for a malformed certificate."""
    if parsed is not None:
        try:
            return _read_plain(parsed.extensions)
        except (
            ValueError,
            TypeError,
            KeyError,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
            _UncommonExtension,
        ):
            pass  # the full reader decides
    try:
        check_quick(der)
        return _read_thoroughly(der)
    except ASN1_TROUBLE as error:
        raise ValueError("the extensions are damaged") from error


_LEFT_TO_THE_OTHER = (x509.SubjectAlternativeName, x509.NameConstraints, x509.PolicyConstraints)


class _UncommonExtension(Exception):  # noqa: N818 - signals the full reader
    """An extension that the fast parser leaves to the complete one."""


_BASIC = frozenset({"basic_constraints"})


def _read_plain(extensions: x509.Extensions) -> Extensions:
    says: dict[str, Any] = {}
    for extension in extensions:
        value = extension.value
        match type(value):  # `isinstance` with these abstract classes costs as much as the library's own parsing
            case x509.BasicConstraints:
                says["is_ca"], says["path_length"] = value.ca, value.path_length
                if extension.critical:
                    says["critical"] = _BASIC
            case x509.KeyUsage:
                if value.key_agreement:  # encipherOnly and decipherOnly need it
                    raise _UncommonExtension
                says["key_usage"] = _usages_of(value)
            case x509.ExtendedKeyUsage:
                says["extended_key_usage"] = _purposes_of(value)
            case x509.SubjectKeyIdentifier:
                says["subject_key_id"] = value.digest
            case x509.AuthorityKeyIdentifier:
                says["authority_key_id"] = value.key_identifier
            case kind:
                if extension.critical or kind in _LEFT_TO_THE_OTHER:
                    raise _UncommonExtension
    return Extensions(**says)


# Certificates of one profile have equal extensions, so they share one parsed object.
@lru_cache(maxsize=64)
def _usages_of(value: x509.KeyUsage) -> frozenset[str]:
    given = {name for name in USAGES if getattr(value, name)}
    return frozenset("non_repudiation" if name == "content_commitment" else name for name in given)


@lru_cache(maxsize=64)
def _purposes_of(value: x509.ExtendedKeyUsage) -> frozenset[str]:
    return frozenset(purpose.dotted_string for purpose in value)


def _read_thoroughly(der: bytes) -> Extensions:
    says: dict[str, Any] = {}
    seen: set[str] = set()
    unknown: list[str] = []
    wrong: list[str] = []
    critical: set[str] = set()
    for extension in asn1.Certificate.load(der, strict=True)["tbs_certificate"]["extensions"] or ():
        name = _named(extension)
        if name in seen:
            raise ValueError(f"extension {name} occurs twice")  # RFC 5280 section 4.2: forbidden
        seen.add(name)
        if len(seen) > _MOST_EXTENSIONS:
            raise ValueError("the certificate has too many extensions")
        if name in _READERS:
            member, read = _READERS[name]
            value = extension["extn_value"]
            if name != "subject_alt_name" and len(value.contents) > _MOST_BYTES.get(name, _OFTEN_BYTES):
                raise ValueError(f"extension {name} is too long")
            says[member] = read(value)
        if extension["critical"].native:
            critical.add(name)
            if name not in _KNOWN_CRITICAL:
                unknown.append(dotted_of(extension["extn_id"]))
        elif name in _MUST_BE_CRITICAL:
            wrong.append(name)
    is_ca, path_length = says.pop("basic", (False, None))
    return Extensions(
        **says,
        is_ca=is_ca,
        path_length=path_length,
        unknown_critical=tuple(unknown),
        wrongly_critical=tuple(wrong),
        critical=frozenset(critical & {"basic_constraints", "subject_alt_name"}),
    )


def names_of(der: bytes) -> tuple[ConstrainedName, ...]:
    """Return the names subject to name constraints: the subject, email addresses in it, and SAN.

    Raise `ValueError` or `TypeError` for a malformed certificate.
    """
    try:
        check_quick(der)
        tbs = asn1.Certificate.load(der, strict=True)["tbs_certificate"]
        found: list[ConstrainedName] = []
        subject = tbs["subject"]
        if rdns := _rdns(subject):
            found.append(ConstrainedName("directory_name", rdns))
        san = next((one for one in tbs["extensions"] or () if _named(one) == "subject_alt_name"), None)
        if san is not None:
            found += [_name(general) for general in san["extn_value"].parsed]
        if not any(name.form == "rfc822_name" for name in found):  # RFC 5280 section 4.2.1.10, legacy
            found += [
                ConstrainedName("rfc822_name", pair["value"].native)
                for rdn in subject.chosen
                for pair in rdn
                if pair["type"].native == "email_address"
            ]
        return tuple(found)
    except ASN1_TROUBLE as error:
        raise ValueError("the names are damaged") from error


def dotted_of(oid: Any) -> str:
    """Return the dotted form of an OID parsed by asn1crypto. Raise `ValueError` for an invalid one."""
    if len(oid.contents) > _MOST_OID_BYTES:
        raise ValueError("an object identifier is too long")
    return str(oid.dotted)


def _named(extension: Any) -> str:
    """Return asn1crypto's name of an extension, or its OID if it has none."""
    dotted_of(extension["extn_id"])
    return str(extension["extn_id"].native)


@lru_cache(maxsize=16)
def _constraints_in(der: bytes) -> NameConstraints:
    value = asn1.NameConstraints.load(der, strict=True)
    if sum(len(value[part] or ()) for part in _SUBTREES) > MAX_CONSTRAINTS:
        raise ValueError("the certificate has too many name constraints")
    return NameConstraints(*(tuple(_name(subtree["base"]) for subtree in value[part] or ()) for part in _SUBTREES))


def _name(general: Any) -> ConstrainedName:
    """Return a general name; for forms that are never compared, only the form."""
    form: str = general.name
    match form:
        case "directory_name":
            return ConstrainedName(form, _rdns(general.chosen))
        case "ip_address":
            return ConstrainedName(form, bytes(general.chosen.contents or b""))
        case "dns_name" | "rfc822_name" | "uniform_resource_identifier":
            return ConstrainedName(form, (general.chosen.contents or b"").decode("latin-1"))
        case _:
            return ConstrainedName(form, b"")


def _rdns(name: Any) -> tuple[bytes, ...]:
    """Return the RDNs with string values in one encoding, so that equal names are equal bytes."""
    return tuple(
        b"".join(sorted(pair["type"].dump() + pair["value"].native.casefold().encode() for pair in rdn))
        for rdn in name.chosen
    )
