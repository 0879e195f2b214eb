"""What the configuration means, as values. Secrets stay out of every repr."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from birthmark.agent.jobs.model import JobSettings
from birthmark.agent.paths import EST_ID
from birthmark.agent.renewal_policy import Renewal
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import Pkcs11Uri
from birthmark.keys.tpm import TpmSettings
from birthmark.secure_elements.chip_profiles import Algorithm


@dataclass(frozen=True, slots=True)
class TokenLocation:
    """A key in a token. The PIN of the URI is kept apart from it."""

    uri: Pkcs11Uri
    pin: Pin | None = None


KeyLocation: TypeAlias = Path | TokenLocation


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """`[aziot_keys]`: the PKCS#11 library, and the token in which new keys are made."""

    module: Path
    base_slot: TokenLocation | None = None


@dataclass(frozen=True, slots=True)
class PreloadedIdentity:
    """An identity that is there already."""

    certificate: Path
    key: KeyLocation


@dataclass(frozen=True, slots=True)
class X509Pair(PreloadedIdentity):
    """One for EST. A bootstrap pair introduces the device; an identity pair is its own."""

    is_bootstrap: bool


@dataclass(frozen=True, slots=True)
class EstAuth:
    """How to prove oneself to the EST server: a password, a certificate, or both at once."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    pair: X509Pair | None = None


@dataclass(frozen=True, slots=True)
class EstIssuance:
    """Issue by EST; `trusted` None means the system's CAs.

    Where a bootstrap certificate introduces the device, an EST identity of the id `identity_id` asks from then on.
    """

    url: str
    auth: EstAuth
    trusted: tuple[Path, ...] | None = None
    identity_id: str = EST_ID
    identity_renewal: Renewal = field(default_factory=Renewal)


@dataclass(frozen=True, slots=True)
class LocalIssuance:
    """Issue on the device: self-signed, or by a CA whose certificate and key it has; `ca` None means an issued one."""

    lifetime: timedelta
    ca: tuple[Path, KeyLocation] | None = None
    is_self_signed: bool = False


@dataclass(frozen=True, slots=True)
class AzureIssuance:
    """Issue with the registration, to which `bootstrap` introduces the device, and by its hub from then on."""

    bootstrap: PreloadedIdentity


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """An identity that is issued: `common_name` is the registration id, `subject` the further name attributes."""

    common_name: str
    subject: Mapping[str, str]
    by: EstIssuance | LocalIssuance | AzureIssuance
    renewal: Renewal | None = None


@dataclass(frozen=True, slots=True)
class SymmetricKeySource:
    """A key that the device shares with its cloud: in the configuration itself, in a file, or in a token."""

    value: bytes | None = field(default=None, repr=False)
    location: KeyLocation | None = None


DeviceIdentity: TypeAlias = PreloadedIdentity | IssuedIdentity | SymmetricKeySource | TpmSettings


@dataclass(frozen=True, slots=True)
class DpsSource:
    """`source = "dps"`: where to register. `registration_id` None means the certificate's common name."""

    host: str
    port: int
    id_scope: str
    registration_id: str | None
    identity: DeviceIdentity
    payload: Path | None = None
    """A file of JSON that is sent along."""


@dataclass(frozen=True, slots=True)
class ManualSource:
    """`source = "manual"`: the hub is known."""

    hub: str
    device_id: str
    identity: DeviceIdentity
    gateway: str | None = None
    """The parent device through which the hub is reached (`parent_hostname`)."""


@dataclass(frozen=True, slots=True)
class AwsSource(ManualSource):
    """`source = "aws"`: `hub` is the account's data endpoint, and `device_id` the thing."""


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something that was accepted and is not acted upon, or should be changed."""

    line: int
    key: str
    detail: str
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalId:
    """`[localid]`: how certificates of modules without a hub would be made. Read, for this agent has no modules."""

    domain: str | None
    days: int


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One configuration file, understood."""

    file: Path
    hostname: str | None
    source: DpsSource | ManualSource
    keys: TokenSettings | None
    preloaded_keys: Mapping[str, KeyLocation]
    preloaded_certs: Mapping[str, tuple[Path, ...]]
    trust_bundle: Path | None
    digest: str
    key_algorithm: Algorithm = Algorithm.P256
    local_ca: IssuedIdentity | None = None
    edge_ca: IssuedIdentity | PreloadedIdentity | None = None
    localid: LocalId | None = None
    tpm: TpmSettings = field(default_factory=TpmSettings)
    jobs: JobSettings | None = None
    """What jobs may do; None where none are asked for."""
    texts: tuple[tuple[Path, str], ...] = field(default=(), repr=False)
    """The files as they were read; they may hold secrets."""
    warnings: tuple[ConfigWarning, ...] = ()
