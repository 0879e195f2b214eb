"""What the extensions of a certificate say, as far as anyone here asks (RFC 5280 section 4.2).

Read by `cryptography` where it can, eight times as fast, and by asn1crypto otherwise: `cryptography` refuses the
extensions of genuine Microchip TNGTLS certificates, which carry an underscore in a PrintableString. Lenient about
string types for that reason, strict about structure. Names are compared byte by byte, so they are taken undecoded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asn1crypto import x509 as asn1
from cryptography import x509

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
# Critical extensions whose meaning is honored here. Name constraints are not: a CA that has them is refused.
_KNOWN_CRITICAL = frozenset(
    {"basic_constraints", "key_usage", "extended_key_usage", "subject_alt_name", "certificate_policies"}
)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "basic_constraints": lambda value: (value.parsed["ca"].native, value.parsed["path_len_constraint"].native),
    "key_usage": lambda value: frozenset(value.parsed.native),
    "extended_key_usage": lambda value: frozenset(purpose.dotted for purpose in value.parsed),
    "key_identifier": lambda value: value.parsed.native,
    "authority_key_identifier": lambda value: value.parsed["key_identifier"].native,
    "subject_alt_name": lambda value: value.contents,
}


@dataclass(frozen=True, slots=True)
class Extensions:
    """Absent extensions are None; None for a usage means that every usage is allowed."""

    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] | None = None
    """asn1crypto's names: digital_signature, key_cert_sign, crl_sign …"""
    extended_key_usage: frozenset[str] | None = None
    """Dotted object ids."""
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    subject_alt_name: bytes | None = None
    """The DER value, for comparison byte by byte."""
    unknown_critical: tuple[str, ...] = ()


_USAGES = {
    "digital_signature": "digital_signature",
    "content_commitment": "non_repudiation",
    "key_encipherment": "key_encipherment",
    "data_encipherment": "data_encipherment",
    "key_agreement": "key_agreement",
    "key_cert_sign": "key_cert_sign",
    "crl_sign": "crl_sign",
}


def read_extensions(der: bytes, parsed: x509.Certificate | None = None) -> Extensions:
    """Read the extensions of a DER certificate. Raise `ValueError` or `TypeError`."""
    if parsed is not None:
        try:
            return _read_plain(parsed.extensions)
        except (ValueError, x509.DuplicateExtension, _Unusual):
            pass  # the thorough reader decides
    try:
        return _read_thoroughly(der)
    except (IndexError, KeyError, AttributeError, RecursionError, OverflowError) as problem:
        # asn1crypto trips over damaged values in more ways than it says.
        raise ValueError("the extensions are damaged") from problem


class _Unusual(Exception):  # noqa: N818 - a way out to the thorough reader
    """Something the quick reader leaves to the other."""


def _read_plain(found: x509.Extensions) -> Extensions:
    is_ca, path_length = False, None
    key_usage: frozenset[str] | None = None
    purposes: frozenset[str] | None = None
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    for extension in found:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            is_ca, path_length = value.ca, value.path_length
        elif isinstance(value, x509.KeyUsage):
            if value.key_agreement:  # encipherOnly and decipherOnly hang on it
                raise _Unusual
            key_usage = frozenset(ours for theirs, ours in _USAGES.items() if getattr(value, theirs))
        elif isinstance(value, x509.ExtendedKeyUsage):
            purposes = frozenset(purpose.dotted_string for purpose in value)
        elif isinstance(value, x509.SubjectKeyIdentifier):
            subject_key_id = value.digest
        elif isinstance(value, x509.AuthorityKeyIdentifier):
            authority_key_id = value.key_identifier
        elif extension.critical or isinstance(value, x509.SubjectAlternativeName):
            raise _Unusual
    return Extensions(
        is_ca=is_ca,
        path_length=path_length,
        key_usage=key_usage,
        extended_key_usage=purposes,
        subject_key_id=subject_key_id,
        authority_key_id=authority_key_id,
    )


def _read_thoroughly(der: bytes) -> Extensions:
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for extension in asn1.Certificate.load(der, strict=True)["tbs_certificate"]["extensions"] or ():
        name: str = extension["extn_id"].native
        if name in values:
            msg = f"extension {name} twice"  # RFC 5280 section 4.2 forbids it
            raise ValueError(msg)
        values[name] = _READERS[name](extension["extn_value"]) if name in _READERS else None
        if extension["critical"].native and name not in _KNOWN_CRITICAL:
            unknown.append(extension["extn_id"].dotted)
    is_ca, path_length = values.get("basic_constraints", (False, None))
    return Extensions(
        is_ca=is_ca,
        path_length=path_length,
        key_usage=values.get("key_usage"),
        extended_key_usage=values.get("extended_key_usage"),
        subject_key_id=values.get("key_identifier"),
        authority_key_id=values.get("authority_key_identifier"),
        subject_alt_name=values.get("subject_alt_name"),
        unknown_critical=tuple(unknown),
    )
