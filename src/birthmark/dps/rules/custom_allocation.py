"""Custom allocation: the request to the user's webhook, and validation of its response.

Source: Azure DPS, "Understand custom allocation policies" (AllocationRequest, AllocationResponse).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from birthmark.dps.enrollment_document import EnrollmentDocument, document_view, unread_twin, without_webhook_key
from birthmark.dps.model import Claim, Enrollment, Registration
from birthmark.dps.rules.registration import is_same
from birthmark.dps.wire import MAX_LEVELS, info_of, tpm_view
from birthmark.errors import InvalidRequestError, PolicyError
from birthmark.untrusted_json_and_text import decode_json, is_deeper, printable

_MAX_TOLD = 200


class WebhookInvalidError(InvalidRequestError):
    """The webhook of an enrollment cannot be called."""

    code = "dps.webhook_invalid"
    message = "customAllocationDefinition.webhookUrl cannot be called: {detail}"
    cause = "The webhook of the enrollment {enrollment} cannot be called: {detail}."
    fix = (
        "Use a public https:// URL. To permit a private address or http://, add the webhook's network to [outbound] "
        "allow in the configuration. Show the current settings: `birthmark server settings`"
    )
    detail: str
    enrollment: str


class AllocationFailedError(PolicyError):
    """The webhook of a custom allocation returned no valid response."""

    code = "dps.allocation_failed"
    message = "Custom allocation failed: the webhook returned no valid response"
    cause = (
        "The webhook at {host}, which allocates {registration_id} for the enrollment {enrollment}, failed: {reason}."
    )
    fix = (
        "Check that the webhook answers a POST with status 200 and JSON within 5 s. The response's iotHubHostName "
        "must be one of linkedHubs. A private address of the webhook must be in [outbound] allow. Show the current "
        "settings: `birthmark server settings`"
    )
    enrollment: str
    host: str
    reason: str
    registration_id: str


class AllocationEmptyError(AllocationFailedError):
    """The webhook's response contains no hub."""

    code = "dps.allocation_empty"
    message = "Custom allocation failed: the response contains no IoT hub"


class AllocationUnauthorizedError(AllocationFailedError):
    """The webhook rejected the call as unauthorized."""

    code = "dps.allocation_unauthorized"
    message = "Custom allocation failed: the webhook returned an authorization error"
    fix = (
        "Through the SDK, update the enrollment with a webhook URL that contains the valid key (on Azure, code=…). "
        "List enrollments: `birthmark device ls`"
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """The webhook's decision."""

    hub: str
    twin: Mapping[str, Any] | None = None
    payload: Any = None

    def apply_to(self, enrollment: Enrollment) -> Enrollment:
        """Return the enrollment with the choice applied; a twin in the response replaces one that would move."""
        if self.twin is None:
            return replace(enrollment, hubs=(self.hub,))
        return replace(enrollment, hubs=(self.hub,), twin=self.twin, migrates=False)


def is_asked(enrollment: Enrollment, registration_id: str, present: Registration | None) -> bool:
    """Return whether a webhook call is required: not for a registered device that keeps its hub."""
    settled = present is not None and enrollment.keeps_hub and is_same(enrollment, registration_id, present)
    return enrollment.webhook is not None and not settled


def offered(enrollment: Enrollment, linked: Sequence[str]) -> Sequence[str]:
    """Return the hubs to choose from, in order."""
    if not enrollment.hubs:
        return sorted(linked)
    known = {host.lower(): host for host in linked}
    return [known[host.lower()] for host in enrollment.hubs if host.lower() in known]


def request_json(
    document: EnrollmentDocument, claim: Claim, present: Registration | None, hubs: Sequence[str]
) -> dict[str, Any]:
    """Return AllocationRequest, without symmetric keys and without the possible key in the webhook's URL."""
    shown = without_webhook_key(document_view(document))
    shown["attestation"].pop("symmetricKey", None)
    context: dict[str, Any] = {"registrationId": claim.registration_id}
    if present is not None:
        context |= {"currentIotHubHostName": present.hub, "currentDeviceId": present.device_id}
    match document.attestation.type:
        case "x509":
            info = None if claim.leaf is None else msgspec.to_builtins(info_of(claim.leaf))
            context["x509"] = {} if info is None else {"certificateInfo": info}
        case "tpm":
            context["tpm"] = {} if claim.tpm is None else tpm_view(claim.tpm)
        case other:
            context[other] = {}
    if claim.payload is not None:
        context["payload"] = decode_json(claim.payload)
    kind = "enrollmentGroup" if document.is_group else "individualEnrollment"
    return {kind: shown, "deviceRuntimeContext": context, "linkedHubs": list(hubs)}


class _Answer(msgspec.Struct, rename="camel"):
    """AllocationResponse of a webhook."""

    iot_hub_host_name: str | None = None
    initial_twin: dict[str, Any] | None = None
    payload: Any = None


def parse_choice(body: bytes, hubs: Sequence[str], **facts: str) -> Choice:
    """Parse the choice in a 200 response. Raise `AllocationFailedError`, `AllocationEmptyError`.

    `facts` are the host, the enrollment and the registration.
    """

    def failed(reason: str) -> AllocationFailedError:
        return AllocationFailedError(reason=reason, **facts)

    try:
        if is_deeper(shown := decode_json(body), MAX_LEVELS):
            raise failed(f"its answer has more than {MAX_LEVELS} levels")
        answer = msgspec.convert(shown, _Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise failed("its answer is not the JSON of an AllocationResponse") from error
    wanted = (answer.iot_hub_host_name or "").strip()
    if not wanted:
        raise AllocationEmptyError(reason="it names no IoT hub", **facts)
    hub = next((one for one in hubs if one.lower() == wanted.lower()), None)
    if hub is None:
        named = printable(wanted[:_MAX_TOLD])
        raise failed(f"it names the hub {named}, and may choose of {', '.join(hubs)[:_MAX_TOLD]}")
    if (member := unread_twin(answer.initial_twin)) is not None:
        raise failed(f"initialTwin.{printable(member[:_MAX_TOLD])} is not served here, leave it out")
    return Choice(hub, answer.initial_twin, answer.payload)


def payload_text(payload: Any) -> str | None:
    """Return the response payload in the form that a registration stores."""
    return None if payload is None else json.dumps(payload, separators=(",", ":"))
