"""What was seen, as values. No rule looks for itself; no secret is in here, only whether there is one."""

import shlex
from dataclasses import dataclass
from enum import StrEnum

from birthmark.doctor.setting_sources import SettingSource, SourcedSetting


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A path. `mode` is its permission bits; `reason` is why it cannot be read, empty where it can."""

    path: str
    exists: bool = False
    is_directory: bool = False
    mode: int = 0
    reason: str = ""


# ---- the chip


class ProbeExit(StrEnum):
    """How the process that used the library ended."""

    FINE = "fine"
    CRASHED = "crashed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """A token, as it says without a login."""

    label: str
    slot_id: int
    manufacturer: str = ""
    needs_pin: bool = False
    is_last_try: bool = False
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A private key in the token: its label and id, and the SHA-256 of its public half, empty where it is not told."""

    label: str
    key_id: str = ""
    public: str = ""


@dataclass(frozen=True, slots=True)
class ChipSelection:
    """What was asked for, and where it was said; None is not said."""

    module: SourcedSetting | None = None
    token: SourcedSetting | None = None
    slot: SourcedSetting | None = None
    pin_file: SourcedSetting | None = None
    key: SourcedSetting | None = None
    has_inline_pin: bool = False
    config: str = ""


@dataclass(frozen=True, slots=True)
class SoftHsmFacts:
    """SoftHSM's settings: the file, the directory of tokens it names, and what stands beside other files of ours."""

    conf: FileFacts
    setting: SourcedSetting | None = None
    tokens: FileFacts | None = None
    tokens_beside: str = ""
    conf_beside_pin: str = ""
    pin_beside: str = ""


@dataclass(frozen=True, slots=True)
class ChipFacts:
    """A library, and what came of using it. `code`, `cause` and `detail` are those of the refusal, if any."""

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
    """The command that writes the PIN without the white space around it, where there is some."""
    softhsm: SoftHsmFacts | None = None


# ---- servers and the environment


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """A file or directory of CAs that a variable names; `certificates` is how many it has."""

    setting: SourcedSetting
    file: FileFacts
    certificates: int = 0


@dataclass(frozen=True, slots=True)
class PathFacts:
    """A path that a variable names; `instead` is one that would do, empty where there is none."""

    setting: SourcedSetting
    file: FileFacts
    instead: str = ""


@dataclass(frozen=True, slots=True)
class MismatchedVariable:
    """A variable that does not fit the server that is meant. `value` is empty where it is a secret."""

    name: str
    value: str = ""
    whose: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A Birthmark server of this machine, by its data directory: one that was named, or that the environment is about.

    `has_database` is its own word, at its health address, on whether its database answers; None is not told.
    """

    data: str
    setting: SourcedSetting | None = None
    directory: FileFacts | None = None
    has_run: bool = False
    is_served: bool = False
    has_database: bool | None = None
    certificate_until: str = ""
    certificate_days: int | None = None
    """How long its own certificate lives; None is not told."""
    certificate_trouble: str = ""
    """Why the one that is configured is not served."""
    foreign: tuple[MismatchedVariable, ...] = ()
    exposed: tuple[FileFacts, ...] = ()
    others: tuple[str, ...] = ()
    is_known_to_shell: bool = True
    """Any variable leads to it, or to another server."""
    start: str = ""
    """The command that starts it, for this user."""
    as_owner: str = ""
    """The command typed by the directory's owner, where it is closed to this user."""

    @property
    def env(self) -> str:
        """The command that sets its environment."""
        is_known = self.setting is not None and self.setting.kind is SettingSource.VARIABLE
        data = "" if is_known else f" --data {shlex.quote(self.data)}"
        return f'eval "$(birthmark env{data})"'


# ---- the device's files


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
    """Certificate and key in files. `code` and `cause` are those of a file's refusal.

    `matching_*` are files beside them that do belong together; `issuer` is the file of a CA that issued the last
    certificate of the chain and is not in it; `ca` is a directory from which it can be issued anew.
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


# ---- OpenSSL's configuration, and the way to a chip on a bus


@dataclass(frozen=True, slots=True)
class OpensslFacts:
    """OPENSSL_CONF's file. `sections` is its content, `missing` what it names by a path and is not there."""

    setting: SourcedSetting
    file: FileFacts
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    missing: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BusFacts:
    """How NXP's middleware and Microchip's library are told where the chip is.

    `devices` are the buses beside the one that is named; `factory` is the variant whose published keys the file of
    SCP03 keys holds; `has_nxp_library` says that the chip's library is NXP's own,
    `lacks_middleware` that no library is named and NXP's is nowhere.
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


# ---- the agent


@dataclass(frozen=True, slots=True)
class Reachable:
    """How a server of this machine is reached, for who writes a configuration: no secret is in it."""

    trust: str
    dps_host: str = ""
    dps_port: int = 0
    est_host: str = ""
    est_port: int = 0


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """One check of `birthmark agent check` that did not come out well. `facts` are the refusal's; `command` mends it.

    `lines` are the places of the configuration that name a host, a port or a file of CAs: text -> file.
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


# ---- the network


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """Variables that name a proxy. `local` are hosts of this machine's server that they would be asked for.

    `trouble` is why the proxy does not answer; empty where it does, or was not asked.
    """

    settings: tuple[SourcedSetting, ...]
    address: str
    local: tuple[str, ...] = ()
    trouble: str = ""
    is_malformed: bool = False


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """A server that a variable names. `code` and `cause` are why it cannot be used; `fix` what is said of that."""

    setting: SourcedSetting
    host: str
    port: int
    code: str = ""
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """This machine's clock, and how far it is from what a server stated; None is not asked."""

    now: str
    is_before_build: bool = False
    offset_s: float | None = None
    by: str = ""
