"""OCSP requests and responses for a CA's certificates (RFC 6960; RFC 9654 for the nonce).

In: a request as received, at most MAX_REQUEST_BYTES, for up to MAX_ASKED certificates.

Out: a response signed by a delegated responder, or one of the unsigned error responses. Raises `OcspMalformedError`;
request signatures are ignored because they prove nothing here.

`cryptography` supports one certificate at a time; requests for several use asn1crypto. Not here: certificate records
(`ca`), HTTP (`ca.http`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import UNREADABLE, Certificate
from birthmark.pki.crl_encoder import Revocation, RevocationReason
from birthmark.pki.extension_parser import ASN1_TROUBLE, dotted_of
from birthmark.pki.issuance import LeafIssuer, hash_for

MAX_REQUEST_BYTES = 4096
MAX_ASKED = 16
MAX_NONCE_BYTES = 128
HASHES: Mapping[str, hashes.HashAlgorithm] = {
    one.name: one
    for one in (hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())  # noqa: S303 - clients name CAs by it (RFC 6960 section 4.3), it proves nothing
}
_NONCE = "1.3.6.1.5.5.7.48.1.2"


class UnsignedStatus(Enum):
    """Error responses without certificate status (section 4.2.1)."""

    MALFORMED = ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    TRY_LATER = ocsp.OCSPResponseStatus.TRY_LATER
    UNAUTHORIZED = ocsp.OCSPResponseStatus.UNAUTHORIZED

    @property
    def der(self) -> bytes:
        return ocsp.OCSPResponseBuilder.build_unsuccessful(self.value).public_bytes(Encoding.DER)


class OcspMalformedError(InvalidRequestError):
    """The data is not an OCSP request."""

    code = "pki.ocsp_malformed"
    message = "Not an OCSP request: {detail}"
    cause = "The request body, or the base64 path of a GET request, is not an OCSP request: {detail}."
    fix = (
        "Create an OCSP request with OpenSSL: `openssl ocsp -issuer issuing.pem -cert device.pem -reqout request.der`."
    )
    detail: str


@dataclass(frozen=True, slots=True)
class CertId:
    """Certificate identifier: two digests of its CA, and its serial number."""

    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int

    @property
    def issuer(self) -> tuple[str, bytes, bytes]:
        """Identifier of the CA."""
        return self.hash_name, self.issuer_name_hash, self.issuer_key_hash


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """A parsed OCSP request; created by `parse_request`."""

    asked: tuple[CertId, ...]
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class OcspStatus:
    """Recorded status of one certificate: good, revoked with time and reason, or never issued."""

    is_known: bool
    revocation: Revocation | None = None


@dataclass(frozen=True, slots=True)
class OcspResponse:
    """An OCSP response and its validity."""

    der: bytes
    this_update: datetime
    next_update: datetime


def ids_of(issuer: Certificate) -> list[tuple[str, bytes, bytes]]:
    """Return this CA's identifiers in requests: digests of its name and of its key's bits (section 4.1.1)."""
    bits = bytes(core.Sequence.load(issuer.spki_der)[1].contents)[1:]
    return [(name, _digest(one, issuer.subject_der), _digest(one, bits)) for name, one in HASHES.items()]


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def parse_request(der: bytes) -> OcspRequest:
    """Parse a request. Raise `OcspMalformedError`."""
    if len(der) > MAX_REQUEST_BYTES:
        raise OcspMalformedError(detail=f"more than {MAX_REQUEST_BYTES} bytes")
    try:
        request = _read(der)
    except (*UNREADABLE, *ASN1_TROUBLE, x509.DuplicateExtension) as error:
        raise OcspMalformedError(detail="it is not the DER of a request, or is cut off") from error
    if any(one.serial < 0 for one in request.asked):
        raise OcspMalformedError(detail="a negative serial number")
    return request


def _read(der: bytes) -> OcspRequest:
    try:
        return _read_one(der)
    except NotImplementedError:  # several requested
        return _read_several(der)


def _read_one(der: bytes) -> OcspRequest:
    read = ocsp.load_der_ocsp_request(der)
    asked = CertId(read.hash_algorithm.name, read.issuer_name_hash, read.issuer_key_hash, read.serial_number)
    nonce = None
    for extension in read.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = _checked(extension.value.nonce)
        elif extension.critical:
            raise OcspMalformedError(detail=f"the critical extension {extension.oid.dotted_string}")
    return OcspRequest((asked,), nonce)


def _read_several(der: bytes) -> OcspRequest:
    from asn1crypto import ocsp as asn1  # noqa: PLC0415 - rarely several certificates

    request = asn1.OCSPRequest.load(der, strict=True)["tbs_request"]
    listed = request["request_list"]
    if not 1 <= len(listed) <= MAX_ASKED:
        raise OcspMalformedError(detail=f"it is about {len(listed)} certificates, and 1 to {MAX_ASKED} are answered")
    asked = [one["req_cert"] for one in listed]
    nonce = None
    for extension in request["request_extensions"] or ():
        if dotted_of(extension["extn_id"]) == _NONCE:
            nonce = _checked(bytes(extension["extn_value"].parsed.native))
        elif extension["critical"].native:
            raise OcspMalformedError(detail=f"the critical extension {dotted_of(extension['extn_id'])}")
    return OcspRequest(
        tuple(
            CertId(
                str(one["hash_algorithm"]["algorithm"].native),
                bytes(one["issuer_name_hash"].native),
                bytes(one["issuer_key_hash"].native),
                int(one["serial_number"].native),
            )
            for one in asked
        ),
        nonce,
    )


def _checked(nonce: bytes) -> bytes:
    if not 1 <= len(nonce) <= MAX_NONCE_BYTES:  # RFC 9654 section 2.1
        raise OcspMalformedError(detail=f"a nonce of {len(nonce)} octets")
    return nonce


def build_answer(
    responder: LeafIssuer,
    statuses: Sequence[tuple[CertId, OcspStatus]],
    answer: OcspResponse,
    *,
    nonce: bytes | None = None,
) -> OcspResponse:
    """Return `answer` with the status of each certificate, signed by a responder with a certificate of the CA."""
    first, *others = statuses
    builder = (
        _add(ocsp.OCSPResponseBuilder(), *first, answer)
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate.parsed)
        .certificates([responder.certificate.parsed])
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    made = builder.sign(responder.private_key, hash_for(responder.private_key)).public_bytes(Encoding.DER)
    return replace(answer, der=_with(made, others, answer, responder) if others else made)


def _add(
    builder: ocsp.OCSPResponseBuilder, cert_id: CertId, status: OcspStatus, answer: OcspResponse
) -> ocsp.OCSPResponseBuilder:
    revoked = status.revocation
    word = ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD
    has_reason = revoked is not None and revoked.reason is not RevocationReason.UNSPECIFIED
    return builder.add_response_by_hash(
        issuer_name_hash=cert_id.issuer_name_hash,
        issuer_key_hash=cert_id.issuer_key_hash,
        serial_number=cert_id.serial,
        algorithm=HASHES[cert_id.hash_name],
        cert_status=word if status.is_known else ocsp.OCSPCertStatus.UNKNOWN,
        this_update=answer.this_update,
        next_update=answer.next_update,
        revocation_time=revoked.revoked_at.replace(microsecond=0) if revoked else None,
        revocation_reason=x509.ReasonFlags(revoked.reason.value) if revoked and has_reason else None,
    )


def _with(
    der: bytes, others: Sequence[tuple[CertId, OcspStatus]], answer: OcspResponse, responder: LeafIssuer
) -> bytes:
    """Return the response `der` with the status of other certificates added, and signed again."""
    from asn1crypto import ocsp as asn1  # noqa: PLC0415 - as above

    response = asn1.OCSPResponse.load(der)
    basic = response["response_bytes"]["response"].parsed
    for one in others:
        single = _add(ocsp.OCSPResponseBuilder(), *one, answer)
        single = single.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate.parsed)
        made = single.sign(responder.private_key, hash_for(responder.private_key)).public_bytes(Encoding.DER)
        inner = asn1.OCSPResponse.load(made)["response_bytes"]["response"].parsed
        basic["tbs_response_data"]["responses"].append(inner["tbs_response_data"]["responses"][0])
    signed = basic["tbs_response_data"].dump(force=True)
    basic["signature"] = core.OctetBitString(_signature(responder, signed))
    response["response_bytes"]["response"] = core.ParsableOctetString(basic.dump(force=True))
    return bytes(response.dump(force=True))


def _signature(responder: LeafIssuer, data: bytes) -> bytes:
    key, algorithm = responder.private_key, hash_for(responder.private_key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(algorithm))
    return key.sign(data, padding.PKCS1v15(), algorithm)
