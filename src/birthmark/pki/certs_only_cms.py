"""Certs-only CMS: certificates in a SignedData without signers.

Source: RFC 5652 section 5, RFC 7030 section 4.1.3. DER sorts a SET OF, so the order is meaningless: a client finds its
own certificate by the public key.
"""

from collections.abc import Iterable

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.der import EXPLICIT_0, SEQUENCE, check_quick, wrap
from birthmark.pki.extension_parser import ASN1_TROUBLE, dotted_of

MAX_CMS_BYTES = 256 * 1024
MAX_CMS_CERTIFICATES = 64
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_SIGNED_DATA_OID = "1.2.840.113549.1.7.2"
_OF_NOTHING = bytes.fromhex("0201013100300b06092a864886f70d010701")
"""First fields of an unsigned SignedData: version 1, no digest algorithms, data without content."""
_BY_NOBODY = bytes.fromhex("3100")


class CmsInvalidError(InvalidRequestError):
    """The data is not a certs-only CMS message."""

    code = "pki.cms_invalid"
    message = "The message cannot be read: {detail}"
    cause = "The response is not a certs-only PKCS#7 message: {detail}."
    fix = "Check that the URL belongs to an EST server; the URL of a Birthmark server is `{wanted}`."
    detail: str
    wanted: str = "?"


def render_certs_only(certificates: Iterable[Certificate]) -> bytes:
    """Return the DER of a certs-only message."""
    bag = wrap(EXPLICIT_0, *sorted(certificate.der for certificate in certificates))
    return wrap(SEQUENCE, _SIGNED_DATA, wrap(EXPLICIT_0, wrap(SEQUENCE, _OF_NOTHING, bag, _BY_NOBODY)))


def parse_certs_only(der: bytes) -> tuple[Certificate, ...]:
    """Parse the certificates, at least one, in arbitrary order. Raise `InvalidRequestError`."""
    if len(der) > MAX_CMS_BYTES:
        raise CmsInvalidError(detail=f"more than {MAX_CMS_BYTES} bytes")
    from asn1crypto import cms  # noqa: PLC0415 - servers only write such bags

    try:
        check_quick(der)
        content = cms.ContentInfo.load(der, strict=True)
        if dotted_of(content["content_type"]) != _SIGNED_DATA_OID:
            raise CmsInvalidError(detail="not SignedData")
        choices = list(content["content"]["certificates"] or ())
        ders = [choice.chosen.dump() for choice in choices if choice.name == "certificate"]
    except ASN1_TROUBLE as error:
        raise CmsInvalidError(detail="it is not the DER of PKCS#7, or is cut off") from error
    if not 0 < len(ders) <= MAX_CMS_CERTIFICATES:
        raise CmsInvalidError(detail=f"{len(ders)} certificates")
    return tuple(parse_der(one) for one in ders)
