"""Parsed configuration values; secrets are excluded from every repr."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from birthmark.agent.jobs.model import JobSettings
from birthmark.agent.renewal_policy import Renewal
from birthmark.agent.state_directory import EST_ID
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import Pkcs11Uri
from birthmark.keys.tpm_attestation import TpmSettings
from birthmark.secure_elements.chip_profiles import Algorithm


@dataclass(frozen=True, slots=True)
class TokenLocation:
    """Location of a key in a token; the URI's PIN is stored separately."""

    uri: Pkcs11Uri
    pin: Pin | None = None


KeyLocation: TypeAlias = Path | TokenLocation


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """`[aziot_keys]`: the PKCS#11 library and the token in which new keys are generated."""

    module: Path
    base_slot: TokenLocation | None = None


@dataclass(frozen=True, slots=True)
class PreloadedIdentity:
    """A preloaded identity."""

    certificate: Path
    key: KeyLocation


@dataclass(frozen=True, slots=True)
class X509Pair(PreloadedIdentity):
    """Certificate and key for EST: a bootstrap pair for the first request, or the EST identity itself."""

    is_bootstrap: bool


@dataclass(frozen=True, slots=True)
class EstAuth:
    """Credentials for the EST server: a password, a certificate, or both."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    pair: X509Pair | None = None


@dataclass(frozen=True, slots=True)
class EstIssuance:
    """Issuance over EST; if `trusted` is None, the system's CAs are trusted.

    After enrollment with a bootstrap certificate, the EST identity `identity_id` requests certificates.
    """

    url: str
    auth: EstAuth
    trusted: tuple[Path, ...] | None = None
    identity_id: str = EST_ID
    identity_renewal: Renewal = field(default_factory=Renewal)


@dataclass(frozen=True, slots=True)
class LocalIssuance:
    """Issuance on the device: self-signed, or by a CA with certificate and key there; `ca` None means an issued one."""

    lifetime: timedelta
    ca: tuple[Path, KeyLocation] | None = None
    is_self_signed: bool = False


@dataclass(frozen=True, slots=True)
class AzureIssuance:
    """Issuance by Azure: at registration, authenticated with `bootstrap`, and by the device's hub afterwards."""

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
    """Symmetric key that the device shares with its cloud, from the configuration, a file, or a token."""

    value: bytes | None = field(default=None, repr=False)
    location: KeyLocation | None = None


DeviceIdentity: TypeAlias = PreloadedIdentity | IssuedIdentity | SymmetricKeySource | TpmSettings


@dataclass(frozen=True, slots=True)
class DpsSource:
    """`source = "dps"`: the provisioning service. `registration_id` None means the certificate's common name."""

    host: str
    port: int
    id_scope: str
    registration_id: str | None
    identity: DeviceIdentity
    payload: Path | None = None
    """JSON file that is sent with the registration request."""


@dataclass(frozen=True, slots=True)
class ManualSource:
    """`source = "manual"`: the hub is configured."""

    hub: str
    device_id: str
    identity: DeviceIdentity
    gateway: str | None = None
    """The parent device through which the hub is reached (`parent_hostname`)."""


@dataclass(frozen=True, slots=True)
class AwsSource(ManualSource):
    """`source = "aws"`: `hub` is the account's data endpoint and `device_id` the thing name."""


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """A setting that is accepted but ignored, or that should be changed."""

    line: int
    key: str
    detail: str
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalId:
    """`[localid]`: issuance of module certificates without a hub.

    Parsed only, as this agent has no modules.
    """

    domain: str | None
    days: int


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """A parsed agent configuration."""

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
    """Allowed job actions; None if jobs are disabled."""
    texts: tuple[tuple[Path, str], ...] = field(default=(), repr=False)
    """The files as read; they may contain secrets."""
    warnings: tuple[ConfigWarning, ...] = ()
