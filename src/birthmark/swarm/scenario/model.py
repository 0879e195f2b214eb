"""A run as configured by the scenario file and the command line: target, identities, groups. Frozen values."""

from dataclasses import dataclass
from pathlib import Path

from birthmark.swarm.model import DeviceGroup, Origin, RegistrationProtocol, TargetKind

AMQPS_PORT = 5671


@dataclass(frozen=True, slots=True)
class SwarmTarget:
    """The target of all devices, whatever their group."""

    where: TargetKind
    host: str
    """Azure: the DPS host. AWS: the data endpoint. With `RegistrationProtocol.NONE`: the hub."""
    id_scope: str = ""
    way: RegistrationProtocol = RegistrationProtocol.MQTT
    mqtt_port: int = 8883
    amqp_port: int = AMQPS_PORT
    https_port: int = 443
    est_url: str = ""
    trust: str | None = None
    """PEM of the CAs; None for the system's CAs."""
    level: int = 4
    """MQTT protocol level at AWS: 4 is 3.1.1."""
    tls: str = ""
    """Restrict TLS to `1.2` or `1.3`; empty for both."""
    at_once: int = 400
    """Maximum number of devices that register or connect at the same time."""


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A partially specified target; None values come from other sources (`resolve`)."""

    where: TargetKind = TargetKind.LOCAL
    host: str | None = None
    id_scope: str | None = None
    way: RegistrationProtocol = RegistrationProtocol.MQTT
    mqtt_port: int = 8883
    amqp_port: int | None = None
    https_port: int | None = None
    est_url: str | None = None
    trust: Path | None = None
    level: int = 4
    tls: str = ""
    at_once: int = 400


@dataclass(frozen=True, slots=True)
class Identities:
    """Location of keys and certificates, and issuer of missing ones."""

    directory: Path = Path("swarm-devices")
    origin: Origin = Origin.CA
    ca_cert: Path | None = None
    ca_key: Path | None = None
    passphrase_file: Path | None = None
    est_user: str | None = None
    est_password_file: Path | None = None
    lifetime_s: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run. `wish` is the target as specified, `target` the resolved one."""

    wish: TargetSpec = TargetSpec()
    identities: Identities = Identities()
    groups: tuple[DeviceGroup, ...] = ()
    duration_s: float = 60.0
    seed: int = 1
    title: str = "swarm"

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups)

    def never(self) -> list[tuple[str, float]]:
        """Return the storms after the end of the run: group and moment (seconds)."""
        return [(group.name, moment) for group in self.groups for moment in group.storm_s if moment >= self.duration_s]
