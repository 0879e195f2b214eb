"""DPS wire format: CONNECT user names, topics, JSON bodies. Both roles.

The SDKs parse the response topic by splitting at `$`, so no further `$` may follow `?$rid=`. `retry-after` must be an
integer, or the Python SDK hangs.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import msgspec

from birthmark.dps.model import INITIAL, REASSIGNED, Claim, Registration, TpmKeys
from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der
from birthmark.pki.csr import CertificateRequest, parse_csr_text
from birthmark.pki.tpm_public_key import TpmKeyInvalidError, TpmPublic, parse_tpm_public
from birthmark.untrusted_json_and_text import decode_json, is_deeper, read_json, whole_number

RESPONSES = "$dps/registrations/res/#"
RETRY_AFTER_S = 3
_REASSIGNED_SINCE = "2019-04-15"
"""The first API version whose clients support `reprovisionedToInitialAssignment`."""
MAX_PAYLOAD_BYTES = 96 * 1024
MAX_LEVELS = 64
"""Maximum nesting of a payload in either direction."""
_NULL = b"null"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_STATUS = "$dps/registrations/GET/iotdps-get-operationstatus/"
_URL = re.compile(r"^[a-z]+://[^/]*/?", re.IGNORECASE)
_REGISTRATION = re.compile(r"([^/]+)/registrations/([^/]+)", re.IGNORECASE)
_MAX_RID = 256
MAX_TOPIC = 4096
"""Maximum number of characters of a request topic: each of its fields costs some microseconds."""


class UserNameError(InvalidRequestError):
    """The MQTT user name is not one of DPS."""

    code = "dps.username_invalid"
    cause = "The MQTT user name must have the format SCOPE/registrations/ID/api-version=…, but is {username}."
    fix = (
        "Use the user name of the Azure SDK or of `birthmark device register`: "
        "SCOPE/registrations/ID/api-version=2019-03-31."
    )
    username: str


class TopicError(InvalidRequestError):
    """The topic is not supported."""

    code = "dps.topic_not_served"
    cause = "The client used the topic {topic}, which the provisioning service does not support."
    fix = (
        "Publish to $dps/registrations/PUT/iotdps-register/?$rid=… and …/GET/iotdps-get-operationstatus/, as "
        "`birthmark device register` does."
    )
    topic: str


class BodyInvalidError(InvalidRequestError):
    """The request body is not valid."""

    code = "dps.body_invalid"
    message = "The request body is not valid: {detail}"
    cause = "The request body is not valid: {detail}."
    fix = (
        "Compare the registration with that of `birthmark device register`, and the enrollment with that of "
        '`birthmark device enroll --cert "$X509_CERT_FILE"`.'
    )
    detail: str


@dataclass(frozen=True, slots=True)
class DpsUser:
    """A parsed CONNECT user name."""

    id_scope: str
    registration_id: str
    agent: str
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """Publish that registers; the response repeats its `rid`."""

    rid: str


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Publish that queries the status of an operation."""

    rid: str
    operation_id: str


class TpmAttestation(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The public keys of a TPM, each TPM2B_PUBLIC in base64."""

    endorsement_key: str | None = None
    storage_root_key: str | None = None


class DeviceRegistration(msgspec.Struct, rename="camel", frozen=True):
    """Body of register. `payload` is for the custom allocation webhook and is not parsed here."""

    registration_id: str | None = None
    payload: msgspec.Raw = msgspec.Raw(_NULL)
    tpm: TpmAttestation | None = None
    csr: str | None = None
    client_certificate_csr: str | None = None


def is_dps_username(username: str) -> bool:
    """Return whether the user name has the form of DPS."""
    return "/registrations/" in username.partition("?")[0]


def parse_username(username: str) -> DpsUser:
    """Return scope and registration id. Raise `UserNameError`."""
    match username.split("/", 3):
        case [scope, "registrations", registration_id, *rest] if scope and registration_id:
            fields = dict(part.partition("=")[::2] for part in "".join(rest).lstrip("?").split("&"))
            return DpsUser(
                scope, registration_id, unquote(fields.get("ClientVersion", "")), fields.get("api-version", "")
            )
        case _:
            raise UserNameError(username=username[:200])


def parse_registration_path(text: str) -> tuple[str, str] | None:
    """Return scope and registration ID of the AMQP address `SCOPE/registrations/ID`, or None for another address.

    It may be a URL. A hub's `devices/registrations/twin` is the address of a device.
    """
    found = _REGISTRATION.fullmatch(unquote(_URL.sub("", text)).strip("/"))
    return None if found is None or found[1].lower() == "devices" else (found[1], found[2])


def parse_topic(topic: str) -> RegisterRequest | StatusRequest:
    """Parse the topic of a publish. Raise `TopicError`."""
    for head in (_REGISTER, _STATUS):
        if topic.startswith(head) and len(topic) <= MAX_TOPIC:
            fields = parse_qs(topic[len(head) :].lstrip("?"), keep_blank_values=True)
            rid = fields.get("$rid", [""])[0]
            if not rid or len(rid) > _MAX_RID or "$" in rid:
                break
            if head == _REGISTER:
                return RegisterRequest(rid)
            return StatusRequest(rid, fields.get("operationId", [""])[0])
    raise TopicError(topic=topic[:200])


def response_topic(status: int, rid: str, retry_after_s: int | None = None) -> str:
    """Return the topic of a response."""
    topic = f"$dps/registrations/res/{status}/?$rid={quote(rid, safe='')}"
    return topic if retry_after_s is None else f"{topic}&retry-after={retry_after_s}"


def parse_registration(body: bytes) -> DeviceRegistration:
    """Return the body of register. Raise `BodyInvalidError`."""
    if len(body) > MAX_PAYLOAD_BYTES:
        raise BodyInvalidError(detail=f"more than {MAX_PAYLOAD_BYTES} bytes")
    parsed = read_json(body.strip() or b"{}", DeviceRegistration, BodyInvalidError)
    if parsed.client_certificate_csr is not None:
        raise BodyInvalidError(detail="clientCertificateCsr belongs to an ended preview, send csr")
    payload = bytes(parsed.payload)
    if payload != _NULL and is_deeper(read_json(payload, object, BodyInvalidError), MAX_LEVELS):
        raise BodyInvalidError(detail=f"payload has more than {MAX_LEVELS} levels")
    return parsed


def csr_of(body: DeviceRegistration) -> CertificateRequest | None:
    """Return the CSR of a registration, with proof of possession checked. Raise `CsrRefusedError`."""
    return None if body.csr is None else parse_csr_text(body.csr)


def add_request(claim: Claim, body: DeviceRegistration) -> Claim:
    """Return the claim with the requests of the body added. Raise `CsrRefusedError`."""
    payload = bytes(body.payload)
    return replace(claim, csr=csr_of(body), payload=None if payload == _NULL else payload)


def check_no_csr(body: DeviceRegistration) -> None:
    """Raise `BodyInvalidError` for a CSR in a request that issues no certificate, such as a lookup."""
    if body.csr is not None:
        raise BodyInvalidError(detail="csr given")


def parse_tpm(attestation: TpmAttestation) -> TpmKeys:
    """Return the keys of a TPM. Raise `TpmKeyInvalidError`."""
    root = attestation.storage_root_key
    endorsement = _tpm_key(attestation.endorsement_key or "", "endorsement key")
    return TpmKeys(endorsement, _tpm_key(root, "storage root key") if root else None)


def tpm_view(keys: TpmKeys) -> dict[str, str]:
    """Return the TpmAttestation JSON of public keys."""
    root = {} if keys.storage_root is None else {"storageRootKey": keys.storage_root.base64}
    return {"endorsementKey": keys.endorsement.base64} | root


def registration_id_of(endorsement: TpmPublic) -> str:
    """Return the registration ID that Azure's SDKs derive from a TPM by default."""
    return base64.b32encode(hashlib.sha256(endorsement.tpm2b).digest()).decode().rstrip("=").lower()


def _tpm_key(text: str, what: str) -> TpmPublic:
    try:
        return parse_tpm_public(base64.b64decode("".join(text.split()).strip("\"'"), validate=True), what)
    except ValueError as error:
        raise TpmKeyInvalidError(what=what, detail="it is not base64") from error


class CertificateInfo(msgspec.Struct, rename="camel", frozen=True):
    """X509CertificateInfo: certificate data in DPS responses."""

    subject_name: str
    sha1_thumbprint: str
    sha256_thumbprint: str
    issuer_name: str
    not_before_utc: str
    not_after_utc: str
    serial_number: str
    version: int


def info_of(certificate: Certificate) -> CertificateInfo:
    """Return the X509CertificateInfo of a certificate."""
    return CertificateInfo(
        certificate.subject_text,
        certificate.x5t_sha1.hex().upper(),
        certificate.thumbprint.hex().upper(),
        certificate.issuer_text,
        certificate.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
        certificate.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"{certificate.serial:X}",
        certificate.version,
    )


def dps_time(moment: datetime) -> str:
    """Return a time as DPS writes it: seven fractional digits and Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def state_json(registration: Registration, leaf: Certificate | None = None) -> dict[str, Any]:
    """Return DeviceRegistrationState, with the attestation result if the leaf is available."""
    state: dict[str, Any] = {
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": dps_time(registration.created_at),
        "assignedHub": registration.hub,
        "deviceId": registration.device_id,
        "status": "assigned",
        "substatus": registration.substatus,
        "lastUpdatedDateTimeUtc": dps_time(registration.updated_at),
        "etag": registration.etag,
    }
    if leaf is not None:
        x509: dict[str, Any] = {"certificateInfo": msgspec.to_builtins(info_of(leaf))}
        if registration.group_id:
            x509["enrollmentGroupId"] = registration.group_id
        state["x509"] = x509
    return state


def device_state_json(registration: Registration, leaf: Certificate | None, api_version: str) -> dict[str, Any]:
    """Return DeviceRegistrationState for the device itself, with its secrets.

    These are its key at the hub, if a TPM stores it, and its issued certificate.
    """
    state = state_json(registration, leaf)
    if registration.substatus == REASSIGNED and api_version < _REASSIGNED_SINCE:
        state["substatus"] = INITIAL
    if registration.authentication_key is not None:
        state["tpm"] = {"authenticationKey": base64.b64encode(registration.authentication_key).decode()}
    if registration.payload is not None:
        state["payload"] = decode_json(registration.payload)
    if registration.issued_chain is not None:
        state["issuedCertificateChain"] = list(registration.issued_chain)
    return state


def status_json(registration: Registration, leaf: Certificate | None, api_version: str) -> dict[str, Any]:
    """Return the RegistrationOperationStatus of a finished registration, for the device itself."""
    state = device_state_json(registration, leaf, api_version)
    return {"operationId": registration.operation_id, "status": "assigned", "registrationState": state}


def assigning_json(operation_id: str, registration_id: str) -> dict[str, Any]:
    """Return RegistrationOperationStatus of an operation in progress."""
    return {
        "operationId": operation_id,
        "status": "assigning",
        "registrationState": {"registrationId": registration_id, "status": "assigning"},
    }


def error_json(code: int, message: str, tracking_id: str, now: datetime) -> dict[str, Any]:
    """Return Azure's error body."""
    return {"errorCode": code, "trackingId": tracking_id, "message": message, "timestampUtc": dps_time(now)}


def challenge_json(sealed: bytes, error: dict[str, Any]) -> dict[str, Any]:
    """Return the 401 body that challenges a TPM: Azure's error, and the sealed key to sign the next request."""
    return error | {"authenticationKey": base64.b64encode(sealed).decode(), "keyName": "registration"}


# ---- device API

API_VERSION = "2021-06-01"
ISSUING_API_VERSION = "2025-07-01-preview"
"""First API version with a CSR in the registration."""
MAX_ANSWER_BYTES = 256 * 1024
_MAX_RETRY_AFTER_S = 3600
_RESPONSE = re.compile(r"\$dps/registrations/res/([1-5][0-9]{2})/\?([^$]*\$rid=[^$]*)")


class AnswerInvalidError(InvalidRequestError):
    """The response is not from a DPS."""

    code = "dps.answer_invalid"
    cause = "The endpoint is not a provisioning service: {detail}."
    fix = (
        "Check the host and port. On Azure, the host is global.azure-devices-provisioning.net. To set the host of a "
        'Birthmark server: `eval "$(birthmark env)"`'
    )
    detail: str


@dataclass(frozen=True, slots=True)
class ResponseTopic:
    """A parsed response topic."""

    status: int
    rid: str
    retry_after_s: int | None


class X509Result(msgspec.Struct, rename="camel", frozen=True):
    """Matched enrollment of a certificate: a named group or an individual enrollment."""

    enrollment_group_id: str | None = None


class TpmResult(msgspec.Struct, rename="camel", frozen=True):
    """A sealed key for a TPM to import."""

    authentication_key: str | None = None


class RegistrationState(msgspec.Struct, rename="camel", frozen=True):
    """Members of DeviceRegistrationState that a device needs."""

    registration_id: str | None = None
    assigned_hub: str | None = None
    device_id: str | None = None
    status: str | None = None
    substatus: str | None = None
    error_code: int | None = None
    error_message: str | None = None
    x509: X509Result | None = None
    tpm: TpmResult | None = None
    issued_certificate_chain: list[str] = []


class OperationStatus(msgspec.Struct, rename="camel", frozen=True):
    """RegistrationOperationStatus."""

    operation_id: str | None = None
    status: str | None = None
    registration_state: RegistrationState | None = None


class ErrorAnswer(msgspec.Struct, rename="camel", frozen=True):
    """Azure's error body."""

    error_code: int = 0
    tracking_id: str = ""
    message: str = ""
    authentication_key: str | None = None
    """Challenge of a TPM: the sealed key to open."""


def render_username(id_scope: str, registration_id: str, agent: str) -> str:
    """Return the CONNECT user name."""
    return f"{id_scope}/registrations/{registration_id}/api-version=2019-03-31&ClientVersion={quote(agent, safe='')}"


def register_topic(rid: str) -> str:
    """Return the topic of registration requests."""
    return f"{_REGISTER}?$rid={rid}"


def status_topic(rid: str, operation_id: str) -> str:
    """Return the topic that queries an operation's status."""
    return f"{_STATUS}?$rid={rid}&operationId={quote(operation_id, safe='')}"


def registration_path(
    id_scope: str,
    registration_id: str,
    operation_id: str | None = None,
    *,
    is_lookup: bool = False,
    version: str = API_VERSION,
) -> str:
    """Return the path that registers, queries an operation's status, or looks up the device."""
    scope, device = quote(id_scope, safe=""), quote(registration_id, safe="")
    rest = "/register" if operation_id is None else f"/operations/{quote(operation_id, safe='')}"
    return f"/{scope}/registrations/{device}{'' if is_lookup else rest}?api-version={version}"


def tpm_json(endorsement_key: bytes, storage_root_key: bytes) -> dict[str, str]:
    """Return the TpmAttestation JSON; both keys are TPM2B_PUBLIC."""
    keys = {"endorsementKey": endorsement_key, "storageRootKey": storage_root_key}
    return {name: base64.b64encode(key).decode() for name, key in keys.items()}


def parse_authentication_key(text: str) -> bytes:
    """Parse a key that is sealed for a TPM. Raise `AnswerInvalidError`."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise AnswerInvalidError(detail="its authenticationKey is not base64") from error


def parse_chain(texts: Sequence[str]) -> tuple[Certificate, ...]:
    """Return the certificates of a response, leaf first. Raise `AnswerInvalidError`."""
    try:
        return tuple(parse_der(base64.b64decode(one, validate=True)) for one in texts)
    except (ValueError, CertificateInvalidError) as error:
        raise AnswerInvalidError(detail="its issuedCertificateChain contains an invalid certificate") from error


def parse_response_topic(topic: str) -> ResponseTopic:
    """Return status, rid and retry-after. Raise `AnswerInvalidError`."""
    found = _RESPONSE.fullmatch(topic)
    if found is None:
        raise AnswerInvalidError(detail=f"topic {topic[:100]!r}")
    fields = dict(part.partition("=")[::2] for part in found[2].split("&"))
    rid = unquote(fields.get("$rid", ""))
    return ResponseTopic(int(found[1]), rid, parse_retry_after(fields.get("retry-after")))


def parse_retry_after(text: str | None) -> int | None:
    """Parse seconds as an integer within limits; None for other values."""
    seconds = whole_number(text or "")
    return None if seconds is None else min(seconds, _MAX_RETRY_AFTER_S)


def parse_operation(body: bytes) -> OperationStatus:
    """Return the state of a registration. Raise `AnswerInvalidError`."""
    if len(body) > MAX_ANSWER_BYTES:
        raise AnswerInvalidError(detail=f"more than {MAX_ANSWER_BYTES} bytes")
    return read_json(body, OperationStatus, AnswerInvalidError)


def parse_error(body: bytes) -> ErrorAnswer:
    """Parse an error body; return empty members if it is none."""
    try:
        return read_json(body[:MAX_ANSWER_BYTES], ErrorAnswer, AnswerInvalidError)
    except AnswerInvalidError:
        return ErrorAnswer()
