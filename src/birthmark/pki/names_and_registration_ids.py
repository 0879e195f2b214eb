"""Names in certificates: common names, distinguished names as text, DPS registration ids.

Sources: RFC 5280 appendix A.1 (ub-common-name), RFC 4514 (text form), Azure DPS concepts (registration id).
"""

import re
from string import ascii_lowercase, ascii_uppercase
from typing import NewType

from cryptography import x509
from cryptography.x509.oid import NameOID

from birthmark.errors import InvalidRequestError
from birthmark.untrusted_json_and_text import printable

RegistrationId = NewType("RegistrationId", str)
MAX_COMMON_NAME_BYTES = 64  # the bound is 64 characters; common tools count UTF-8 bytes
MAX_REGISTRATION_ID_CHARS = 128
MAKE_CERTIFICATE = "Your own CA issues a certificate with a key: `birthmark ca issue device-1 --dir ca`."
"""Fix for any error of a device's certificate."""
MAKE_REQUEST = (
    "Create another request with a new key: `(umask 077; set -C; openssl genpkey -algorithm EC "
    "-pkeyopt ec_paramgen_curve:P-256 > new.key && openssl req -new -key new.key -subj /CN=device-1 > new.csr)`."
)
"""Fix for any error of a request; `birthmark chip csr` does the same in a chip."""
MAKE_CA = (
    "Create such a CA and issue a certificate: `birthmark ca init --name Devices --dir new-ca && "
    "birthmark ca issue device-1 --dir new-ca`"
)
SEND_LESS = (
    "Send only the leaf and its intermediates. If there is no intermediate CA, send only the leaf: "
    '`(set -C; openssl x509 -in "$X509_CERT_FILE" > leaf.pem) && export X509_CERT_FILE=leaf.pem`'
)
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_REGISTRATION_ID = re.compile(r"[A-Za-z0-9\-._:]*[A-Za-z0-9\-]")


class CommonNameInvalidError(InvalidRequestError):
    """The common name must have 1 to 64 printable characters."""

    code = "pki.common_name_invalid"
    cause = "A certificate's common name must have 1 to 64 printable characters; this one has {length}."
    fix = f"Use a shorter device ID, or put the long name into another attribute. {MAKE_CERTIFICATE}"
    length: int


class RegistrationIdInvalidError(InvalidRequestError):
    """The registration ID is too long or contains characters that are not allowed."""

    code = "pki.registration_id_invalid"
    cause = (
        "A registration ID can contain at most 128 characters (letters, digits, and - . _ :) and must end with a "
        "letter, a digit, or -."
    )
    fix = (
        "Use only these characters in the certificate's common name and the request's registration ID. "
        f"{MAKE_CERTIFICATE}"
    )
    length: int = 0
    text: str = ""


def parse_registration_id(text: str) -> RegistrationId:
    """Return the id in lower case, as DPS stores and compares it. Raise `RegistrationIdInvalidError`."""
    if len(text) > MAX_REGISTRATION_ID_CHARS:
        raise RegistrationIdInvalidError(length=len(text))
    if _REGISTRATION_ID.fullmatch(text) is None:
        raise RegistrationIdInvalidError(text=printable(text))
    return RegistrationId(text.lower())


def fold(name: str) -> str:
    """Return `name` as EST, CA and DPS compare it: ASCII letters in lower case, other characters unchanged.

    Only ASCII: a Kelvin sign must not match the k of another device, and both databases fold alike.
    """
    return name.translate(_LOWER)


def parse_common_name(text: str) -> str:
    """Return `text` if it is a valid common name.

    It is never truncated: a truncated name no longer matches a registration ID.
    """
    if not 0 < len(text.encode()) <= MAX_COMMON_NAME_BYTES or not text.isprintable():
        raise CommonNameInvalidError(length=len(text))
    return text


def name_of(common_name: str, organization: str | None = None) -> x509.Name:
    """Return a distinguished name with only this common name, and optionally an organization."""
    above = [] if organization is None else [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    return x509.Name([*above, x509.NameAttribute(NameOID.COMMON_NAME, parse_common_name(common_name))])


def common_name_of(name: x509.Name) -> str | None:
    """Return the only common name; None if there is none or several, which is ambiguous."""
    match name.get_attributes_for_oid(NameOID.COMMON_NAME):
        case [single]:
            value = single.value
            return value if isinstance(value, str) else None
        case _:
            return None


def text_of(name: x509.Name) -> str:
    """Format a name as text (RFC 4514), safe for a log line."""
    return printable(name.rfc4514_string())
