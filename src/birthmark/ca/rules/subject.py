"""Which subject a device gets: its name, where it stands, and what the operator says of it; nothing it claims itself.

Policies of a cloud can read O, OU, title or serialNumber, so a device may not choose them.
"""

from collections.abc import Mapping

from cryptography import x509
from cryptography.x509.oid import NameOID

_PLACE = (NameOID.COUNTRY_NAME, NameOID.STATE_OR_PROVINCE_NAME, NameOID.LOCALITY_NAME)
OPERATOR_MAY_SET = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


def granted_subject(asked: x509.Name, said: Mapping[str, str] | None = None) -> x509.Name:
    """Return `asked` with only its name and place parts, in their order, below what `said` has (by short name).

    Where the operator says a part, the device's own is left out.
    """
    fixed = {OPERATOR_MAY_SET[name]: value for name, value in (said or {}).items()}
    kept = [
        attribute
        for attribute in asked
        if attribute.oid == NameOID.COMMON_NAME or (attribute.oid in _PLACE and attribute.oid not in fixed)
    ]
    return x509.Name([*(x509.NameAttribute(oid, value) for oid, value in fixed.items()), *kept])
