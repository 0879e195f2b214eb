"""Server configuration: one frozen object, read once. Flag > `BIRTHMARK_*` environment > file > default."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import msgspec

from birthmark.awsiot.service.jit_registration import MAX_PER_CA, PER_SECOND
from birthmark.blob_storage.model import StorageQuotas
from birthmark.blob_storage.service.file_store import FOLDER
from birthmark.broker.rules.principal_quotas import MAX_RETAINED, MAX_SESSIONS, MAX_WAITING
from birthmark.errors import InvalidRequestError
from birthmark.iam.device_removal_quota import MOST_A_DAY
from birthmark.iothub.service.file_uploads import UploadSettings
from birthmark.iothub.service.telemetry_streams import KEEP_BYTES, KEEP_S
from birthmark.net.listener_limits import Limits
from birthmark.net.proxy_protocol import networks_of
from birthmark.outbound import ssrf_guard as outside
from birthmark.outbound.mail_config import Tls
from birthmark.pki.certificate_profiles import DEVICE, FOR_REQUESTS, CertificateProfile
from birthmark.pki.hostname_verification import find_host_error
from birthmark.server.alert_settings import AlertSettings, mistakes_of_alerts
from birthmark.server.ca_settings import Ca, mistakes_of, profiles_of
from birthmark.server.est_settings import EstConfiguration, validate_est
from birthmark.server.function_and_role_settings import FunctionTable, RoleTable, mistakes_of_roles, validate_functions
from birthmark.server.message_server_settings import ServerTable, validate_servers
from birthmark.server.oidc_settings import Oidc, mistakes_of_oidc
from birthmark.text_file_encodings import format_conversion_fix, not_utf_8, read_text_file, to_lines
from birthmark.toml_validation import TomlError, lines_of, mistakes_in, parse
from birthmark.untrusted_json_and_text import printable

DEFAULT_DATA = "~/.local/share/birthmark"
_DATABASES = ("sqlite:///", "postgresql://", "postgres://")
_LOOPBACK = ("127.0.0.1", "::1")


class ConfigInvalidError(InvalidRequestError):
    """The configuration cannot be used."""

    code = "server.config_invalid"
    cause = "{where} cannot be used: {detail}."
    fix = "Correct the setting{example}; docs/reference/server-config.md lists all settings."
    where: str
    detail: str
    example: str = ""

    @classmethod
    def unreadable(cls, where: str, error: OSError) -> Self:
        """Return the error for a file that cannot be read, with a fix for the file."""
        refusal = cls(where=where, detail=(error.strerror or "error").lower())
        is_absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        refusal.quote(
            fix="Create the file, or correct its path." if is_absent else "Make the file readable, or correct its path."
        )
        return refusal


_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class ServedCloud(StrEnum):
    """A service that a process serves."""

    EST = "est"
    DPS = "dps"
    IOTHUB = "iothub"
    AWS = "aws"


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ports of the services; 0 disables a port. The SDKs require 8883 and 443.

    `https_also`, `console` and `amqps` are bound if possible.
    """

    mqtt: _Port = 8883
    https: _Port = 8443
    https_also: _Port = 443
    est: _Port = 8085
    health: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    pki: _Port = 0
    """Plain HTTP port for revocation status."""
    console: _Port = 9443
    """Port of the operator interface for users on other machines: TLS without a client certificate."""
    amqps: _Port = 5671
    """Port of AMQP over TLS."""
    amqp: _Port = 0
    """Port of AMQP without TLS, on loopback addresses only."""


class Aws(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The AWS account of this server."""

    region: Annotated[str, msgspec.Meta(pattern="^[a-z0-9-]{1,32}$")] = "us-east-1"
    account_id: Annotated[str, msgspec.Meta(pattern="^[0-9]{12}$")] = "000000000000"
    max_sessions: Annotated[int, msgspec.Meta(ge=1)] = MAX_SESSIONS
    max_retained: Annotated[int, msgspec.Meta(ge=0)] = MAX_RETAINED
    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = MAX_WAITING
    max_per_ca: Annotated[int, msgspec.Meta(ge=1)] = MAX_PER_CA
    """Maximum number of certificates that devices of one CA register themselves (JITR/JITP)."""
    max_new_per_second: Annotated[int, msgspec.Meta(ge=1)] = PER_SECOND
    """Maximum number of new certificates of one CA per second, at each worker."""
    buckets: str | None = None
    """Directory whose subdirectories replace Amazon S3 buckets."""


class TelemetryRetention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Retention of each hub's telemetry, by age and size."""

    keep_s: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = KEEP_S
    keep_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = KEEP_BYTES


class FileStorage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that devices upload: folder, lifetime of an upload, notifications, and quotas."""

    folder: str | None = None
    """Directory of the files. Several machines must share it."""
    upload_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = UploadSettings().ttl_s
    notifications: bool = True
    device_files: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = StorageQuotas().device_files
    device_bytes: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = StorageQuotas().device_bytes
    hub_files: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = StorageQuotas().hub_files
    hub_bytes: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = StorageQuotas().hub_bytes


class ServerCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A custom certificate for every TLS port: PEM files, with the leaf first in the chain. Set both or none."""

    certificate: str | None = None
    key: str | None = None


class BusTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files for a NATS server with TLS: trusted CAs, and the client certificate if the server requests one."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class Outbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Internal addresses or networks that webhooks and other outbound calls may reach, besides the Internet."""

    allow: tuple[str, ...] = ()
    ca: str | None = None
    """PEM file of the CAs that issue the receivers' certificates. Default: the system's CAs."""


class PeopleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of what a user may do without a second user's approval."""

    max_removals_per_day: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = MOST_A_DAY


class MailSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SMTP server for alerts and events (`mailto:` receivers); none without a host."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    tls: Tls = Tls.STARTTLS
    sender: str = ""
    user: str = ""
    password_file: str | None = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of `birthmark serve`."""

    data: str = DEFAULT_DATA
    listen: tuple[str, ...] = _LOOPBACK
    host: str | None = None
    names: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    """Load balancers, by address or network, that send the client address with PROXY protocol version 2."""
    database: str | None = None
    only: tuple[ServedCloud, ...] = ()
    """Enabled services; all if empty."""
    ports: Ports = Ports()
    est: EstConfiguration = EstConfiguration()
    ca: Ca = Ca()
    aws: Aws = Aws()
    telemetry: TelemetryRetention = TelemetryRetention()
    files: FileStorage = FileStorage()
    limits: dict[str, float] = {}
    health_listen: tuple[str, ...] = ()
    health_metrics: bool = False
    server: ServerCertificate = ServerCertificate()
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Number of worker processes."""
    bus: str | None = None
    """URL of the NATS server between workers. Without it, several workers start a private one."""
    bus_tls: BusTls = BusTls()
    outbound: Outbound = Outbound()
    alerts: AlertSettings = AlertSettings()
    mail: MailSettings = MailSettings()
    people: PeopleSettings = PeopleSettings()
    oidc: dict[str, Oidc] = {}
    """Identity providers for user sign-in."""
    functions: dict[str, FunctionTable] = {}
    """Endpoints of functions, by the ARN that the AWS account's API uses."""
    roles: dict[str, RoleTable] = {}
    """Permissions of roles, by the ARN that role aliases use."""
    servers: dict[str, ServerTable] = {}
    """NATS servers and MQTT brokers that rules may send to, by the last part of a destination's ARN."""

    @property
    def buckets(self) -> Path:
        """Return the directory that replaces Amazon S3."""
        given = self.aws.buckets
        return self.directory / "buckets" if given is None else Path(given).expanduser()

    @property
    def files_folder(self) -> Path:
        """Return the directory of the files that devices upload."""
        given = self.files.folder
        return self.directory / FOLDER if given is None else Path(given).expanduser()

    @property
    def is_shared(self) -> bool:
        """Return whether other workers exist or may exist."""
        return self.workers > 1 or self.bus is not None

    @property
    def directory(self) -> Path:
        return Path(self.data).expanduser()

    @property
    def host_name(self) -> str:
        """The name under which clients reach this server, as its endpoints print it."""
        if self.host:
            return self.host
        first = self.listen[0]
        if first in _LOOPBACK:
            return "localhost"
        return socket.gethostname() if first in {"0.0.0.0", "::"} else first  # noqa: S104 - compared, not bound

    @property
    def hosts(self) -> list[str]:
        """Every name and address by which clients reach this server."""
        return [self.host_name, *self.listen, *self.names]

    def serves(self, *services: ServedCloud) -> bool:
        """Return whether at least one of these services is served."""
        return not self.only or any(one in self.only for one in services)

    @property
    def bound(self) -> Ports:
        """The ports to bind: those of the clouds if one is served.

        EST uses a separate port before it shares another one.
        """
        ports, clouds = self.ports, self.serves(*_CLOUDS)
        est = ports.est if self.serves(ServedCloud.EST) else 0
        web = clouds or not est
        return Ports(
            ports.mqtt if clouds else 0,
            ports.https if web else 0,
            ports.https_also if web else 0,
            est,
            ports.health,
            ports.pki,
            ports.console,
            ports.amqps if self.serves(ServedCloud.IOTHUB, ServedCloud.DPS) else 0,
            ports.amqp if self.serves(ServedCloud.IOTHUB) else 0,
        )

    @property
    def loopback(self) -> tuple[str, ...]:
        """Loopback addresses for ports without TLS: those of `listen`, or 127.0.0.1."""
        return tuple(one for one in self.listen if one == "localhost" or one.startswith("127.")) or ("127.0.0.1",)

    @property
    def health_address(self) -> str:
        """Address of the health port and operator interface: loopback, whatever the other ports listen on."""
        first = self.listen[0]
        return first if first.startswith("127.") else "127.0.0.1"

    @property
    def health_addresses(self) -> tuple[str, ...]:
        """Addresses of the health port: loopback, and the one that remote probes use."""
        if "0.0.0.0" in self.health_listen:  # noqa: S104 - compared, not bound
            return self.health_listen
        return tuple(dict.fromkeys((self.health_address, *self.health_listen)))

    @property
    def profiles(self) -> Mapping[str, CertificateProfile]:
        """The certificate profiles; `est` sets the lifetime of device certificates."""
        device = replace(DEVICE, lifetime=timedelta(seconds=self.est.device_lifetime_s))
        return profiles_of(self.ca, {**FOR_REQUESTS, DEVICE.name: device})

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.directory / 'birthmark.db'}"

    @property
    def sqlite_file(self) -> Path | None:
        """Path of the SQLite database; None for PostgreSQL."""
        kind, _, path = self.database_url.partition(":///")
        return Path(path) if kind == "sqlite" else None

    def bounds(self) -> Limits:
        """Return the transport's limits; `read_settings` has rejected unknown names."""
        whole = {one.name for one in fields(Limits) if isinstance(one.default, int)}
        return msgspec.convert({n: int(v) if n in whole else v for n, v in self.limits.items()}, Limits, strict=False)


_CLOUDS = (ServedCloud.DPS, ServedCloud.IOTHUB, ServedCloud.AWS)
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
_Count = Annotated[float, msgspec.Meta(ge=1, le=1e15)]
_LimitsTable = msgspec.defstruct(
    "_LimitsTable",
    [(one.name, _Count if isinstance(one.default, int) else _Seconds, one.default) for one in fields(Limits)],
    frozen=True,
    forbid_unknown_fields=True,
)


class _StrictSettings(Settings, frozen=True, forbid_unknown_fields=True):
    """Settings as a file may contain them: only known limits are accepted."""

    limits: _LimitsTable = _LimitsTable()  # type: ignore[valid-type] # struct made of a dataclass


RENAMED = {
    "est.comeback": "est.late_renewal",
    "limits.max_stranger_bytes": "limits.max_unauthenticated_bytes",
    "limits.max_stranger_bytes_per_peer": "limits.max_unauthenticated_bytes_per_peer",
    "limits.max_strangers": "limits.max_unauthenticated",
    "limits.max_strangers_per_peer": "limits.max_unauthenticated_per_peer",
    "people.most_taken_a_day": "people.max_removals_per_day",
}
"""Names of settings in earlier releases, which stay valid, with their current names."""


def _with_current_names(values: Mapping[str, Any], where: str) -> dict[str, object]:
    """Return the values under the current names of their settings. Raise `ConfigInvalidError` for both names."""
    current = dict(values)
    for old, new in RENAMED.items():
        (table, old_key), new_key = old.split("."), new.split(".")[1]
        settings = current.get(table)
        if isinstance(settings, dict) and old_key in settings:
            if new_key in settings:
                raise ConfigInvalidError(where=where, detail=f"{old} is the former name of {new}: remove it")
            current[table] = {new_key if key == old_key else key: value for key, value in settings.items()}
    return current


def _merge_flags(values: Mapping[str, object], flags: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of file and environment, overridden by options; `--bus ''` removes the bus."""
    under = {**values, **{name: value for name, value in flags.items() if value is not None}}
    return {name: value for name, value in under.items() if (name, value) != ("bus", "")}


def read_settings(path: Path | None, environment: Mapping[str, str], **flags: object) -> Settings:
    """Return the settings of a TOML file (or none), overridden by the environment, and by flags that are not None."""
    known: dict[str, object] = {}
    text = ""
    where = f"The configuration file {path}" if path else "The options and the environment"
    if path is not None:
        try:
            text = read_text_file(path)
            known = parse(text)
        except OSError as error:
            raise ConfigInvalidError.unreadable(where, error) from error
        except UnicodeDecodeError as error:
            raw = path.read_bytes()
            refusal = ConfigInvalidError(where=where, detail=f"it {not_utf_8(raw, is_shown=False)}")
            refusal.quote(fix=f"{format_conversion_fix(path, raw, is_shown=False)}.")
            raise refusal from error
        except TomlError as error:
            example = f" (`{command}`)" if (command := to_lines(path, text)) else ""
            raise ConfigInvalidError(where=where, detail=printable(str(error)), example=example) from error
    for name in ("data", "host", "database", "bus"):
        if value := environment.get(f"BIRTHMARK_{name.upper()}"):
            known[name] = value
    if value := environment.get("BIRTHMARK_LISTEN"):
        known["listen"] = value.split(",")
    known = _with_current_names(_merge_flags(known, flags), where)
    try:
        msgspec.convert(known, _StrictSettings)
    except msgspec.ValidationError as error:
        found = mistakes_in(known, _StrictSettings, text)
        defaults = ", ".join(f"`{one.default}`" for one in found if one.default)
        raise ConfigInvalidError(
            where=where,
            detail="; ".join(one.words for one in found),
            example=f" (by default {defaults})" if defaults else "",
        ) from error
    settings = msgspec.convert(known, Settings)
    if wrong := _find_conflicts(settings, text):
        raise ConfigInvalidError(where=where, detail="; ".join(wrong))
    return settings


def _is_bus(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"nats", "tls"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _contradictions_of_bus(bus: str | None, tls: BusTls) -> Iterator[str]:
    if bus is not None and not _is_bus(bus):
        yield "the bus must be nats://HOST:PORT or tls://HOST:PORT"
    if (tls.certificate is None) != (tls.key is None):
        yield "bus_tls.certificate and bus_tls.key must both be set, or neither"
    if tls != BusTls() and not (bus or "").startswith("tls://"):
        yield "bus_tls requires a bus that starts with tls://"


def _hosts_that_are_none(settings: Settings) -> Iterator[str]:
    named = [("host", settings.host or ""), *(("names", one) for one in settings.names)]
    for key, host in named:
        if (wrong := find_host_error(host.removeprefix("*."))) and (host or key == "names"):
            yield f"{key} is '{printable(host[:100])}', {wrong}"
    if not all(one.strip() for one in settings.listen or ("",)):
        yield "listen names no address, or an empty one: such as `127.0.0.1`"


def _find_conflicts(settings: Settings, text: str) -> list[str]:
    """Return the conflicts between values that are valid individually."""
    found, bound = [*_hosts_that_are_none(settings)], settings.bound
    if not (bound.mqtt or bound.https or bound.https_also or bound.est):
        found.append("every port is 0: nothing would be served")
    if (settings.server.certificate is None) != (settings.server.key is None):
        found.append("server.certificate and server.key must both be set, or neither")
    if settings.database is not None and not settings.database.startswith(_DATABASES):
        # The URL may contain a password.
        found.append("the database must start with sqlite:/// or postgresql://")
    elif settings.is_shared and settings.database_url.startswith("sqlite:///"):
        found.append("several workers need PostgreSQL, as SQLite has one writer: give a database, postgresql://…")
    found += _contradictions_of_bus(settings.bus, settings.bus_tls)
    if settings.ca.private_ca is not None and settings.est.upstream is not None:
        found.append("ca.private_ca and est.upstream exclude each other: one CA signs")
    try:
        networks_of(settings.proxies)
    except ValueError as error:
        found.append(f"proxies names no address and no network: {error}")
    try:
        outside.networks_of(settings.outbound.allow)
    except ValueError as error:
        found.append(f"outbound.allow names no address and no network: {error}")
    found += mistakes_of_alerts(settings.alerts)
    if settings.mail.host and "@" not in settings.mail.sender:
        found.append("mail.sender must be an email address")
    lines = lines_of(text)
    wrong_ca = [*mistakes_of(settings.ca)] or [*validate_est(settings.est, settings.profiles)]
    allows_plain = bool(settings.outbound.allow)
    of_peers = (
        *mistakes_of_oidc(settings.oidc, allows_plain=allows_plain),
        *validate_functions(settings.functions, allows_plain=allows_plain),
        *mistakes_of_roles(settings.roles),
        *validate_servers(settings.servers),
    )
    for key, wrong in [*wrong_ca, *of_peers]:
        line = lines.get(tuple(key.split(".")))
        found.append((f"line {line}: " if line else "") + f"{key} {wrong}")
    return found
