"""Values of DPS for decisions."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names_and_registration_ids import RegistrationId
from birthmark.pki.tpm_public_key import TpmPublic

TAKEN_BACK = "takenBack"
"""Member of an enrollment's `optionalDeviceInformation` with the reason why the device was revoked."""

IdScope = NewType("IdScope", str)
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$']{1,128}")
_GROUP_ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


class GroupIdInvalidError(InvalidRequestError):
    """The enrollment group ID is not valid."""

    code = "dps.group_id_invalid"
    cause = "An enrollment group ID must be 1 to 128 characters long; only letters, digits, and - . _ : are valid."
    fix = "Choose another group ID. To list the existing group IDs: `birthmark device ls`"
    group: str


class DeviceIdInvalidError(InvalidRequestError):
    """The device ID is not valid."""

    code = "dps.device_id_invalid"
    cause = (
        "A device ID must be 1 to 128 characters long. Only letters, digits, and - . % _ * ? ! ( ) , : = @ $ ' are "
        "valid."
    )
    fix = 'Omit the device ID to use the registration ID: `birthmark device enroll --cert "$X509_CERT_FILE"`'
    device_id: str


def parse_device_id(text: str) -> str:
    """Parse a device ID, which is case-sensitive. Raise `DeviceIdInvalidError`."""
    if _DEVICE_ID.fullmatch(text) is None:
        raise DeviceIdInvalidError(device_id=text[:128])
    return text


def parse_group_id(text: str) -> str:
    """Return the group id in lower case, as DPS stores it. Raise `GroupIdInvalidError`."""
    if _GROUP_ID.fullmatch(text) is None:
        raise GroupIdInvalidError(group=text[:128])
    return text.lower()


@dataclass(frozen=True, slots=True)
class X509Individual:
    """The certificates, one or two, that an individual enrollment accepts."""

    thumbprints: tuple[Thumbprint, ...]


@dataclass(frozen=True, slots=True)
class X509Group:
    """X.509 group: accepts certificates of its CAs, which are stored as its signers."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """The keys, one or two, that sign tokens; for a group, the keys that device keys are derived from."""

    keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TpmKeys:
    """The public keys of a TPM: registered, or sent by a device.

    Without a registered storage root key, the first that is proven counts.
    """

    endorsement: TpmPublic
    storage_root: TpmPublic | None = None


@dataclass(frozen=True, slots=True)
class Enrollment:
    """An individual enrollment or a group, with the members that decisions need."""

    id: str
    attestation: X509Individual | X509Group | SymmetricKey | TpmKeys
    is_group: bool = False
    is_enabled: bool = True
    device_id: str | None = None
    is_edge: bool = False
    hubs: tuple[str, ...] = ()
    """Hosts of the hubs to which the device may be assigned; empty means all linked hubs."""
    keeps_hub: bool = False
    """Whether a repeated registration keeps the hub."""
    migrates: bool = True
    """Whether a device keeps its twin at a move to another hub; otherwise the new twin starts fresh."""
    twin: Mapping[str, Any] | None = None
    """Initial twin in the hub's form: `tags`, and `desired` below `properties`."""
    policy: str | None = None
    """CA profile for certificates that its devices receive at registration; None: no certificates."""
    webhook: str | None = None
    """Host of the custom allocation webhook; None: the server selects the hub."""
    made_at: str | None = None
    """Creation time, as in its document."""
    etag: str = ""

    @property
    def group_id(self) -> str | None:
        return self.id if self.is_group else None


FIRST = "birthmark"
"""Default instance, which `birthmark env` describes and commands use without a name."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A provisioning service: its scope, host name, policies with keys, and linked hubs."""

    id_scope: IdScope
    name: str
    host: str
    hubs: tuple[str, ...]
    policies: dict[str, tuple[bytes, bytes]] = field(repr=False)
    tier: str | None = None
    """Tier whose limits apply; only S1 exists; None: no limits."""

    @property
    def as_option(self) -> str:
        """Return the option for this provisioning service, for a command in a fix."""
        return "" if self.name == FIRST else f" --dps {shlex.quote(self.name)}"


@dataclass(frozen=True, slots=True)
class EnrollmentSigner:
    """A CA certificate whose issued certificates belong to a group."""

    group_id: str
    certificate: Certificate


INITIAL = "initialAssignment"
REASSIGNED = "reprovisionedToInitialAssignment"
"""Substatus if the hub already had the device."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Result of a device's registration at DPS."""

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
    """Name as the first registration spelled it; other spellings are other devices."""
    group_made: str | None = None
    """Creation time of the group: a group that was removed and recreated with the same name is a different one."""
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    """Keys of the attested TPM, each as TPM2B_PUBLIC."""
    authentication_key: bytes | None = None
    """The device's key at its hub, sealed for that TPM."""
    issued_key: bytes | None = None
    """SHA-256 of the public key for which its last operation issued a certificate, if any."""
    issued_by: str | None = None
    """The policy under which the certificate was issued."""
    issued_at: datetime | None = None
    issued_chain: tuple[str, ...] | None = None
    """The issued certificate, in base64 of DER, and its issuers, the root last."""
    payload: str | None = None
    """The custom allocation webhook's payload for the device, as JSON."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A device's registration request and credentials. The handshake proved possession of the leaf's key."""

    id_scope: str
    registration_id: str
    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    token: str | None = field(default=None, repr=False)
    tpm: TpmKeys | None = None
    """The TPM that the device claims; only a token signed in it proves the claim."""
    address: str = field(default="", compare=False)
    """Source address, for rate limits per peer."""
    csr: CertificateRequest | None = field(default=None, compare=False)
    """CSR for a certificate; it does not affect the device's identity."""
    payload: bytes | None = field(default=None, compare=False, repr=False)
    """The device's payload for the custom allocation webhook, as JSON."""

    @property
    def spelling(self) -> str:
        """The registration ID as spelled in the proof."""
        return (self.leaf and self.leaf.subject_cn) or self.registration_id
