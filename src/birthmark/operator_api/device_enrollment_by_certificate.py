"""Operator API of enrollment by certificate: a preview for many devices, and the enrollment of one."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.errors import BirthmarkError
from birthmark.operator_api.api_router import ApiRequest, Endpoint, told
from birthmark.pki.certificates import Certificate, parse_any

MOST_AT_ONCE = 100


class EnrollmentResult(StrEnum):
    """Actual or expected result of an enrollment."""

    WOULD_CREATE = "would create"
    CREATED = "created"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class EnrollmentSpec:
    """A device to enroll by certificate; the name defaults to the certificate's name."""

    certificate: Certificate
    device_id: str | None = None


class Enroll(Protocol):
    """Enrolls devices at a provisioning service. Raises the reason if a device cannot be enrolled or differs."""

    def preview(self, name: str, spec: EnrollmentSpec) -> Awaitable[EnrollmentResult]:
        """Return the expected result without changing anything."""
        ...

    def enroll(self, name: str, spec: EnrollmentSpec, *, actor: str) -> Awaitable[EnrollmentResult]:
        """Enroll the device and return the result; an existing device stays unchanged."""
        ...


class NewEnrollment(msgspec.Struct):
    """The certificate (PEM or base64 of DER), and the device ID at the hub if it differs."""

    certificate: Annotated[str, msgspec.Meta(max_length=128 * 1024)]
    device_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class EnrollmentQuestion(msgspec.Struct):
    """A batch of enrollments."""

    devices: Annotated[list[NewEnrollment], msgspec.Meta(max_length=MOST_AT_ONCE)] = []


def enrolling_endpoints(enroll: Enroll) -> Sequence[Endpoint]:
    """Return the enrollment routes."""

    async def check(request: ApiRequest) -> Any:
        rows = []
        for one in request.body.devices:
            try:
                row: dict[str, Any] = {"outcome": (await enroll.preview(request["name"], _wish(one))).value}
            except BirthmarkError as error:
                row = {"outcome": EnrollmentResult.REFUSED.value, "problem": told(error)}
            rows.append(row)
        return rows

    async def put(request: ApiRequest) -> Any:
        wish = _wish(request.body)
        done = await enroll.enroll(request["name"], wish, actor=request.actor)
        return {"thumbprint": wish.certificate.thumbprint.hex(), "outcome": done.value}

    would = "Preview the enrollment of devices."
    return [
        Endpoint("POST", "/dps/{name}/enrollments/check", Right.READ, would, check, EnrollmentQuestion),
        Endpoint("POST", "/dps/{name}/enrollments", Right.ENROLL, "Enroll a device.", put, NewEnrollment),
    ]


def _wish(enrollment: NewEnrollment) -> EnrollmentSpec:
    return EnrollmentSpec(parse_any(enrollment.certificate), enrollment.device_id)
