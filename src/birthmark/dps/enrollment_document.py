"""An enrollment as a document: the form of the service API and of the database.

Not here: the values for decisions (`model.Enrollment`), and completion of a document (`rules.enrollment`).
"""

import base64
from typing import Any

import msgspec

from birthmark.dps.wire import BodyInvalidError, CertificateInfo, TpmAttestation
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import masked_query, read_json, split_url


class CertificateEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A certificate as received (PEM or base64 DER) and parsed."""

    certificate: str | None = None
    info: CertificateInfo | None = None


class CertificatePair(msgspec.Struct, frozen=True, omit_defaults=True):
    """Primary and secondary certificate; the secondary one is the rollover slot."""

    primary: CertificateEntry | None = None
    secondary: CertificateEntry | None = None

    def entries(self) -> list[CertificateEntry]:
        """Return the entries that are set."""
        return [entry for entry in (self.primary, self.secondary) if entry is not None]


class CaReferences(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names of registered CA certificates."""

    primary: str | None = None
    secondary: str | None = None

    def names(self) -> list[str]:
        """Return the names that are set."""
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
        """Return the keys that are set, decoded."""
        return [base64.b64decode(key) for key in (self.primary_key, self.secondary_key) if key]


class AttestationMechanism(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """Attestation mechanism of an enrollment."""

    type: str
    x509: X509Attestation | None = None
    symmetric_key: SymmetricKeys | None = None
    tpm: TpmAttestation | None = None


class Capabilities(msgspec.Struct, rename="camel", frozen=True):
    """Capabilities of its devices."""

    iot_edge: bool = False


class ReprovisionPolicy(msgspec.Struct, rename="camel", frozen=True):
    """Reprovisioning policy: permitted changes at a repeated registration."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


def host_of(url: str) -> str:
    """Return the host of a URL if it has one; the rest is never exposed."""
    try:
        return split_url(url).hostname or ""
    except ValueError:
        return ""


class CustomAllocation(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """Custom allocation: the user's webhook that selects the hub. Its URL may carry a key."""

    webhook_url: str
    api_version: str | None = None

    def __repr__(self) -> str:
        return f"CustomAllocation({self.host!r})"

    @property
    def host(self) -> str:
        return host_of(self.webhook_url)


class IssuancePolicy(msgspec.Struct, rename="camel", frozen=True):
    """The policy that issues certificates, under its name in the 2021 preview."""

    certificate_authority_name: str


class _DesiredProperties(msgspec.Struct, frozen=True):
    desired: Any = None


class _InitialTwin(msgspec.Struct, frozen=True):
    """Permitted members of an initial twin."""

    tags: Any = None
    properties: _DesiredProperties | None = None


MAX_INFORMATION_BYTES = 8 * 1024
"""Maximum size of an enrollment's device information, the same as for a twin's tags."""
_TOLD = frozenset({"registrationState"})
"""Members of an enrollment in a response that are not stored."""


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
    """Parse the document of a PUT. Raise `BodyInvalidError` with the path of an invalid or unsupported member."""
    document = read_json(body, EnrollmentDocument, BodyInvalidError)
    check_members(read_json(body, object, BodyInvalidError), document)
    return document


def unread_twin(twin: object) -> str | None:
    """Return the first member of an initial twin that would be dropped."""
    return find_unread_member(twin, _InitialTwin)


def check_members(value: Any, document: EnrollmentDocument) -> None:
    """Raise `BodyInvalidError` for the first member of the submitted enrollment that would be ignored."""
    member = find_unread_member(value, EnrollmentDocument, _TOLD)
    if member is None and document.initial_twin is not None:
        inner = unread_twin(document.initial_twin)
        member = None if inner is None else f"initialTwin.{inner}"
    if member is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")
    if len(msgspec.json.encode(document.optional_device_information)) > MAX_INFORMATION_BYTES:
        raise BodyInvalidError(detail=f"optionalDeviceInformation has more than {MAX_INFORMATION_BYTES} bytes of JSON")


def document_view(enrollment: EnrollmentDocument, *, with_keys: bool = False) -> dict[str, Any]:
    """Return the enrollment for clients; with keys only if explicitly requested."""
    view: dict[str, Any] = msgspec.to_builtins(enrollment)
    view.setdefault("provisioningStatus", enrollment.provisioning_status)
    attestation = view["attestation"]
    if not with_keys and "symmetricKey" in attestation:
        attestation["symmetricKey"] = {"primaryKey": None, "secondaryKey": None}
    return view


def without_webhook_key(view: dict[str, Any]) -> dict[str, Any]:
    """Return an enrollment for callers without write permission: the query of a webhook's URL may be its key."""
    if (custom := view.get("customAllocationDefinition")) is None:
        return view
    return view | {"customAllocationDefinition": custom | {"webhookUrl": masked_query(custom["webhookUrl"])}}
