"""DPS device client: registration over MQTT or HTTPS, and lookup of the assigned hub.

Both transports register, wait for the time in the response, and poll the status until the device is assigned or
rejected. The wait function is a parameter, so that tests need no waiting.
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from birthmark import __version__
from birthmark.clock_and_entropy import Entropy, new_uuid
from birthmark.device_transports.errors import TRY_AGAIN
from birthmark.device_transports.ports import HttpsClient, MqttClient
from birthmark.device_transports.web_page_detection import check_answer
from birthmark.dps import wire
from birthmark.errors import (
    BirthmarkError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    UnauthenticatedError,
    UnavailableError,
)
from birthmark.mqtt.packets import Connect
from birthmark.pki.certificates import Certificate
from birthmark.untrusted_json_and_text import printable

AGENT = f"birthmark/{__version__}"
MQTT_PORT = 8883
_SERVICE = "the provisioning service"
_DEFAULT_RETRY_S = 2  # default of the vendors' SDKs
_MAX_RETRY_S = 60  # maximum wait here; callers need not wait longer
_MAX_ASKS = 60
_MAX_BUSY = 5
_BUSY, _UNAUTHORIZED, _NOT_FOUND, _FAILED = 429, 401, 404, 300
_NO_RESOURCE = 404001  # error code: unknown scope; an unregistered device has another
_ANSWER_S = 30.0

Pause = Callable[[float], Awaitable[None]]


class DpsRefusedError(UnauthenticatedError):
    """The provisioning service refused this device."""

    code = "dps.client_refused"
    cause = "{host} rejected the registration of {registration_id}: {text} (error {number})."
    fix = (
        "To show the cause, run this on the server's machine: `birthmark why {tracking_id}`. On Azure, enroll the "
        "device or its CA."
    )
    host: str
    number: str
    registration_id: str
    text: str
    tracking_id: str


class DpsNotFoundError(NotFoundError):
    """The provisioning service has no such ID scope or device."""

    code = "dps.client_not_found"
    cause = "{host} has no ID scope {id_scope} or no registration {registration_id}: {text} (error {number})."
    fix = (
        "To show the cause, run this on the server's machine: `birthmark why {tracking_id}`. Compare the ID scope with "
        "the one in the Azure portal."
    )
    host: str
    id_scope: str
    number: str
    registration_id: str
    text: str
    tracking_id: str


class DpsFailedError(PolicyError):
    """The provisioning service assigned no hub."""

    code = "dps.client_failed"
    cause = "{host} assigned no hub to {registration_id}: {text} (error {number}, status {status})."
    fix = (
        "On Azure, link a hub and enable the enrollment. To show the state of the enrollment: `birthmark device ls "
        "--profile cloud`"
    )
    host: str
    number: int
    registration_id: str
    status: str
    text: str


class DpsRejectedError(InvalidRequestError):
    """The provisioning service rejected the request."""

    code = "dps.client_rejected"
    cause = "{host} rejected the registration of {registration_id}: {text} (error {number})."
    fix = (
        "Show the cause on the server's machine: `birthmark why {tracking_id}`. Check the registration ID and the ID "
        "scope."
    )
    host: str
    number: str
    registration_id: str
    text: str
    tracking_id: str


class DpsBusyError(UnavailableError):
    """The provisioning service is busy."""

    code = "dps.client_busy"
    cause = "{host} is busy and asks the client to retry later: {text} (error {number})."
    fix = f"The request was valid. {TRY_AGAIN}"
    host: str
    number: str
    text: str
    retry_after_s: int | None = None
    """Seconds until a retry, if too long to wait for within the call."""


@dataclass(frozen=True, slots=True)
class DpsTarget:
    """A provisioning service and a registration ID. `https_port` and `mqtt_port` support other servers."""

    host: str
    id_scope: str
    registration_id: str
    mqtt_port: int = MQTT_PORT
    https_port: int = 443

    @property
    def resource(self) -> str:
        """Resource of a token for registration."""
        return f"{self.id_scope}/registrations/{self.registration_id}"

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.https_port}"


@dataclass(frozen=True, slots=True)
class HubAssignment:
    """The device's assigned hub."""

    hub: str
    device_id: str
    registration_id: str
    substatus: str | None = None
    is_individual: bool | None = None
    """Whether the enrollment is individual, for one certificate; None if the service did not state it."""
    authentication_key: bytes | None = None
    """Key for the hub, sealed for the device's TPM."""
    chain: tuple[Certificate, ...] = ()
    """Certificates issued for the CSR: the leaf first, the root last."""


async def register_by_mqtt(
    client: MqttClient, target: DpsTarget, *, entropy: Entropy, pause: Pause = asyncio.sleep
) -> HubAssignment:
    """Register over an MQTT client that is not connected yet; it is closed at the end."""
    username = wire.render_username(target.id_scope, target.registration_id, AGENT)
    await client.connect(target.host, target.mqtt_port, Connect(target.registration_id, username=username))
    try:
        await client.subscribe(wire.RESPONSES)
        body = json.dumps({"registrationId": target.registration_id}).encode()

        async def ask(operation_id: str | None) -> tuple[int, int | None, bytes]:
            rid = new_uuid(entropy)
            if operation_id is None:
                await client.publish(wire.register_topic(rid), body)
            else:
                await client.publish(wire.status_topic(rid, operation_id), b" ")
            async with asyncio.timeout(_ANSWER_S):
                while True:
                    message = await client.next_message()
                    answer = wire.parse_response_topic(message.topic)
                    if answer.rid == rid:
                        return answer.status, answer.retry_after_s, message.payload

        return await _until_assigned(ask, target, pause)
    except TimeoutError as error:
        raise DpsBusyError(host=target.host, text="no answer", number="-") from error
    finally:
        await client.close()


async def register_by_https(
    client: HttpsClient,
    target: DpsTarget,
    *,
    authorization: str | None = None,
    payload: object = None,
    csr: bytes | None = None,
    pause: Pause = asyncio.sleep,
) -> HubAssignment:
    """Register over HTTPS, which works with only port 443 open; without a certificate, by `authorization`.

    With `csr` in DER, the device also requests a certificate.
    """
    base = target.base_url
    headers = {"Accept": "application/json", "User-Agent": AGENT}
    if authorization is not None:
        headers["Authorization"] = authorization
    asked: dict[str, Any] = {"registrationId": target.registration_id} | (
        {} if payload is None else {"payload": payload}
    )
    version = wire.API_VERSION
    if csr is not None:
        asked["csr"], version = base64.b64encode(csr).decode(), wire.ISSUING_API_VERSION
    body = json.dumps(asked).encode()

    async def ask(operation_id: str | None) -> tuple[int, int | None, bytes]:
        url = base + wire.registration_path(target.id_scope, target.registration_id, operation_id, version=version)
        if operation_id is None:
            with_body = {**headers, "Content-Type": "application/json; charset=utf-8"}
            answer = await client.request("PUT", url, headers=with_body, body=body)
        else:
            answer = await client.request("GET", url, headers=headers)
        check_answer(answer, base, _SERVICE)
        return answer.status, wire.parse_retry_after(answer.headers.get("retry-after")), answer.body

    return await _until_assigned(ask, target, pause)


async def is_registered_by_https(client: HttpsClient, target: DpsTarget, *, authorization: str | None = None) -> bool:
    """Return whether the device is registered, without changes (`Device Registration Status Lookup`).

    Raise the errors of a registration: unknown scope, device not enrolled.
    """
    url = target.base_url + wire.registration_path(target.id_scope, target.registration_id, is_lookup=True)
    headers = {"Accept": "application/json", "User-Agent": AGENT, "Content-Type": "application/json; charset=utf-8"}
    if authorization is not None:
        headers["Authorization"] = authorization
    body = json.dumps({"registrationId": target.registration_id}).encode()
    answer = check_answer(await client.request("POST", url, headers=headers, body=body), url, _SERVICE)
    if answer.status == _NOT_FOUND and wire.parse_error(answer.body).error_code != _NO_RESOURCE:
        return False
    if answer.status >= _FAILED:
        raise _error_of(answer.status, answer.body, target)
    return True


async def challenge_by_https(
    client: HttpsClient, target: DpsTarget, endorsement_key: bytes, storage_root_key: bytes, *, payload: object = None
) -> bytes:
    """Return the key that the service seals for a TPM, which signs the registration with it.

    `endorsement_key` and `storage_root_key` are public keys.
    """
    url = target.base_url + wire.registration_path(target.id_scope, target.registration_id)
    headers = {"Accept": "application/json", "User-Agent": AGENT, "Content-Type": "application/json; charset=utf-8"}
    tpm = wire.tpm_json(endorsement_key, storage_root_key)
    asked = {"registrationId": target.registration_id, "tpm": tpm} | ({} if payload is None else {"payload": payload})
    answer = await client.request("PUT", url, headers=headers, body=json.dumps(asked).encode())
    told = wire.parse_error(answer.body)
    if answer.status == _UNAUTHORIZED and told.authentication_key:
        return wire.parse_authentication_key(told.authentication_key)
    if answer.status >= _FAILED:
        raise _error_of(answer.status, answer.body, target)
    raise wire.AnswerInvalidError(detail="it sent no TPM challenge")


Ask = Callable[[str | None], Awaitable[tuple[int, int | None, bytes]]]


async def _until_assigned(ask: Ask, target: DpsTarget, pause: Pause) -> HubAssignment:
    """Register by `ask(None)`, then poll the status at the interval of each response.

    Raise `DpsBusyError` for an interval longer than `_MAX_RETRY_S`; a later retry starts a new registration.
    """
    operation_id: str | None = None
    busy = 0
    for _ in range(_MAX_ASKS):
        status, retry_after_s, body = await ask(operation_id)
        if status >= _FAILED:
            busy += 1
            error = _error_of(status, body, target)
            if not isinstance(error, DpsBusyError) or busy > _MAX_BUSY:
                raise error
        else:
            answer = wire.parse_operation(body)
            if (assigned := _assigned(answer, target)) is not None:
                return assigned
            operation_id = answer.operation_id or operation_id
        pause_s = _DEFAULT_RETRY_S if retry_after_s is None else retry_after_s
        if pause_s > _MAX_RETRY_S:
            text = f"retry after {pause_s} s"
            raise DpsBusyError(host=target.host, text=text, number=str(status), retry_after_s=pause_s)
        await pause(pause_s)
    raise DpsBusyError(host=target.host, text="still assigning", number="-")


def _assigned(answer: wire.OperationStatus, target: DpsTarget) -> HubAssignment | None:
    """Return the assignment, or None while it is in progress. Raise `DpsFailedError`."""
    state = answer.registration_state or wire.RegistrationState()
    if answer.status == "assigning":
        return None
    if answer.status == "assigned" and state.assigned_hub and state.device_id:
        is_individual = None if state.x509 is None else state.x509.enrollment_group_id is None
        name = state.registration_id or target.registration_id
        sealed = state.tpm and state.tpm.authentication_key
        key = wire.parse_authentication_key(sealed) if sealed else None
        chain = wire.parse_chain(state.issued_certificate_chain)
        return HubAssignment(state.assigned_hub, state.device_id, name, state.substatus, is_individual, key, chain)
    raise DpsFailedError(
        host=target.host,
        registration_id=target.registration_id,
        status=printable(str(answer.status)),
        number=state.error_code or 0,
        text=printable(state.error_message or "no reason given"),
    )


def _error_of(status: int, body: bytes, target: DpsTarget) -> BirthmarkError:
    told = wire.parse_error(body)
    facts: dict[str, Any] = {
        "host": target.host,
        "id_scope": target.id_scope,
        "registration_id": target.registration_id,
        "number": told.error_code or status,
        "text": printable(told.message[:300]) or f"status {status}",
        "tracking_id": printable(told.tracking_id[:100]) or "REGISTRATION-ID",
    }
    if status >= _BUSY:
        return DpsBusyError(**facts)
    if status == _UNAUTHORIZED:
        return DpsRefusedError(**facts)
    if status == _NOT_FOUND:
        return DpsNotFoundError(**facts)
    return DpsRejectedError(**facts)
