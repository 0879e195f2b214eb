"""Certificate requests and their responses, for both sides."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError, operation_time, registry_time, to_json
from birthmark.iothub.wire.topics import ISSUE
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der
from birthmark.pki.csr import CertificateRequest, parse_csr_text
from birthmark.untrusted_json_and_text import read_json


class CredentialBody(msgspec.Struct):
    """A device's certificate request: its id, the CSR, and the request that it replaces."""

    id: str
    csr: str
    replace: str | None = None


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """A parsed certificate request."""

    device_id: str
    csr: CertificateRequest
    replaces: str | None = None
    """Id of an earlier request in progress, or `*` for any."""


def parse_credential_request(body: bytes) -> CredentialRequest:
    """Return a device's request with verified proof of possession. Raise `BodyInvalidError` or `CsrRefusedError`."""
    asked = read_json(body, CredentialBody, BodyInvalidError)
    return CredentialRequest(asked.id, parse_csr_text(asked.csr), asked.replace)


def accepted_json(correlation_id: str, expires_at: datetime) -> bytes:
    """Return the response to an accepted request."""
    return to_json({"correlationId": correlation_id, "operationExpires": operation_time(expires_at)})


def issued_json(correlation_id: str, chain: Sequence[str]) -> bytes:
    """Return a certificate chain in base64 of DER, root last."""
    return to_json({"correlationId": correlation_id, "certificates": list(chain)})


def credential_error_json(number: int, message: str, tracking_id: str, now: datetime, info: Mapping[str, str]) -> bytes:
    """Return the error of a certificate request, as the SDKs parse it."""
    told = {"errorCode": number, "message": message, "trackingId": tracking_id, "timestampUtc": registry_time(now)}
    return to_json({**told, "info": {"correlationId": tracking_id, **info}})


_CREDENTIAL_ANSWER = re.compile(r"\$iothub/credentials/res/([1-5][0-9]{2})/\?\$rid=([^&]{1,256})(?:&.*)?")


class _IssuedAnswer(msgspec.Struct):
    certificates: list[str] = []


class CredentialError(msgspec.Struct, rename="camel"):
    """Error of a certificate request."""

    error_code: int = 0
    message: str = ""
    tracking_id: str = ""


def issue_topic(rid: str) -> str:
    """Return the topic of certificate requests."""
    return f"{ISSUE}?$rid={rid}"


def credential_request_json(device_id: str, csr: bytes) -> bytes:
    """Return a device's certificate request, which replaces its earlier one."""
    return to_json({"id": device_id, "csr": base64.b64encode(csr).decode(), "replace": "*"})


def parse_credential_topic(topic: str) -> tuple[int, str] | None:
    """Return status and rid of a response; None for any other topic."""
    found = _CREDENTIAL_ANSWER.fullmatch(topic)
    return None if found is None else (int(found[1]), found[2])


def parse_issued(body: bytes) -> tuple[Certificate, ...]:
    """Return the certificates of a response, leaf first. Raise `BodyInvalidError`."""
    try:
        texts = read_json(body, _IssuedAnswer, BodyInvalidError).certificates
        return tuple(parse_der(base64.b64decode(one, validate=True)) for one in texts)
    except (ValueError, CertificateInvalidError) as error:
        raise BodyInvalidError(detail="certificates contains an invalid certificate") from error


def parse_credential_error(body: bytes) -> CredentialError:
    """Return the error in a body; an empty one if the body is invalid."""
    try:
        return read_json(body, CredentialError, BodyInvalidError)
    except BodyInvalidError:
        return CredentialError()
