"""What the extensions of a certificate say, as far as anyone here asks (RFC 5280 section 4.2).

Read by asn1crypto and not by `cryptography`, which refuses the extensions of genuine Microchip TNGTLS certificates:
they carry an underscore in a PrintableString. Lenient about string types for that reason, strict about structure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asn1crypto import x509 as asn1

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


def read_extensions(der: bytes) -> Extensions:
    """Read the extensions of a DER certificate. Raise `ValueError` or `TypeError`."""
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
