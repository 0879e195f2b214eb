"""An enrollment as a document: what the service interface takes and shows, and the database keeps.

Not here: what is decided on (`model.Enrollment`), what makes a document complete (`rules.enrollment`).
"""

import base64
from typing import Any

import msgspec

from birthmark.dps.wire import BodyInvalidError, CertificateInfo, TpmAttestation
from birthmark.unknown_fields import unread
from birthmark.untrusted_text import masked_query, read_json, split_url


class CertificateEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A certificate as given (PEM or base64 DER) and as read."""

    certificate: str | None = None
    info: CertificateInfo | None = None


class CertificatePair(msgspec.Struct, frozen=True, omit_defaults=True):
    """Primary and secondary: the rollover slot."""

    primary: CertificateEntry | None = None
    secondary: CertificateEntry | None = None

    def entries(self) -> list[CertificateEntry]:
        """Return those that are there."""
        return [entry for entry in (self.primary, self.secondary) if entry is not None]


class CaReferences(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names of CA certificates on record."""

    primary: str | None = None
    secondary: str | None = None

    def names(self) -> list[str]:
        """Return those that are there."""
        return [name for name in (self.primary, self.secondary) if name]


class X509Attestation(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """X.509: client certificates for an individual, signing certificates or CA references for a group."""

    client_certificates: CertificatePair | None = None
    signing_certificates: CertificatePair | None = None
    ca_references: CaReferences | None = None


class SymmetricKeys(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """Base64 keys."""

    primary_key: str | None = None
    secondary_key: str | None = None

    def __repr__(self) -> str:
        return "SymmetricKeys(<hidden>)"

    def raw(self) -> list[bytes]:
        """Return the keys that are there, decoded."""
        return [base64.b64decode(key) for key in (self.primary_key, self.secondary_key) if key]


class AttestationMechanism(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """How its devices prove themselves."""

    type: str
    x509: X509Attestation | None = None
    symmetric_key: SymmetricKeys | None = None
    tpm: TpmAttestation | None = None


class Capabilities(msgspec.Struct, rename="camel", frozen=True):
    """What kind of device it becomes."""

    iot_edge: bool = False


class ReprovisionPolicy(msgspec.Struct, rename="camel", frozen=True):
    """What registering again may change."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


def host_of(url: str) -> str:
    """Return the host of a URL, as far as it has one: of its rest nothing is told."""
    try:
        return split_url(url).hostname or ""
    except ValueError:
        return ""


class CustomAllocation(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """The user's own program that chooses the hub. Its URL may carry a key."""

    webhook_url: str
    api_version: str | None = None

    def __repr__(self) -> str:
        return f"CustomAllocation({self.host!r})"

    @property
    def host(self) -> str:
        return host_of(self.webhook_url)


class IssuancePolicy(msgspec.Struct, rename="camel", frozen=True):
    """The policy by which certificates are issued, as the preview of 2021 named it."""

    certificate_authority_name: str


class _DesiredProperties(msgspec.Struct, frozen=True):
    desired: Any = None


class _InitialTwin(msgspec.Struct, frozen=True):
    """What a twin may begin with."""

    tags: Any = None
    properties: _DesiredProperties | None = None


MAX_INFORMATION_BYTES = 8 * 1024
"""Of what an enrollment tells of its device, as much as of a twin's tags."""
_TOLD = frozenset({"registrationState"})
"""What the service tells of an enrollment beside what is on record."""


class EnrollmentDocument(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """An individual enrollment (`registration_id`) or a group (`enrollment_group_id`)."""

    attestation: AttestationMechanism
    registration_id: str | None = None
    enrollment_group_id: str | None = None
    device_id: str | None = None
    capabilities: Capabilities | None = None
    iot_hub_host_name: str | None = None
    initial_twin: dict[str, Any] | None = None
    etag: str | None = None
    provisioning_status: str = "enabled"
    reprovision_policy: ReprovisionPolicy | None = None
    allocation_policy: str | None = None
    custom_allocation_definition: CustomAllocation | None = None
    iot_hubs: list[str] | None = None
    optional_device_information: dict[str, Any] | None = None
    namespace_name: str | None = None
    certificate_authority_name: str | None = None
    certificate_policy_name: str | None = None
    credential_policy_name: str | None = None
    client_certificate_issuance_policy: IssuancePolicy | None = None
    created_date_time_utc: str | None = None
    last_updated_date_time_utc: str | None = None

    @property
    def is_group(self) -> bool:
        return self.enrollment_group_id is not None

    @property
    def id(self) -> str:
        return self.enrollment_group_id or self.registration_id or ""


def parse_document(body: bytes) -> EnrollmentDocument:
    """Return the document of a PUT. Raise `BodyInvalidError` with the path of what is wrong, or not served."""
    document = read_json(body, EnrollmentDocument, BodyInvalidError)
    check_members(read_json(body, object, BodyInvalidError), document)
    return document


def unread_twin(twin: object) -> str | None:
    """Return the first member of what a twin begins with that would be dropped."""
    return unread(twin, _InitialTwin)


def check_members(given: Any, document: EnrollmentDocument) -> None:
    """Raise `BodyInvalidError` for the first member of an enrollment as it was sent that would be dropped."""
    member = unread(given, EnrollmentDocument, _TOLD)
    if member is None and document.initial_twin is not None:
        inner = unread_twin(document.initial_twin)
        member = None if inner is None else f"initialTwin.{inner}"
    if member is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")
    if len(msgspec.json.encode(document.optional_device_information)) > MAX_INFORMATION_BYTES:
        raise BodyInvalidError(detail=f"optionalDeviceInformation has more than {MAX_INFORMATION_BYTES} bytes of JSON")


def document_view(enrollment: EnrollmentDocument, *, with_keys: bool = False) -> dict[str, Any]:
    """Return the enrollment as clients see it; keys only where they were asked for by name."""
    view: dict[str, Any] = msgspec.to_builtins(enrollment)
    view.setdefault("provisioningStatus", enrollment.provisioning_status)
    attestation = view["attestation"]
    if not with_keys and "symmetricKey" in attestation:
        attestation["symmetricKey"] = {"primaryKey": None, "secondaryKey": None}
    return view


def without_webhook_key(view: dict[str, Any]) -> dict[str, Any]:
    """Return an enrollment as it is shown to who may not change it: the query of a webhook's URL may be its key."""
    if (custom := view.get("customAllocationDefinition")) is None:
        return view
    return view | {"customAllocationDefinition": custom | {"webhookUrl": masked_query(custom["webhookUrl"])}}
