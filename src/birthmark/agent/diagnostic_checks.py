"""`birthmark agent check`: aziot's checks by their IDs (identity part), adapted to short-lived certificates.

Each check is independent and reports ok, warning, error, or skipped, with a fix. Checks change nothing.
"""

import asyncio
import contextlib
import re
import shlex
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias

from birthmark import __version__, flock
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.certificate_sources import est_trust, subject_of
from birthmark.agent.config.model import (
    DpsSource,
    EstIssuance,
    IssuedIdentity,
    LocalIssuance,
    PreloadedIdentity,
    SymmetricKeySource,
)
from birthmark.agent.identity_lifecycle import Agent, Held
from birthmark.agent.managed_certificate_list import ManagedCertificate
from birthmark.agent.renewal_policy import Renewal, warn_at
from birthmark.agent.state_directory import EDGE_CA, LOCAL_CA
from birthmark.agent.symmetric_key_identity import open_shared
from birthmark.agent.tpm_identity import open_tpm
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.certificate_time import check_dates
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.errors import BirthmarkError, about
from birthmark.est.client import EstClient
from birthmark.keys.key_handle import default_scheme
from birthmark.keys.tpm_attestation import Tpm, TpmSettings
from birthmark.pki.certificates import parse_bundle
from birthmark.untrusted_json_and_text import reason_of

_HUB_PORT = 8883
_CONNECT_S = 10.0
MAX_CLOCK_OFFSET = timedelta(seconds=10)
_MAX_LABEL = 63
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-.]{0,252}[A-Za-z0-9])?")


class CheckResult(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


class CheckAnswer(NamedTuple):
    """Result of a check, its details, the command that fixes it, and the underlying error."""

    result: CheckResult
    details: str = ""
    command: str = ""
    error: BirthmarkError | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `details` includes the command."""

    id: str
    result: CheckResult
    details: str = ""
    command: str = ""
    error: BirthmarkError | None = None


Look: TypeAlias = Callable[[], CheckAnswer | Awaitable[CheckAnswer]]
_FINE = CheckAnswer(CheckResult.OK)


@dataclass(slots=True)
class Checks:
    """Checks one agent's configuration, files, and environment."""

    agent: Agent
    is_offline: bool = False

    async def run(self) -> list[Check]:
        """Return every check in aziot's order."""
        here: dict[str, Look] = {
            "keyd-config-well-formed": lambda: _FINE,
            "certd-config-well-formed": lambda: _FINE,
            "tpmd-config-well-formed": lambda: _FINE,
            "identityd-config-well-formed": self._warnings,
            "configs-up-to-date": self._up_to_date,
            "hostname": self._hostname,
            "aziot-version": lambda: CheckAnswer(
                CheckResult.OK, f"birthmark {__version__}, in the place of aziot's services"
            ),
            "identity-certificate-expiry": self._identity_expiry,
            "est-identity-and-bootstrap-certificate-expiry": self._bootstrap_expiry,
            "local-ca-certificate-expiry": self._local_ca_expiry,
            "edge-ca-certificate-expiry": self._edge_ca_expiry,
            "certs-preloaded": self._preloaded,
            "keyd-running": self._running,
            "certd-running": self._running,
            "tpmd-running": self._tpm,
            "identityd-running": self._running,
            "certs-read": self._certs_read,
            "key-pairs-read": self._key_pairs,
            "est-server-https": self._est_is_https,
            "certs-match-private-keys": self._match,
        }
        over: dict[str, Look] = {
            "host-local-time": self._local_time,
            "host-connect-est-endpoint": self._est_answers,
            "host-connect-dps-endpoint": self._dps_connects,
            "host-connect-iothub-mqtt": self._hub_connects,
        }
        if self.is_offline:
            over = dict.fromkeys(over, lambda: CheckAnswer(CheckResult.SKIPPED, "offline"))
        return [Check(name, *await _guarded(look)) for name, look in (here | over).items()]

    def _command(self, verb: str) -> str:
        """Return the command line for this agent."""
        places, file = self.agent.places, Path(self.agent.config.file)
        root = [] if places.root == Path("/") else ["--root", str(places.root)]
        config = [] if file == places.config else ["--config", str(file)]
        return shlex.join(["birthmark", "agent", verb, *root, *config])

    def _advised(self, result: CheckResult, words: str, verb: str) -> CheckAnswer:
        command = self._command(verb)
        return CheckAnswer(result, f"{words}: {command}", command)

    # ---- configuration

    def _warnings(self) -> CheckAnswer:
        config = self.agent.config
        told = [f"{one.file or config.file}:{one.line}: {one.key} {one.detail}" for one in config.warnings]
        if (warning := self.agent.enrollment_warning()) is not None:
            told.append(warning)
        return CheckAnswer(CheckResult.WARNING, "; ".join(told)) if told else _FINE

    def _up_to_date(self) -> CheckAnswer:
        applied = self.agent.state.config_digest
        if applied is None:
            return self._advised(CheckResult.WARNING, "not applied yet", "apply")
        if applied != self.agent.config.digest:
            return self._advised(CheckResult.WARNING, "the configuration was changed after it was applied", "apply")
        return _FINE

    def _hostname(self) -> CheckAnswer:
        name = self.agent.config.hostname or socket.gethostname()
        if _HOST_NAME.fullmatch(name) is None:
            return CheckAnswer(CheckResult.ERROR, f"'{name[:64]}' is not a valid host name")
        if max(map(len, name.split("."))) > _MAX_LABEL:
            detail = f"has a part of more than {_MAX_LABEL} characters between its dots (RFC 1035)"
            return CheckAnswer(CheckResult.ERROR, f"'{name[:64]}…' {detail}")
        return _FINE

    def _running(self) -> CheckAnswer:
        is_running = flock.is_locked(self.agent.places.lock)
        return _FINE if is_running else self._advised(CheckResult.WARNING, "no agent is running on this machine", "run")

    def _tpm(self) -> CheckAnswer:
        """Check the TPM, for which aziot runs a separate service; uses only existing TPM objects."""
        given = self.agent.config.source.identity
        if not isinstance(given, TpmSettings):
            return CheckAnswer(CheckResult.SKIPPED, "no TPM is configured")
        tpm = Tpm(given)
        if not tpm.has_key():
            return self._advised(CheckResult.WARNING, f"the TPM {given.tcti} has no key for the hub yet", "apply")
        tpm.sign(b"birthmark agent check")
        return CheckAnswer(CheckResult.OK, f"signs with {open_tpm(given).describe}")

    def _est_is_https(self) -> CheckAnswer:
        return _FINE if self._est() is not None else CheckAnswer(CheckResult.SKIPPED, "no EST server is configured")

    # ---- certificates and keys

    def _identity_expiry(self) -> CheckAnswer:
        held = self.agent.held()
        if held is None:
            if self._find_missing_certificate_reason:
                return CheckAnswer(CheckResult.SKIPPED, self._find_missing_certificate_reason)
            return self._advised(CheckResult.SKIPPED, "no certificate was issued yet", "apply")
        found = self._expiry(held, self.agent.renewal)
        is_issued = isinstance(self.agent.config.source.identity, IssuedIdentity)
        return (
            found._replace(command=self._command("apply"))
            if is_issued and found.result is not CheckResult.OK
            else found
        )

    def _expiry(self, identity: HeldIdentity, renewal: Renewal | None) -> CheckAnswer:
        now, leaf = self.agent.now_for(identity), identity.leaf
        until = f"{leaf.subject_text} until {leaf.not_after:%Y-%m-%d %H:%M:%S} UTC"
        if now > leaf.not_after:
            return CheckAnswer(CheckResult.ERROR, f"expired: {until}")
        if now >= warn_at(leaf.not_before, leaf.not_after, renewal or Renewal()):
            return CheckAnswer(CheckResult.WARNING, f"expires soon and was not renewed: {until}")
        return CheckAnswer(CheckResult.OK, until)

    def _bootstrap_expiry(self) -> CheckAnswer:
        est = self._est()
        pair = None if est is None else est.auth.pair
        if est is None or pair is None:
            return CheckAnswer(CheckResult.SKIPPED, "no certificate authenticates this device to the EST server")
        answers = [self._expiry(self.agent.identities.preloaded(pair), None)]
        if (held := self.agent.identities.slot(est.identity_id).current()) is not None:
            answers.append(self._expiry(held, est.identity_renewal))
        worst = max(answers, key=lambda answer: list(CheckResult).index(answer.result))
        return worst._replace(details="; ".join(answer.details for answer in answers))

    def _local_ca_expiry(self) -> CheckAnswer:
        if (issued := self.agent.managed.get(LOCAL_CA)) is not None:
            return self._kept_expiry(issued)
        identity = self.agent.config.source.identity
        if (
            not isinstance(identity, IssuedIdentity)
            or not isinstance(identity.by, LocalIssuance)
            or identity.by.ca is None
        ):
            return CheckAnswer(CheckResult.SKIPPED, "no local CA is used")
        return self._expiry(self.agent.identities.preloaded(PreloadedIdentity(*identity.by.ca)), None)

    def _edge_ca_expiry(self) -> CheckAnswer:
        if (issued := self.agent.managed.get(EDGE_CA)) is not None:
            return self._kept_expiry(issued)
        given = self.agent.config.edge_ca
        if not isinstance(given, PreloadedIdentity):
            return CheckAnswer(CheckResult.SKIPPED, "no edge CA is configured")
        return self._expiry(self.agent.identities.preloaded(given), None)

    def _kept_expiry(self, managed: ManagedCertificate) -> CheckAnswer:
        held = self.agent.identities.slot(managed.id).current()
        if held is None:
            return self._advised(CheckResult.WARNING, "no certificate was issued yet", "apply")
        return self._expiry(held, managed.renewal)

    def _preloaded(self) -> CheckAnswer:
        for name, files in self.agent.config.preloaded_certs.items():
            for path in files:
                if not path.exists():
                    return CheckAnswer(CheckResult.ERROR, f"{name}: {path} does not exist")
                with about(path):
                    parse_bundle(path.read_bytes())
        return _FINE

    def _certs_read(self) -> CheckAnswer:
        self._trust()
        if (est := self._est()) is not None:
            est_trust(est, self.agent.cloud_trust)
        if isinstance(identity := self.agent.config.source.identity, IssuedIdentity):
            subject_of(identity)
        self.agent.held()
        return _FINE

    def _key_pairs(self) -> CheckAnswer:
        seen = self.agent.identities.keys.look()
        held = self.agent.held()
        if held is None:
            return (
                CheckAnswer(CheckResult.OK, seen)
                if seen
                else CheckAnswer(CheckResult.SKIPPED, self._find_missing_certificate_reason or "no key was created yet")
            )
        key = held.key.handle
        key.sign(b"birthmark agent check", default_scheme(key.public_key))
        return CheckAnswer(CheckResult.OK, key.describe())

    def _match(self) -> CheckAnswer:
        est = self._est()
        if est is not None and (pair := est.auth.pair) is not None:
            self.agent.identities.preloaded(pair).for_links()  # raises if they do not match
        held = self.agent.held()
        if held is None:
            return CheckAnswer(
                CheckResult.SKIPPED, self._find_missing_certificate_reason or "no certificate was issued yet"
            )
        held.for_links()
        for managed in self.agent.others:
            if (other := self.agent.identities.slot(managed.id).current()) is not None:
                other.for_links()
        if isinstance(given := self.agent.config.edge_ca, PreloadedIdentity):
            self.agent.identities.preloaded(given).for_links()
        return _FINE

    # ---- network

    async def _local_time(self) -> CheckAnswer:
        """Compare the clock with the Date header of the servers' responses; no time server is required."""
        stated = await self._stated_time()
        if stated is None:
            return CheckAnswer(CheckResult.SKIPPED, "no server sent its time")
        offset = self.agent.clock.machine.now() - stated
        if abs(offset) >= MAX_CLOCK_OFFSET:
            return CheckAnswer(
                CheckResult.ERROR, f"this clock differs from the server's by {offset.total_seconds():.0f} s"
            )
        return _FINE

    async def _stated_time(self) -> datetime | None:
        for url, trust in self.agent.time_servers.urls:
            with contextlib.suppress(BirthmarkError):  # other checks report unreachable servers
                if (stated := await self.agent.ask_time(url, trust())) is not None:
                    return stated.at
        return None

    async def _est_answers(self) -> CheckAnswer:
        est = self._est()
        if est is None:
            return CheckAnswer(CheckResult.SKIPPED, "no EST server is configured")
        self._trust()
        links = self.agent.links_for(None, est_trust(est, self.agent.cloud_trust))
        cas = await EstClient(est.url, links.https()).cacerts()
        return CheckAnswer(CheckResult.OK, ", ".join(one.subject_text for one in cas))

    async def _dps_connects(self) -> CheckAnswer:
        source = self.agent.config.source
        if not isinstance(source, DpsSource):
            return CheckAnswer(CheckResult.SKIPPED, "no provisioning service is used")
        reached = await _handshake(source.host, source.port, self._trust())
        held = self._known_to_dps()
        if held is None or await self.agent.is_known(held, source):
            return reached
        return self._advised(CheckResult.OK, f"{reached.details} (enrolled, and not registered yet)", "apply")

    def _known_to_dps(self) -> Held | None:
        """Return the identity for the provisioning service; uses only existing TPM objects."""
        identity = self.agent.config.source.identity
        return (
            open_shared(identity, self.agent.identities.keys)
            if isinstance(identity, SymmetricKeySource)
            else self.agent.held()
        )

    async def _hub_connects(self) -> CheckAnswer:
        hub = self.agent.state.hub
        if hub is None:
            return CheckAnswer(CheckResult.SKIPPED, "no hub is assigned yet")
        return await _handshake(self.agent.gateway or hub, _HUB_PORT, self._trust())

    @property
    def _find_missing_certificate_reason(self) -> str:
        """Return why the device will not get a certificate, or an empty string if it will."""
        identity = self.agent.config.source.identity
        return (
            ""
            if isinstance(identity, IssuedIdentity | PreloadedIdentity)
            else "the device proves itself without a certificate"
        )

    def _trust(self) -> ServerTrust:
        """Return the trust anchors of the device. Raise if trust cannot be established."""
        if (problem := self.agent.trust_problem) is not None:
            raise problem
        return self.agent.trusted()

    def _est(self) -> EstIssuance | None:
        identity = self.agent.config.source.identity
        return identity.by if isinstance(identity, IssuedIdentity) and isinstance(identity.by, EstIssuance) else None


async def _handshake(host: str, port: int, trust: ServerTrust) -> CheckAnswer:
    """Connect and verify the server's certificate, without a client certificate and without sending data."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            context = client_context(None, trust)
            _reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except OSError as error:
        raise translate_error(error, host, port) from error
    check_dates(writer.get_extra_info("ssl_object"), trust, host, port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return CheckAnswer(CheckResult.OK, f"{host}:{port}")


async def _guarded(look: Look) -> CheckAnswer:
    try:
        answer = look()
        return await answer if isinstance(answer, Awaitable) else answer
    except BirthmarkError as error:
        return CheckAnswer(
            CheckResult.ERROR, f"{error.explain_cause_with_subject()} {error.explain_fix()}", error=error
        )
    except OSError as error:  # file that this check reads
        return CheckAnswer(CheckResult.ERROR, f"{error.filename}: {reason_of(error)}")
