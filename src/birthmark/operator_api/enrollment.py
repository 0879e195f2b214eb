"""The operator interface of enrolling by certificates: what would happen, for many at once, and one that does."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from birthmark.auth.permissions import Right
from birthmark.errors import BirthmarkError
from birthmark.operator_api.api_router import ApiRequest, Endpoint, told
from birthmark.pki.certificates import Certificate, parse_any

MOST_AT_ONCE = 100


class EnrollmentResult(StrEnum):
    """What would become, or became, of a device."""

    WOULD_CREATE = "would create"
    CREATED = "created"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class EnrollmentSpec:
    """A device to put on record by its certificate; without a name it has the certificate's."""

    certificate: Certificate
    device_id: str | None = None


class Enroll(Protocol):
    """Puts devices on record at a provisioning service. Raise why a device cannot be, or is there otherwise."""

    def would(self, name: str, wish: EnrollmentSpec) -> Awaitable[EnrollmentResult]:
        """Return what would become of it; nothing is changed."""
        ...

    def do(self, name: str, wish: EnrollmentSpec, *, actor: str) -> Awaitable[EnrollmentResult]:
        """Return what became of it; who is there already stays as it is."""
        ...


class NewEnrollment(msgspec.Struct):
    """The certificate (PEM or base64 of DER), and what the device is called at its hub if that is another name."""

    certificate: Annotated[str, msgspec.Meta(max_length=128 * 1024)]
    device_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class EnrollmentQuestion(msgspec.Struct):
    """Several of them."""

    devices: Annotated[list[NewEnrollment], msgspec.Meta(max_length=MOST_AT_ONCE)] = []


def enrolling_endpoints(enroll: Enroll) -> Sequence[Endpoint]:
    """Return the routes."""

    async def check(asked: ApiRequest) -> Any:
        rows = []
        for one in asked.body.devices:
            try:
                row: dict[str, Any] = {"outcome": (await enroll.would(asked["name"], _wish(one))).value}
            except BirthmarkError as error:
                row = {"outcome": EnrollmentResult.REFUSED.value, "problem": told(error)}
            rows.append(row)
        return rows

    async def put(asked: ApiRequest) -> Any:
        wish = _wish(asked.body)
        done = await enroll.do(asked["name"], wish, actor=asked.actor)
        return {"thumbprint": wish.certificate.thumbprint.hex(), "outcome": done.value}

    would = "Preview the enrollment of devices."
    return [
        Endpoint("POST", "/dps/{name}/enrollments/check", Right.READ, would, check, EnrollmentQuestion),
        Endpoint("POST", "/dps/{name}/enrollments", Right.ENROLL, "Enroll a device.", put, NewEnrollment),
    ]


def _wish(given: NewEnrollment) -> EnrollmentSpec:
    return EnrollmentSpec(parse_any(given.certificate), given.device_id)
