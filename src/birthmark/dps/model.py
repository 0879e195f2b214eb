"""DPS's values, as decisions need them."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names import RegistrationId
from birthmark.pki.tpm_public import TpmPublic

TAKEN_BACK = "takenBack"
"""What an enrollment's `optionalDeviceInformation` tells of a device that was taken back: why."""

IdScope = NewType("IdScope", str)
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.%_*?!(),:=@$']{1,128}")
_GROUP_ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


class GroupIdInvalidError(InvalidRequestError):
    """The enrollment group ID is not valid."""

    code = "dps.group_id_invalid"
    cause = "An enrollment group ID has 1 to 128 letters, digits and - . _ :"
    fix = "Choose another group ID. List the existing ones: `birthmark device ls`"
    group: str


class DeviceIdInvalidError(InvalidRequestError):
    """The device ID is not valid."""

    code = "dps.device_id_invalid"
    cause = "A device ID has 1 to 128 letters, digits and - . % _ * ? ! ( ) , : = @ $ '."
    fix = 'Omit the device ID to use the registration ID: `birthmark device enroll --cert "$X509_CERT_FILE"`'
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


@dataclass(frozen=True, slots=True)
class X509Individual:
    """The certificates, one or two, that an individual enrollment takes."""

    thumbprints: tuple[Thumbprint, ...]


@dataclass(frozen=True, slots=True)
class X509Group:
    """A group takes what its CAs issued; they are on record as its signers."""


@dataclass(frozen=True, slots=True)
class SymmetricKey:
    """The keys, one or two, that sign tokens; of a group, those that its devices' keys are derived from."""

    keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TpmKeys:
    """The public keys of a TPM: on record, or as a device sends them.

    Where no root key is on record, the first that proves itself counts.
    """

    endorsement: TpmPublic
    storage_root: TpmPublic | None = None


@dataclass(frozen=True, slots=True)
class Enrollment:
    """Who may register, an individual or a group, as far as it is decided on."""

    id: str
    attestation: X509Individual | X509Group | SymmetricKey | TpmKeys
    is_group: bool = False
    is_enabled: bool = True
    device_id: str | None = None
    is_edge: bool = False
    hubs: tuple[str, ...] = ()
    """The hosts it may be assigned to; empty: all that are linked."""
    keeps_hub: bool = False
    """Whether registering again leaves the hub as it is."""
    migrates: bool = True
    """Whether a device takes its twin along to another hub; else it begins anew there."""
    twin: Mapping[str, Any] | None = None
    """What a device's twin begins with, as its hub takes it: `tags`, and `desired` below `properties`."""
    policy: str | None = None
    """By which profile of the CA its devices are issued certificates when they register; None: by none."""
    webhook: str | None = None
    """The host of the user's program that chooses the hub; None: it is chosen here."""
    made_at: str | None = None
    """When it was put on record, as its document has it."""
    etag: str = ""

    @property
    def group_id(self) -> str | None:
        return self.id if self.is_group else None


FIRST = "birthmark"
"""The instance that `birthmark env` tells of, and that a command means which names none."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One provisioning service: its scope, the host it answers at, its policies' keys and its linked hubs."""

    id_scope: IdScope
    name: str
    host: str
    hubs: tuple[str, ...]
    policies: dict[str, tuple[bytes, bytes]] = field(repr=False)
    tier: str | None = None
    """Whose limits count: S1, the one there is; None: no limits."""

    @property
    def as_option(self) -> str:
        """Return the option that names it, for a command in a fix."""
        return "" if self.name == FIRST else f" --dps {shlex.quote(self.name)}"


@dataclass(frozen=True, slots=True)
class EnrollmentSigner:
    """A certificate whose holders' devices belong to a group."""

    group_id: str
    certificate: Certificate


INITIAL = "initialAssignment"
REASSIGNED = "reprovisionedToInitialAssignment"
"""The substatus where the hub had the device already."""


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
    endorsement_key: bytes | None = None
    storage_root_key: bytes | None = None
    """The keys of the TPM that proved itself, each as TPM2B_PUBLIC."""
    authentication_key: bytes | None = None
    """The device's key at its hub, which only that TPM can open."""
    issued_key: bytes | None = None
    """SHA-256 of the public key that its last operation was issued a certificate for, if it asked for one."""
    issued_by: str | None = None
    """The policy by which that was."""
    issued_at: datetime | None = None
    issued_chain: tuple[str, ...] | None = None
    """The certificate, in base64 of DER, and those above it, the root last."""
    payload: str | None = None
    """What the user's program that chose the hub has for the device, as JSON."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device says and shows when it registers. The handshake proved that it holds the leaf's key."""

    id_scope: str
    registration_id: str
    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    token: str | None = field(default=None, repr=False)
    tpm: TpmKeys | None = None
    """What TPM it says it has; only a token that was signed in it proves that."""
    address: str = field(default="", compare=False)
    """Where it comes from: what one peer sends is counted against that peer."""
    csr: CertificateRequest | None = field(default=None, compare=False)
    """What it asks a certificate for; who it is does not depend on it."""
    payload: bytes | None = field(default=None, compare=False, repr=False)
    """What it sends along for the user's program that chooses the hub, as JSON."""

    @property
    def spelling(self) -> str:
        """Its name as the proof has it."""
        return (self.leaf and self.leaf.subject_cn) or self.registration_id
