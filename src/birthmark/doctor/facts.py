"""Observations as values. Rules inspect nothing themselves; no secret is stored, only whether one exists."""

import shlex
from dataclasses import dataclass
from enum import StrEnum

from birthmark.doctor.setting_sources import SettingSource, SourcedSetting


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A path. `mode` is its permission bits; `reason` is why it cannot be read, empty if it can."""

    path: str
    exists: bool = False
    is_directory: bool = False
    mode: int = 0
    reason: str = ""


# ---- chip


class ProbeExit(StrEnum):
    """Exit of the process that used the library."""

    FINE = "fine"
    CRASHED = "crashed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """A token, as it describes itself without a login."""

    label: str
    slot_id: int
    manufacturer: str = ""
    needs_pin: bool = False
    is_last_try: bool = False
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A private key in the token: label, ID, and SHA-256 of its public key, empty if not readable."""

    label: str
    key_id: str = ""
    public: str = ""


@dataclass(frozen=True, slots=True)
class ChipSelection:
    """Requested selection with its sources; None is not specified."""

    module: SourcedSetting | None = None
    token: SourcedSetting | None = None
    slot: SourcedSetting | None = None
    pin_file: SourcedSetting | None = None
    key: SourcedSetting | None = None
    has_inline_pin: bool = False
    config: str = ""


@dataclass(frozen=True, slots=True)
class SoftHsmFacts:
    """SoftHSM's settings: the file, its token directory, and related files of Birthmark next to it."""

    conf: FileFacts
    setting: SourcedSetting | None = None
    tokens: FileFacts | None = None
    tokens_beside: str = ""
    conf_beside_pin: str = ""
    pin_beside: str = ""


@dataclass(frozen=True, slots=True)
class ChipFacts:
    """A library and the result of its use. `code`, `cause` and `detail` are those of the error, if any."""

    asked: ChipSelection
    module: str
    library: FileFacts
    built_for: str = ""
    here: str = ""
    others: tuple[str, ...] = ()
    ending: ProbeExit = ProbeExit.FINE
    tokens: tuple[TokenFacts, ...] = ()
    opened: str = ""
    keys: tuple[KeyFacts, ...] = ()
    code: str = ""
    cause: str = ""
    detail: str = ""
    pin: FileFacts | None = None
    trimming: str = ""
    """Command that removes white space around the PIN, if there is some."""
    softhsm: SoftHsmFacts | None = None


# ---- servers and the environment


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """A file or directory of CAs that a variable names; `certificates` is their number."""

    setting: SourcedSetting
    file: FileFacts
    certificates: int = 0


@dataclass(frozen=True, slots=True)
class PathFacts:
    """A path that a variable names; `instead` is a suitable path, empty if none was found."""

    setting: SourcedSetting
    file: FileFacts
    instead: str = ""


@dataclass(frozen=True, slots=True)
class MismatchedVariable:
    """A variable that does not match the server in use. `value` is empty for a secret."""

    name: str
    value: str = ""
    whose: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A Birthmark server of this machine, by data directory: the specified one, or the environment's.

    `has_database` is the database status from its health endpoint; None is unknown.
    """

    data: str
    setting: SourcedSetting | None = None
    directory: FileFacts | None = None
    has_run: bool = False
    is_served: bool = False
    has_database: bool | None = None
    certificate_until: str = ""
    certificate_days: int | None = None
    """Days until its own certificate expires; None is unknown."""
    certificate_trouble: str = ""
    """Reason why the configured certificate is not in use."""
    foreign: tuple[MismatchedVariable, ...] = ()
    exposed: tuple[FileFacts, ...] = ()
    others: tuple[str, ...] = ()
    is_known_to_shell: bool = True
    """Whether an environment variable refers to this server or another one."""
    start: str = ""
    """Command that starts the server as this user."""
    as_owner: str = ""
    """The command for the directory's owner, if this user has no access."""

    @property
    def env(self) -> str:
        """The command that sets the server's environment variables."""
        is_known = self.setting is not None and self.setting.kind is SettingSource.VARIABLE
        data = "" if is_known else f" --data {shlex.quote(self.data)}"
        return f'eval "$(birthmark env{data})"'


# ---- device files


@dataclass(frozen=True, slots=True)
class LeafFacts:
    """A certificate in a file; `public` is the SHA-256 of its key."""

    subject: str
    common_name: str
    public: str
    not_before: str
    not_after: str
    is_expired: bool = False
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """Certificate and key in files. `code` and `cause` are those of a file's error.

    `matching_*` are adjacent files that belong together. `issuer` is the file of the CA that issued the chain's last
    certificate and is missing from the chain. `ca` is a directory from which it can be reissued.
    """

    certificate: SourcedSetting | None = None
    key: SourcedSetting | None = None
    certificate_file: FileFacts | None = None
    key_file: FileFacts | None = None
    leaf: LeafFacts | None = None
    certificate_code: str = ""
    certificate_cause: str = ""
    is_der: bool = False
    key_public: str = ""
    key_code: str = ""
    key_cause: str = ""
    is_certificate_in_key: bool = False
    is_key_in_certificate: bool = False
    object_id: int | None = None
    reference_public: str = ""
    matching_certificate: str = ""
    matching_key: str = ""
    issuer: str = ""
    ca: str = ""
    registration_id: SourcedSetting | None = None


# ---- OpenSSL configuration and bus access to a chip


@dataclass(frozen=True, slots=True)
class OpensslFacts:
    """The file of OPENSSL_CONF. `sections` is its content, `missing` lists paths in it that do not exist."""

    setting: SourcedSetting
    file: FileFacts
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    missing: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BusFacts:
    """Bus settings of NXP's middleware and Microchip's library.

    `devices` are the other available buses. `factory` is the variant whose published keys the SCP03 key file contains.
    `has_nxp_library` is true for NXP's own library. `lacks_middleware` is true if no library is named and NXP's is not
    installed.
    """

    port: SourcedSetting | None = None
    device: FileFacts | None = None
    devices: tuple[str, ...] = ()
    scp03: SourcedSetting | None = None
    scp03_file: FileFacts | None = None
    factory: str = ""
    has_nxp_library: bool = False
    lacks_middleware: bool = False
    microchip: tuple[tuple[str, str], ...] = ()
    filestore: FileFacts | None = None


# ---- agent


@dataclass(frozen=True, slots=True)
class Reachable:
    """Addresses of a server of this machine for use in a configuration; without secrets."""

    trust: str
    dps_host: str = ""
    dps_port: int = 0
    est_host: str = ""
    est_port: int = 0


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """A failed check of `birthmark agent check`. `facts` are the error's; `command` fixes it.

    `lines` maps texts of the configuration that name a host, a port or a CA file to their files.
    """

    id: str
    config: str
    is_error: bool
    details: str
    command: str = ""
    code: str = ""
    cause: str = ""
    fix: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    for_a_person: str = ""


# ---- network


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """Variables that name a proxy. `local` are hosts of this machine's server that would use it.

    `trouble` is why the proxy does not respond; empty if it does, or was not contacted.
    """

    settings: tuple[SourcedSetting, ...]
    address: str
    local: tuple[str, ...] = ()
    trouble: str = ""
    is_malformed: bool = False


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """A server that a variable names. `code` and `cause` are why it cannot be used; `fix` is the error's fix."""

    setting: SourcedSetting
    host: str
    port: int
    code: str = ""
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """This machine's clock and its offset from a server's stated time; None was not queried."""

    now: str
    is_before_build: bool = False
    offset_s: float | None = None
    by: str = ""
