"""Key files that contain a PKCS#11 URI: as text, or as a PEM block (draft-ietf-pkcs11-uri-pem)."""

from base64 import b64decode

from asn1crypto import core, pem

from birthmark.keys.pkcs11_uri import MAX_URI_CHARS, Pkcs11Uri, find_pkcs11_uri


def uri_in(content: bytes) -> str | None:
    """Return the URI in a file, as text or as pkcs11-provider's PEM block; None for other files."""
    if (uri := find_pkcs11_uri(content[: 2 * MAX_URI_CHARS].decode("ascii", "replace"))) is not None:
        return uri
    if b"-----BEGIN PKCS#11 PROVIDER URI-----" not in content:
        return None
    body = content.split(b"-----BEGIN PKCS#11 PROVIDER URI-----", 1)[1].split(b"-----END", 1)[0]
    try:
        return str(core.SequenceOf.load(b64decode(body), spec=core.Any)[1].parse(core.UTF8String).native)
    except (ValueError, TypeError, IndexError):
        return None


def render_uri_pem(uri: Pkcs11Uri) -> str:
    """Return the PEM block in which pkcs11-provider and `chip exec` find the URI; it contains no secret."""
    body = core.SequenceOf([core.VisibleString("PKCS#11 Provider URI v1.0"), core.UTF8String(str(uri))], spec=core.Any)
    return bytes(pem.armor("PKCS#11 PROVIDER URI", body.dump())).decode()
