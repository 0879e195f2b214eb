"""Hardened systemd units of the agent and the server, each with its own user. Pure: file contents and paths."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from birthmark.ownership_and_sudo_commands import AGENT as AGENT_USER

SERVER_USER = "birthmark"

_HARDENED = """\
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""
# Directories that ProtectHome and PrivateTmp hide.
_HIDDEN = tuple(PurePosixPath(one) for one in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108 - names
_CHIP_GROUPS = ("i2c", "tss")
_STATE = tuple(f"var/lib/aziot/{name}" for name in ("certd", "certd/certs", "keyd", "keyd/keys", "identityd"))
_OWNED = (("d", "0700"), ("Z", "-"))


@dataclass(frozen=True, slots=True)
class SystemdService:
    """A systemd service: its unit and user, and what the user owns, as sysusers.d(5) and tmpfiles.d(5) entries."""

    name: str
    user: str
    unit: str
    sysusers: str
    tmpfiles: str
    directories: tuple[str, ...]
    """Directories that the installation creates; tmpfiles sets modes and owners."""

    @property
    def files(self) -> dict[str, str]:
        """Return all files, keyed by their path below the root."""
        return {
            f"etc/systemd/system/{self.name}.service": self.unit,
            f"etc/sysusers.d/{self.name}.conf": self.sysusers,
            f"etc/tmpfiles.d/{self.name}.conf": self.tmpfiles,
        }

    @property
    def wants(self) -> str:
        """Path of the link that starts the service at boot."""
        return f"etc/systemd/system/multi-user.target.wants/{self.name}.service"


def agent_service(program: str, groups: Collection[str] = (), *, variables: str | None = None) -> SystemdService:
    """Return the agent's service, which reads /etc/aziot and writes only below /var/lib/aziot.

    Its user joins those of the machine's `groups` that may open secure elements and TPMs. `variables` names an optional
    file of environment variables.
    """
    unit = f"""\
[Unit]
Description=Birthmark agent: this device's identity
Documentation=https://github.com/birthmark/birthmark
After=network-online.target
Wants=network-online.target
ConditionPathExists=/etc/aziot/config.toml
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={shlex.quote(program)} agent run
User={AGENT_USER}
{_read(variables)}Environment=HOME=/var/lib/aziot/identityd
Restart=always
RestartSec=5
TimeoutStartSec=infinity
WatchdogSec=120
StateDirectory=aziot/certd aziot/keyd aziot/identityd
StateDirectoryMode=0700
CapabilityBoundingSet=
DevicePolicy=closed
DeviceAllow=char-i2c rw
DeviceAllow=char-tpm rw
MemoryDenyWriteExecute=yes
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""
    # The service also takes over the files of an agent that ran as root; their modes stay.
    owned = "".join(f"{kind} /{name} {mode} {AGENT_USER} {AGENT_USER} -\n" for name in _STATE for kind, mode in _OWNED)
    tmpfiles = f"""\
d /etc/aziot 0755 root root -
d /etc/aziot/config.d 0750 root {AGENT_USER} -
z /etc/aziot/config.toml 0640 root {AGENT_USER} -
d /var/lib/aziot 0755 root root -
{owned}"""
    home = "/var/lib/aziot"
    sysusers = _user(AGENT_USER, "Birthmark agent", home) + "".join(
        f"m {AGENT_USER} {one}\n" for one in _CHIP_GROUPS if one in groups
    )
    directories = ("etc/aziot", "etc/aziot/config.d", "var/lib/aziot", *_STATE)
    return SystemdService("birthmark-agent", AGENT_USER, unit, sysusers, tmpfiles, directories)


def is_hidden(path: str) -> bool:
    """Return whether this absolute path is hidden from a service."""
    return any(one in PurePosixPath(path).parents for one in _HIDDEN)


def server_service(
    program: str,
    host: str | None,
    listen: Sequence[str] = (),
    config: str | None = None,
    *,
    variables: str | None = None,
) -> SystemdService:
    """Return the server's systemd service.

    Its only privilege is to bind ports below 1024. `variables` is the same as for the agent.
    """
    given = [*(("--host", host) if host else ()), *(part for one in listen for part in ("--listen", one))]
    given += ["--config", config] if config else []
    options = f" {shlex.join(given)}" if given else ""
    # It counts as started once it answers, however long a migration of an old database takes. MemoryDenyWriteExecute is
    # off: OpenSSL calls back into Python through code that cffi generates at run time.
    unit = f"""\
[Unit]
Description=Birthmark server: device identities and a local cloud
Documentation=https://github.com/birthmark/birthmark
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={shlex.quote(program)} serve --data /var/lib/birthmark{options}
User={SERVER_USER}
{_read(variables)}Environment=HOME=/var/lib/birthmark
Restart=on-failure
RestartSec=2
TimeoutStartSec=infinity
StateDirectory=birthmark
StateDirectoryMode=0700
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE
PrivateDevices=yes
LimitNOFILE=65536
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""
    tmpfiles = f"d /var/lib/birthmark 0700 {SERVER_USER} {SERVER_USER} -\n"
    sysusers = _user(SERVER_USER, "Birthmark server", "/var/lib/birthmark")
    return SystemdService("birthmark-server", SERVER_USER, unit, sysusers, tmpfiles, ("var/lib/birthmark",))


def _read(variables: str | None) -> str:
    return f"EnvironmentFile=-{variables}\n" if variables else ""


def _user(name: str, subject: str, home: str) -> str:
    return f'u {name} - "{subject}" {home} /usr/sbin/nologin\n'
