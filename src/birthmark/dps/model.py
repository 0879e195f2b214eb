"""DPS's values. Enrollments are their wire structs: they have no invariant that JSON does not show."""

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

import msgspec

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names import RegistrationId

IdScope = NewType("IdScope", str)
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")
_GROUP_ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


class GroupIdInvalidError(InvalidRequestError):
    """The group id is not allowed."""

    code = "dps.group_id_invalid"
    cause = "An enrollment group id has 1 to 128 letters, digits and - . _ :"
    fix = "Choose another group id; those in use: `birthmark enroll list`"
    group: str


class DeviceIdInvalidError(InvalidRequestError):
    """The device id is not allowed."""

    code = "dps.device_id_invalid"
    cause = "A device id has 1 to 128 letters, digits and - . + % _ # * ? ! ( ) , : = @ $ '."
    fix = 'Leave the device id out, then it is the registration id: `birthmark enroll device --cert "$X509_CERT_FILE"`'
    device_id: str


def parse_device_id(text: str) -> str:
    """Return the id as the hub will know it; letter case counts. Raise `DeviceIdInvalidError`."""
    if _DEVICE_ID.fullmatch(text) is None:
        raise DeviceIdInvalidError(device_id=text[:128])
    return text


def parse_group_id(text: str) -> str:
    """Return the group id in lower case, as DPS stores it. Raise `GroupIdInvalidError`."""
    if _GROUP_ID.fullmatch(text) is None:
        raise GroupIdInvalidError(group=text[:128])
    return text.lower()


class CertificateInfo(msgspec.Struct, rename="camel", frozen=True):
    """X509CertificateInfo: what DPS shows of a certificate."""

    subject_name: str
    sha1_thumbprint: str
    sha256_thumbprint: str
    issuer_name: str
    not_before_utc: str
    not_after_utc: str
    serial_number: str
    version: int


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


class Attestation(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """AttestationMechanism."""

    type: str
    x509: X509Attestation | None = None
    symmetric_key: SymmetricKeys | None = None


class Capabilities(msgspec.Struct, rename="camel", frozen=True):
    """What kind of device it becomes."""

    iot_edge: bool = False


class ReprovisionPolicy(msgspec.Struct, rename="camel", frozen=True):
    """What registering again may change."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


class Enrollment(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    """An individual enrollment (`registration_id`) or a group (`enrollment_group_id`)."""

    attestation: Attestation
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
    iot_hubs: list[str] | None = None
    optional_device_information: dict[str, Any] | None = None
    created_date_time_utc: str | None = None
    last_updated_date_time_utc: str | None = None

    @property
    def is_group(self) -> bool:
        return self.enrollment_group_id is not None

    @property
    def id(self) -> str:
        return self.enrollment_group_id or self.registration_id or ""

    @property
    def is_enabled(self) -> bool:
        return self.provisioning_status != "disabled"


@dataclass(frozen=True, slots=True)
class Instance:
    """One provisioning service: its scope, the host it answers at, its policies' keys and its linked hubs."""

    id_scope: IdScope
    name: str
    host: str
    hubs: tuple[str, ...]
    policies: dict[str, tuple[bytes, bytes]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate on record."""

    name: str
    certificate: Certificate
    is_verified: bool
    verification_code: str | None
    etag: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """A certificate whose holders' devices belong to a group."""

    group_id: str
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Registration:
    """A device's outcome at DPS."""

    registration_id: RegistrationId
    group_id: str | None
    device_id: str
    hub: str
    substatus: str
    operation_id: str
    etag: str
    created_at: datetime
    updated_at: datetime
    thumbprint: Thumbprint | None
    common_name: str | None = None
    """The name as it was spelled by who registered first; other spellings are other devices."""
    group_made: str | None = None
    """When the group was put on record: one that is removed and made again by the same name is another."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device says and shows when it registers. The handshake proved that it holds the leaf's key."""

    id_scope: str
    registration_id: str
    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    token: str | None = field(default=None, repr=False)
