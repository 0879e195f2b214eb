"""Which subject a device gets: its name, where it stands, and what the operator says of it; nothing it claims itself.

Policies of a cloud can read O, OU, title or serialNumber, so a device may not choose them.
"""

import re
from collections.abc import Mapping
from hashlib import sha256

from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.pki.names import MAX_COMMON_NAME_BYTES
from birthmark.pki.profiles import Profile

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
    asked: x509.Name, said: Mapping[str, str] | None = None, *, serial_number: str | None = None
) -> x509.Name:
    """Return `asked` with only its name and place parts, in their order, below what `said` has (by short name).

    Where the operator says a part, the device's own is left out. `serial_number` is that of its profile's rule.
    """
    fixed = {OPERATOR_MAY_SET[name]: value for name, value in (said or {}).items()}
    kept = [
        attribute
        for attribute in asked
        if attribute.oid == NameOID.COMMON_NAME or (attribute.oid in _PLACE and attribute.oid not in fixed)
    ]
    if not fixed and serial_number is None and len(kept) == len(asked.rdns) == len(list(asked)):
        return asked
    numbered = [] if serial_number is None else [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number)]
    return x509.Name([*(x509.NameAttribute(oid, value) for oid, value in fixed.items()), *kept, *numbered])


def ca_subject(device_id: str, said: Mapping[str, str] | None = None) -> x509.Name:
    """Return the subject of a device's own CA: its name and more, so that nobody takes it for the device's certificate.

    IoT Edge gives the host name to servers below its CA, and a CA of that very name makes clients go round in circles.
    """
    fixed = [x509.NameAttribute(OPERATOR_MAY_SET[name], value) for name, value in (said or {}).items()]
    common_name = f"{device_id[: MAX_COMMON_NAME_BYTES - len(_EDGE_CA)]}{_EDGE_CA}"
    return x509.Name([*fixed, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def granted_serial_number(
    profile: Profile, device_id: str, asked: x509.Name, held: x509.Name | None, *, by_operator: bool
) -> str | None:
    """Return the serialNumber of a subject by `profile` (IEEE 802.1AR section 8.6), or None where it has none.

    A device does not choose it: a renewal keeps the one there is, else it is the device's name, or the digest of a name
    that a PrintableString cannot hold.
    """
    if not profile.has_serial_number:
        return None
    chosen = asked if by_operator else held
    found = [] if chosen is None else chosen.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    text = str(found[0].value) if found else ""
    usable = (one for one in (text, device_id) if _PRINTABLE_STRING.fullmatch(one))
    return next(usable, sha256(device_id.encode()).hexdigest())
