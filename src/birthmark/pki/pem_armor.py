"""PEM encoding (RFC 7468): one block to DER."""

import base64
import re

from birthmark.errors import InvalidRequestError
from birthmark.pki.names_and_registration_ids import MAKE_REQUEST
from birthmark.text_file_encodings import plain_text, unseen_in_pem

MAX_PEM_BYTES = 256 * 1024
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9# ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_REQUEST = b"CERTIFICATE REQUEST"


class PemInvalidError(InvalidRequestError):
    """The data is neither PEM, base64 nor DER."""

    code = "pki.pem_invalid"
    message = "The data cannot be read: {detail}"
    cause = "The data is neither PEM nor DER: {detail}."
    fix = f"Provide the request in PEM form (-----BEGIN …-----) or in DER form. {MAKE_REQUEST}"
    detail: str


class RequestsSeveralError(PemInvalidError):
    """The data contains several certificate signing requests."""

    code = "pki.requests_several"
    message = "The data contains several certificate signing requests"
    cause = "The data contains {count} certificate signing requests; only one can be signed at a time."
    fix = f"Put each request into its own file. {MAKE_REQUEST}"
    count: int
    detail: str = "it has several certificate requests"


def check_single_request(text: bytes, label: bytes) -> None:
    """Raise `RequestsSeveralError` if the PEM has several blocks with a request's label."""
    if (count := text.count(b"-----BEGIN %b-----" % label)) > 1:
        raise RequestsSeveralError(count=count)


def pem_in(text: bytes) -> bytes:
    """Return the PEM in base64, as Key Vault and Kubernetes store it; other data unchanged."""
    if b"-----BEGIN " in text:
        return text
    try:
        inner = plain_text(base64.b64decode(b"".join(text.split()), validate=True))
    except ValueError:
        return text
    return inner if b"-----BEGIN " in inner and inner[:1] != b"\x30" else text


def unarmor(data: bytes) -> bytes:
    """Return the DER of the first PEM block or of bare base64, or DER unchanged. Raise `PemInvalidError`.

    Keys and certificates may be followed by other blocks; several requests raise an error, so that none is dropped
    silently.
    """
    if len(data) > MAX_PEM_BYTES:
        raise PemInvalidError(detail=f"more than {MAX_PEM_BYTES} bytes")
    data = pem_in(plain_text(data))
    if data[:1] == b"\x30":
        return data
    block = _BLOCK.search(data)
    if block is not None and block[1].endswith(_REQUEST):
        check_single_request(data, block[1])
    text = data if block is None else block[2]
    try:
        der = base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError as error:
        raise PemInvalidError(detail=unseen_in_pem(data) or "broken base64") from error
    if not der:
        raise PemInvalidError(detail="it is empty")
    return der
