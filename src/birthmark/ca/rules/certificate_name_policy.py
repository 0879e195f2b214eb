"""Policy for requested subject alternative names. Pure.

A profile that copies names lists the allowed ones. A request with another name is rejected completely, so that no
certificate lacks a requested name. A renewal keeps the existing names.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network

from asn1crypto import core
from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.errors import PolicyError
from birthmark.pki.certificate_profiles import AllowedNames, CertificateProfile
from birthmark.pki.certificates import Certificate
from birthmark.pki.extension_parser import ASN1_TROUBLE
from birthmark.pki.name_constraints import is_host_name
from birthmark.pki.names_and_registration_ids import MAKE_REQUEST, MAX_COMMON_NAME_BYTES
from birthmark.untrusted_json_and_text import printable

_EDGE_CA = " Edge CA"
_PRINTABLE_STRING = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]{1,64}")
_PLACE = (NameOID.COUNTRY_NAME, NameOID.STATE_OR_PROVINCE_NAME, NameOID.LOCALITY_NAME)
OPERATOR_MAY_SET = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


def granted_subject(
    asked: x509.Name, values: Mapping[str, str] | None = None, *, serial_number: str | None = None
) -> x509.Name:
    """Return the subject `asked` with only name and place attributes, plus the operator's values.

    Values are by short name. An attribute set by the operator replaces the device's. `serial_number` follows the
    profile's rule.
    """
    fixed = {OPERATOR_MAY_SET[name]: value for name, value in (values or {}).items()}
    kept = [
        attribute
        for attribute in asked
        if attribute.oid == NameOID.COMMON_NAME or (attribute.oid in _PLACE and attribute.oid not in fixed)
    ]
    if not fixed and serial_number is None and len(kept) == len(asked.rdns) == len(list(asked)):
        return asked
    numbered = [] if serial_number is None else [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number)]
    return x509.Name([*(x509.NameAttribute(oid, value) for oid, value in fixed.items()), *kept, *numbered])


def ca_subject(device_id: str, values: Mapping[str, str] | None = None) -> x509.Name:
    """Return the subject of a device's own CA.

    A suffix distinguishes it from the device certificate. IoT Edge uses the host name for servers under its CA, and a
    CA with the same name causes a loop in clients' path building.
    """
    fixed = [x509.NameAttribute(OPERATOR_MAY_SET[name], value) for name, value in (values or {}).items()]
    common_name = f"{device_id[: MAX_COMMON_NAME_BYTES - len(_EDGE_CA)]}{_EDGE_CA}"
    return x509.Name([*fixed, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def granted_serial_number(
    profile: CertificateProfile, device_id: str, asked: x509.Name, held: x509.Name | None, *, by_operator: bool
) -> str | None:
    """Return the serialNumber of a subject by `profile` (IEEE 802.1AR section 8.6), or None without one.

    A device cannot choose it. A renewal keeps the existing value; otherwise it is the device's name, or the digest of a
    name that a PrintableString cannot encode.
    """
    if not profile.has_serial_number:
        return None
    chosen = asked if by_operator else held
    found = [] if chosen is None else chosen.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    text = str(found[0].value) if found else ""
    usable = (one for one in (text, device_id) if _PRINTABLE_STRING.fullmatch(one))
    return next(usable, sha256(device_id.encode()).hexdigest())


MAX_NAMES = 32
HARDWARE_MODULE_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")
_URI_ENDS = "/?#:"
_URI = re.compile(  # RFC 3986 appendix B; only host and port of an authority: certificates do not identify users
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://(?P<authority>[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*))?"
    r"(?P<path>[^?#\\\s]*)(?:\?[^#\\\s]*)?(?:#[^\\\s]*)?"
)
_DOTS = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")
"""Dot segments of a path, which resolve to a different path."""


class NamesRefusedError(PolicyError):
    """A requested name is not allowed."""

    code = "ca.names_refused"
    cause = (
        "The request contains the name {name}, but the profile '{profile}' allows only the following names: {allowed}."
    )
    fix = f"Omit that name from the request, or allow it in [ca.profiles.NAME]. {MAKE_REQUEST}"
    allowed: str
    name: str
    profile: str


def granted_names(
    names: Sequence[x509.GeneralName],
    profile: CertificateProfile,
    *,
    general_names: Sequence[x509.GeneralName] = (),
    by_operator: bool,
) -> tuple[x509.GeneralName, ...]:
    """Return the names for a certificate by `profile`. Raise `NamesRefusedError`.

    `general_names` has the names of the renewed certificate, which are kept whether requested or not.
    """
    if profile.names is None:
        return ()
    if general_names and list(names) in ([], list(general_names)):
        return tuple(general_names)
    if len(names) > MAX_NAMES:
        raise _refusal(f"number {MAX_NAMES + 1}", profile)
    for one in names:
        if not _is_allowed(one, profile.names, by_operator=by_operator):
            raise _refusal(printable(str(getattr(one, "value", one)))[:80], profile)
    return tuple(dict.fromkeys(names))


def _is_allowed(name: x509.GeneralName, allowed: AllowedNames, *, by_operator: bool) -> bool:
    match name:
        case x509.DNSName(value=str(host)):
            return is_host_name(host) and any(_is_below(host.lower(), one.lower()) for one in allowed.dns)
        case x509.IPAddress(value=address):
            network = address if isinstance(address, IPv4Network | IPv6Network) else ip_network(address)
            return network.num_addresses == 1 and any(_is_in(network, one) for one in allowed.networks)
        case x509.UniformResourceIdentifier(value=str(uri)):
            return uri.isprintable() and any(_begins(uri, one) for one in allowed.uris)
        case x509.OtherName(type_id=kind, value=value) if kind == HARDWARE_MODULE_NAME:
            return allowed.hardware_module and by_operator and is_hardware_module(value)
        case _:
            return False


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _is_in(network: IPv4Network | IPv6Network, allowed: IPv4Network | IPv6Network) -> bool:
    return network.version == allowed.version and network.network_address in allowed


def _begins(uri: str, prefix: str) -> bool:
    """Return whether a URI is under an allowed one (RFC 3986).

    Scheme, host and port must be equal, and the path matches by complete segments. Neither
    https://example.org.evil.example nor https://example.org:80@evil is under https://example.org.
    """
    if not uri.startswith(prefix):
        return False
    parts, allowed = _URI.fullmatch(uri), _URI.fullmatch(prefix)
    if parts is None or allowed is None or _DOTS.search(parts["path"]):
        return False
    if parts["scheme"] != allowed["scheme"] or parts["authority"] != allowed["authority"]:
        return False
    rest = uri.removeprefix(prefix)
    return not rest or prefix[-1] in _URI_ENDS or rest[0] in _URI_ENDS


def is_hardware_module(value: bytes) -> bool:
    """Return whether this is a hardwareModuleName value: hardware type and serial number."""
    try:
        read = core.Sequence.load(value, strict=True)
        parts = [type(read[number]) for number in range(len(read))]
    except ASN1_TROUBLE:
        return False
    return parts == [core.ObjectIdentifier, core.OctetString]


def _refusal(name: str, profile: CertificateProfile) -> NamesRefusedError:
    allowed = profile.names or AllowedNames()
    words = [*(f"names below {one}" for one in allowed.dns), *(f"addresses in {one}" for one in allowed.networks)]
    words += [f"URIs that begin with {one}" for one in allowed.uris]
    if allowed.hardware_module:
        words.append("a hardwareModuleName from an operator")
    return NamesRefusedError(name=name, profile=profile.name, allowed=", ".join(words) or "none")


def check_taken_over(
    issued: Certificate,
    names: Sequence[x509.GeneralName],
    granted: Sequence[x509.GeneralName],
    profile: CertificateProfile,
) -> None:
    """Raise `NamesRefusedError` if an external CA copied names from the request that were not granted.

    Names that the external CA adds itself are allowed.
    """
    beyond = [one for one in names if one not in granted]
    if beyond and any(one not in granted for one in names_in(issued)):
        raise _refusal(printable(str(getattr(beyond[0], "value", beyond[0])))[:80], profile)


def names_in(certificate: Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the names in a certificate's subjectAltName; empty without the extension."""
    try:
        return tuple(certificate.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()
