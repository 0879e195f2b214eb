"""EST bodies to values and back (RFC 7030, clarified by RFC 8951 and RFC 9908), for client and server.

In:   a body as received, at most MAX_BODY_BYTES: base64 of DER with or without line breaks. PEM armor and raw DER are
      accepted too, whatever Content-Transfer-Encoding states (RFC 8951 section 3.1).
Out:  base64 in lines of 64 characters, or in one line.
Raises `InvalidRequestError`; never returns a partially checked value.

Not here: authorization (service), HTTP statuses (errors), TLS (net).
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from asn1crypto import core

from birthmark.errors import InvalidRequestError, UnauthenticatedError
from birthmark.pki.certificates import Certificate
from birthmark.pki.certs_only_cms import parse_certs_only as parse_cms
from birthmark.pki.certs_only_cms import render_certs_only as render_cms
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.csr import parse_csr as parse_pkcs10
from birthmark.pki.der import check_quick
from birthmark.pki.extension_parser import ASN1_TROUBLE, dotted_of
from birthmark.pki.pem_armor import check_single_request, pem_in
from birthmark.text_file_encodings import plain_text

REJECTED = "An operator rejected this request"
"""Start of the response to a rejected request, by which an agent repeats its request instead of creating another."""
BASE_PATH = "/.well-known/est"
OPERATIONS = ("cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs")
PKCS10 = "application/pkcs10"
PKCS8 = "application/pkcs8"
# This exact lower-case form: Azure's client compares byte by byte.
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
CSR_ATTRIBUTES = "application/csrattrs"
REFERENCE, REASON = "Birthmark-Reference", "Birthmark-Reason"
"""Headers of a refusal: the reference for `birthmark why`, and the message in ASCII."""
RENEWAL_WINDOW = "Renewal-Window"
"""Response header with the renewal window: two RFC 3339 times and a slash. Not defined by an RFC."""
MAX_BODY_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 512 * 1024
_LINE = 64
_MAX_WINDOW = 100
_ARMOR = re.compile(rb"-----(BEGIN|END) [A-Z0-9 ]{1,40}-----")
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[A-Za-z0-9+/=\s]*-----END \1-----")
_SEQUENCE = b"\x30"
ENCODE_REQUEST = "`(set -C; openssl req -in device.csr -outform DER | openssl base64 > new.b64)`"


class EstBodyInvalidError(InvalidRequestError):
    """The body is neither base64 nor DER."""

    code = "est.body_invalid"
    message = "The body cannot be decoded: {detail}"
    cause = "The body cannot be decoded: {detail}."
    fix = f"Send base64 of the DER request: {ENCODE_REQUEST}."
    detail: str = ""


class EstBodyTooLargeError(EstBodyInvalidError):
    """The body is too large."""

    code = "est.body_too_large"
    cause = "The body is larger than {limit} bytes."
    fix = f"Send only the certificate signing request, in base64 of DER: {ENCODE_REQUEST}."
    limit: int


class EstMediaTypeError(InvalidRequestError):
    """The content type must be application/pkcs10."""

    code = "est.media_type"
    cause = "The request's content type is '{found}'."
    fix = "Send the header `Content-Type: application/pkcs10` (curl: -H 'Content-Type: application/pkcs10')."
    found: str


class BasicInvalidError(UnauthenticatedError):
    """The Authorization header is not HTTP Basic."""

    code = "est.authorization_invalid"
    cause = "The Authorization header is not HTTP Basic or cannot be decoded."
    fix = "Send the user name and password with HTTP Basic (RFC 7617); in curl, use `--user`."


class FullCmcError(InvalidRequestError):
    """Full CMC is not supported."""

    code = "est.full_cmc"
    cause = "A client used fullcmc (RFC 7030 section 4.3), which is not supported."
    fix = "Use simpleenroll, which also issues certificates: `/.well-known/est/simpleenroll`."


class MethodWrongError(InvalidRequestError):
    """The operation requires another HTTP method."""

    code = "est.method_wrong"
    message = "{operation} requires {wanted}"
    cause = "The client called {operation} with {method}, but {operation} requires {wanted}."
    fix = "Call the operation with {wanted}; in curl, use `-X {wanted}`."
    method: str
    operation: str
    wanted: str


def decode_body(body: bytes, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the DER in a body. Raise `EstBodyInvalidError` or `RequestsSeveralError`."""
    if len(body) > limit:
        raise EstBodyTooLargeError(limit=limit)
    if body[:1] == _SEQUENCE:  # text would start with "0", and base64 of a SEQUENCE with "M"
        return body
    text = b"".join(_ARMOR.sub(b"", _request_in(pem_in(plain_text(body)))).split())
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise EstBodyInvalidError(detail="broken base64") from error
    if not der:
        raise EstBodyInvalidError(detail="it is empty")
    return der


def _request_in(body: bytes) -> bytes:
    """Return the only PEM block, without text such as that of `openssl req -text`; other bodies are unchanged."""
    if (block := _BLOCK.search(body)) is None:
        return body
    check_single_request(body, block[1])
    return block[0]


def encode_body(der: bytes, *, is_wrapped: bool = True) -> bytes:
    """Encode base64 in lines of 64 characters, each ended by LF, or in one line (RFC 8951 section 3.1)."""
    text = base64.b64encode(der)
    if not is_wrapped:
        return text
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return b"\n".join([*lines, b""])


def parse_csr(body: bytes) -> CertificateRequest:
    """Return the CSR in a body, with proof of possession checked."""
    return parse_pkcs10(decode_body(body))


def render_csr(der: bytes) -> bytes:
    return encode_body(der)


def render_certs_only(certificates: Iterable[Certificate], *, is_wrapped: bool = True) -> bytes:
    """Return the body for these certificates, whose order is lost: a SET has none."""
    return encode_body(render_cms(certificates), is_wrapped=is_wrapped)


def render_key_and_certificate(
    key: bytes, certificate: Certificate, boundary: str, *, is_wrapped: bool = True
) -> bytes:
    """Return the parts of a server-generated key (RFC 7030 section 4.4.2): PKCS#8 DER, then its certificate."""
    parts = (
        (PKCS8, encode_body(key, is_wrapped=is_wrapped)),
        (CERTS_ONLY, render_certs_only([certificate], is_wrapped=is_wrapped)),
    )
    lines = [
        f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode() + body
        for media_type, body in parts
    ]
    return b"\r\n".join([*lines, f"--{boundary}--\r\n".encode()])


def parse_certs_only(body: bytes) -> tuple[Certificate, ...]:
    """Return the certificates of a response, in no particular order."""
    return parse_cms(decode_body(body, MAX_ANSWER_BYTES))


def render_window(start: datetime, end: datetime) -> str:
    """Return the value of `Renewal-Window`."""
    return "/".join(one.strftime("%Y-%m-%dT%H:%M:%SZ") for one in (start, end))


def parse_window(header: str | None) -> tuple[datetime, datetime] | None:
    """Parse start and end of a `Renewal-Window`; None for a missing or implausible one."""
    start, _, end = (header or "")[:_MAX_WINDOW].partition("/")
    try:
        first, last = (datetime.fromisoformat(one.strip()) for one in (start, end))
    except ValueError:
        return None
    is_usable = first.tzinfo is not None and last.tzinfo is not None and first <= last
    return (first, last) if is_usable else None


def check_media_type(found: str | None) -> None:
    """Raise `EstMediaTypeError` unless the media type is PKCS#10; parameters and letter case are ignored."""
    media_type = (found or "").split(";", 1)[0].strip().lower()
    if media_type != PKCS10:
        raise EstMediaTypeError(found=media_type or "missing")


def parse_basic(header: str) -> tuple[str, str]:
    """Return user and password (RFC 7617). Raise `BasicInvalidError`."""
    scheme, _, rest = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except ValueError as error:
        raise BasicInvalidError from error
    if scheme.lower() != "basic" or not colon:
        raise BasicInvalidError
    return user, password


def render_basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class CsrAttribute:
    """An object ID, alone or with values in DER (RFC 7030 section 4.5.2)."""

    oid: str
    values: tuple[bytes, ...] = ()


class _Values(core.SetOf):
    _child_spec = core.Any


class _Attribute(core.Sequence):
    _fields: ClassVar = [("type", core.ObjectIdentifier), ("values", _Values)]


class _AttrOrOid(core.Choice):
    _alternatives: ClassVar = [("oid", core.ObjectIdentifier), ("attribute", _Attribute)]


class _CsrAttrs(core.SequenceOf):
    _child_spec = _AttrOrOid


def render_csr_attributes(attributes: Sequence[CsrAttribute]) -> bytes:
    """Return the DER of CsrAttrs."""
    choices = [
        _AttrOrOid(
            name="attribute",
            value=_Attribute({"type": one.oid, "values": [core.load(value) for value in one.values]}),
        )
        if one.values
        else _AttrOrOid(name="oid", value=core.ObjectIdentifier(one.oid))
        for one in attributes
    ]
    der: bytes = _CsrAttrs(choices).dump()
    return der


def _attribute(kind: str, read: Any) -> CsrAttribute:
    if kind == "oid":
        return CsrAttribute(dotted_of(read))
    return CsrAttribute(dotted_of(read["type"]), tuple(value.dump() for value in read["values"]))


def parse_csr_attributes(body: bytes) -> tuple[CsrAttribute, ...]:
    """Parse the attributes that a server requires; the caller interprets them."""
    try:
        der = decode_body(body)
        check_quick(der)
        parsed = _CsrAttrs.load(der, strict=True)
        attributes = tuple(
            CsrAttribute(dotted_of(choice.chosen))
            if choice.name == "oid"
            else CsrAttribute(
                dotted_of(choice.chosen["type"]), tuple(value.dump() for value in choice.chosen["values"])
            )
            for choice in parsed
        )
    except ASN1_TROUBLE as error:
        raise EstBodyInvalidError(detail="it is not the DER of CSR attributes, or is cut off") from error
    if not all(one.oid for one in attributes):
        raise EstBodyInvalidError(detail="an object id is empty")
    return attributes
