"""Agent service for one device: issue, register, prove, replace.

Every step can be repeated after an interruption, and a working identity is kept until its successor works. A new
certificate registers and connects to the hub before it replaces the old one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from birthmark.agent.certificate_manager import CertificateManager
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.certificate_sources import (
    TRUST_BUNDLE,
    ByAzure,
    CertificateSource,
    IssuedChain,
    MakeLinks,
    trusting_by,
)
from birthmark.agent.clock_sync_transports import AskTime, ClockSyncTransports, TimeServers, time_urls
from birthmark.agent.config.model import (
    AgentConfig,
    AwsSource,
    AzureIssuance,
    DpsSource,
    EstIssuance,
    IssuedIdentity,
    ManualSource,
    PreloadedIdentity,
    SymmetricKeySource,
)
from birthmark.agent.key_store import TOKEN_TROUBLE
from birthmark.agent.managed_certificate_list import ManagedCertificate, managed_by
from birthmark.agent.preloaded_and_issued_identities import IdentityStore
from birthmark.agent.renewal_policy import Renewal, chance_of, moment_in
from birthmark.agent.root_rollover import FollowedAnchors
from birthmark.agent.state import AgentState, LastError, PlannedRenewal, keep, write_state
from birthmark.agent.state_directory import DEVICE_ID, LOCAL_CA, AgentPaths, StateNotWritableError
from birthmark.agent.symmetric_key_identity import SharedIdentity, open_shared
from birthmark.agent.tpm_identity import open_tpm
from birthmark.agent.trusted_clock import Timekeeper
from birthmark.awsiot.client import ThingClient, connect_thing
from birthmark.clock_and_entropy import Entropy
from birthmark.device_transports.errors import MqttRefusedError
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust
from birthmark.device_transports.ports import Links
from birthmark.dps.client import DpsRefusedError, DpsTarget, HubAssignment, is_registered_by_https, register_by_https
from birthmark.errors import (
    BirthmarkError,
    InvalidRequestError,
    PolicyError,
    ThrottledError,
    UnavailableError,
)
from birthmark.iothub.client import HubClient, connect_hub
from birthmark.keys.tpm_attestation import TpmSettings
from birthmark.pki.certificates import Certificate
from birthmark.text_file_encodings import plain_text
from birthmark.untrusted_json_and_text import decode_json, reason_of

_MAX_PAYLOAD_BYTES = 64 * 1024
_MAX_REASON = 200


class PayloadInvalidError(InvalidRequestError):
    """The payload of the registration cannot be sent."""

    code = "agent.payload_invalid"
    cause = "The file {path}, set by provisioning.payload, cannot be sent: {reason}."
    fix = (
        "Correct the JSON in the file; the limit is 64 KiB. To back up the file and send an empty object instead: "
        "`mv --backup=t {path} {path}.old && echo '{{}}' > {path}`"
    )
    path: Path
    reason: str


class PayloadMissingError(PayloadInvalidError):
    """The payload of the registration cannot be read."""

    code = "agent.payload_missing"
    fix = (
        "Create the file with up to 64 KiB of valid JSON, for example an empty object: `(set -C; echo '{{}}' > {path})`"
    )


def payload_of(source: DpsSource) -> object:
    """Return the payload of a registration. Raise `PayloadInvalidError`."""
    if source.payload is None:
        return None
    try:
        with source.payload.open("rb") as file:
            return decode_json(plain_text(file.read(_MAX_PAYLOAD_BYTES)))
    except OSError as error:
        raise PayloadMissingError(path=source.payload, reason=reason_of(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadInvalidError(path=source.payload, reason=f"not JSON: {str(error)[:_MAX_REASON]}") from error


log = logging.getLogger(__name__)


class NotIssuedHereError(PolicyError):
    """The agent did not issue this certificate."""

    code = "agent.not_issued_here"
    cause = "The identity {path} comes from the configuration. The agent did not issue it and cannot renew it."
    fix = 'Replace the file yourself, or use certificates issued by EST: `identity_cert = {{ method = "est" }}`.'
    path: Path | str


Held: TypeAlias = HeldIdentity | SharedIdentity
_T = TypeVar("_T")
Connected: TypeAlias = HubClient | ThingClient
_Renewed: TypeAlias = tuple[HeldIdentity, Connected | None, HubAssignment | None]
_SEEN_EVERY = timedelta(hours=1)
_OFFSET_S = 60.0
_ANEW_EVERY_S = 3600.0


@dataclass(slots=True)
class Agent:
    """Agent of one configuration and root; the caller holds the lock of that root."""

    config: AgentConfig
    places: AgentPaths
    identities: IdentityStore
    make_links: MakeLinks
    cloud_trust: ServerTrust
    clock: Timekeeper
    entropy: Entropy
    ask_time: AskTime
    boot: str
    state: AgentState = field(default_factory=AgentState)
    managed: Mapping[str, ManagedCertificate] = field(init=False)
    keeper: CertificateManager = field(init=False)
    time_servers: TimeServers = field(init=False)
    anchors: FollowedAnchors = field(init=False)
    by_azure: ByAzure = field(init=False)
    _anew_at: float | None = field(default=None, init=False)
    unwritten: StateNotWritableError | None = field(default=None, init=False)
    """Why the state could not be saved; it stays in memory, and work continues."""

    prove: Callable[[HeldIdentity], Awaitable[None]] | None = field(default=None, init=False)
    instead_of_config: str | None = field(default=None, init=False)
    """Why the last good configuration is in use instead of the file's."""

    _written: LastError | None = field(default=None, init=False)
    trust_problem: BirthmarkError | None = field(default=None, init=False)
    """Why no server is trusted: the bundle is unreadable, and access is read-only."""

    def __post_init__(self) -> None:
        self.managed = managed_by(self.config)
        self.anchors = FollowedAnchors(self.places.anchors)
        urls = time_urls(self.config, self.managed.values(), self.cloud_trust, self.anchors.beyond)
        self.time_servers = TimeServers(self.clock, self.ask_time, self._keep_time, urls)
        self.by_azure = ByAzure(self.entropy, self._connect_again, self._register_with)
        source = CertificateSource(
            self.identities,
            self.links_for,
            self.cloud_trust,
            self.clock,
            self.entropy,
            self.anchors,
            self._issued_by_azure,
        )
        self.keeper = CertificateManager(
            self.identities,
            source,
            self.managed,
            self.now_for,
            self._on_issued,
            self._planned,
            self.time_servers.confirm,
            self._begins_in,
            self.clock.monotonic,
            self.register,
        )

    # ---- steps

    async def apply(self) -> HubAssignment | None:
        """Apply the configuration. Return the assignment.

        Returns None if the hub is configured; then the agent queries the hub for the device. An existing certificate
        that DPS refuses, such as a revoked one, is replaced.
        """
        before = self._find_replaceable_mark()
        held = await self.ensure()
        try:
            assigned = await self.register(held)
        except DpsRefusedError as refusal:
            if held.mark != before:  # just issued: a new one would fail, too
                raise
            assigned = await self._replaced(held, refusal)
        if assigned is None:
            await (await self.connect(held)).close()
        await self._accept()
        return assigned

    def _find_replaceable_mark(self) -> str | None:
        """Return the thumbprint of the certificate that an EST server may replace if DPS refuses it."""
        identity, source = self.config.source.identity, self.config.source
        if not (
            isinstance(source, DpsSource)
            and isinstance(identity, IssuedIdentity)
            and isinstance(identity.by, EstIssuance)
        ):
            return None
        held = self.identities.slot(DEVICE_ID).current()
        return None if held is None else held.mark

    async def _replaced(self, identity: Held, refusal: BirthmarkError) -> HubAssignment | None:
        """Request replacement certificates with the configured credentials and new keys.

        Raise `refusal` if that fails.
        """
        try:
            made = await self._use_pending(identity) or await self._renewed(identity, is_key_over=True)
        except BirthmarkError as error:
            log.warning("certificate.not_replaced", extra={"code": error.code})
            raise refusal from error
        _fresh, hub, assigned = made
        if hub is not None:
            await hub.close()
        self.update(is_connected=False)
        for managed in self.others:  # a revocation covers all certificates
            await self.keeper.renew(managed, is_key_over=True)
        return assigned

    async def _use_pending(self, identity: Held) -> _Renewed | None:
        """Use the pending certificate if DPS accepts it; its key may have used up a one-time password."""
        if self.keeper.unproven(self.managed[DEVICE_ID]) is None:
            return None
        try:
            return await self._renewed(identity)
        except (DpsRefusedError, MqttRefusedError):
            return None

    async def prepare(self) -> None:
        """Obtain a certificate if necessary and register; the caller connects.

        The hub may have changed, and the agent would not see it refuse the device. It therefore registers each time,
        and keeps the previous registration if the service is unavailable.
        """
        held = await self.ensure()
        try:
            await self.register(held)
        except (ThrottledError, UnavailableError) as error:
            if not self.is_registered(held):
                raise
            log.warning("agent.not_registered_again", extra={"code": error.code})
        await self._accept()

    async def _accept(self) -> None:
        """Renew the other certificates and save the configuration as working."""
        for managed in self.others:
            await self.keeper.ensure(managed)
        self.update(config_digest=self.config.digest, error=None)
        keep(self.places, self.config, self.clock.now())

    async def ensure(self) -> Held:
        """Return a usable identity; issue one if it is missing, expired, or for another name."""
        identity = self.config.source.identity
        if isinstance(identity, SymmetricKeySource):
            return open_shared(identity, self.identities.keys)
        if isinstance(identity, TpmSettings):
            return open_tpm(identity)
        return await self.certified(identity)

    async def certified(self, identity: PreloadedIdentity | IssuedIdentity) -> HeldIdentity:
        """Return a usable certificate with its key."""
        if isinstance(identity, PreloadedIdentity):
            return self.identities.preloaded(identity)
        if (local_ca := self.managed.get(LOCAL_CA)) is not None:
            await self.keeper.ensure(local_ca)
        return await self.keeper.ensure(self.managed[DEVICE_ID])

    @property
    def name(self) -> str | None:
        """Device name, as configured or assigned by the provisioning service."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return source.device_id
        return self.state.registration_id or source.registration_id

    async def register(self, identity: Held, *, csr: bytes | None = None) -> HubAssignment | None:
        """Register at DPS and save the response; no action if the hub is configured.

        With `csr`, DPS also issues a certificate to the device.
        """
        source = self.config.source
        if isinstance(source, ManualSource):
            self.update(hub=source.hub, device_id=source.device_id, endpoint=None, thumbprint=identity.mark)
            return None
        target, shown = _target_of(source, identity), self._dps_identity(identity)
        https, payload = self._links(shown).https(), payload_of(source)
        with trusting_by(TRUST_BUNDLE):
            if isinstance(identity, SharedIdentity):
                assigned = await identity.register(https, target, payload, self.now_for(identity))
            else:
                assigned = await register_by_https(https, target, payload=payload, csr=csr)
        mark = assigned.chain[0].thumbprint.hex() if assigned.chain else identity.mark
        self.update(
            hub=assigned.hub,
            device_id=assigned.device_id,
            registration_id=assigned.registration_id,
            endpoint=endpoint_of(source),
            thumbprint=mark,
            registered_at=self.clock.now(),
            is_individual=assigned.is_individual,
        )
        log.info("device.registered", extra={"hub": assigned.hub, "device_id": assigned.device_id})
        return assigned

    async def is_known(self, identity: Held, source: DpsSource) -> bool:
        """Return whether the provisioning service has registered the device.

        Raise why it could not register.
        """
        target, authorization = _target_of(source, identity), None
        if isinstance(identity, SharedIdentity):
            authorization = identity.for_dps(target.id_scope, target.registration_id, self.now_for(identity))
        shown = self._dps_identity(identity)
        with trusting_by(TRUST_BUNDLE):
            return await is_registered_by_https(self._links(shown).https(), target, authorization=authorization)

    async def connect(self, identity: Held) -> Connected:
        """Connect to the assigned hub; register first unless this certificate is already registered."""
        if not self.is_registered(identity):
            await self.register(identity)
        hub = await self._connect(identity)
        self._use(hub)
        return hub

    async def connect_or_reissue(self, identity: Held) -> tuple[Held, Connected]:
        """Connect; if the hub refuses an Azure-issued certificate, use the pending one or request another.

        A renewal may have been interrupted after the hub dropped the old certificate; then the pending certificate
        works. Another is requested with the bootstrap certificate, at most once per hour, because it does not help a
        disabled device.
        """
        try:
            return identity, await self.connect(identity)
        except MqttRefusedError:
            if self._azure is None:
                raise
            if (found := await self._connect_with_pending(identity)) is not None:
                return found
            now = self.clock.monotonic()
            if self._anew_at is not None and now - self._anew_at < _ANEW_EVERY_S:
                raise
            self._anew_at = now
        log.info("certificate.anew", extra={"thumbprint": identity.mark})
        self.by_azure.live = None
        fresh = await self.keeper.renew(self.managed[DEVICE_ID], is_key_over=True)
        return fresh, await self.connect(fresh)

    async def _connect_with_pending(self, identity: Held) -> tuple[Held, Connected] | None:
        """Connect with the pending certificate of a renewal and activate it; None if the hub refuses it."""
        slot = self.identities.slot(DEVICE_ID)
        pending = slot.pending()
        if pending is None or pending.mark == identity.mark:
            return None
        try:
            hub = await self._connect(pending)
        except MqttRefusedError:
            return None
        self._use(hub)
        self.update(thumbprint=pending.mark)
        try:
            slot.commit()
        except BirthmarkError as error:  # disk error: connect anyway
            log.warning("certificate.not_put_to_use", extra={"code": error.code})
            return pending, hub
        return slot.current() or pending, hub

    def _use(self, hub: Connected) -> None:
        """Save the connection for certificate requests to the hub."""
        self.by_azure.live = hub if isinstance(hub, HubClient) else None

    async def _connect(self, identity: Held) -> Connected:
        if isinstance(source := self.config.source, AwsSource):
            with trusting_by(TRUST_BUNDLE):
                return await connect_thing(self._links(identity).mqtt(), source.hub, source.device_id)
        return await self._connect_hub(identity)

    async def _connect_hub(self, identity: Held) -> HubClient:
        hub, device_id = self.state.hub, self.state.device_id
        assert hub is not None  # noqa: S101 (registration sets both)
        assert device_id is not None  # noqa: S101 (as above)
        password = (
            identity.for_hub(hub, device_id, self.now_for(identity)) if isinstance(identity, SharedIdentity) else None
        )
        with trusting_by(TRUST_BUNDLE):
            return await connect_hub(
                self._links(identity).mqtt(), hub, device_id, password=password, gateway=self.gateway
            )

    @property
    def gateway(self) -> str | None:
        """Parent device through which the hub is reached, if any."""
        source = self.config.source
        return source.gateway if isinstance(source, ManualSource) else None

    async def renew(self, identity: Held) -> tuple[HeldIdentity, Connected | None]:
        """Renew and prove; return the new identity and its hub connection. On failure, keep the old identity.

        The connection is None if a program supplies the proof (`prove`).
        """
        fresh, hub, _assigned = await self.once_more(lambda: self._renewed(self._reopen_key(identity)))
        return fresh, hub

    async def once_more(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Call `act`; on a token failure, reopen the token and retry once, as it may have been reinserted."""
        try:
            return await act()
        except TOKEN_TROUBLE as error:
            log.info("agent.token_opened_anew", extra={"code": error.code})
            self.identities.keys.restart_library()
        return await act()

    def _reopen_key(self, identity: Held) -> Held:
        """Return the identity with its currently open key; its token may have been reopened."""
        current = self.held() if isinstance(identity, HeldIdentity) else None
        return current if current is not None and current.mark == identity.mark else identity

    async def _renewed(self, held: Held, *, is_key_over: bool = False) -> _Renewed:
        identity = self.config.source.identity
        if not isinstance(identity, IssuedIdentity) or isinstance(held, SharedIdentity):
            what = identity.certificate if isinstance(identity, PreloadedIdentity) else f"by {held.mark}"
            raise NotIssuedHereError(path=what)
        fresh = await self.keeper.fresh(self.managed[DEVICE_ID], held, is_key_over=is_key_over)
        slot = self.identities.slot(DEVICE_ID)
        hub: Connected | None = None
        try:
            assigned = await self._register_renewed(fresh)
            if self.prove is None:
                hub = await self.connect(fresh)
            else:
                await self.prove(fresh)
            slot.commit()
        except (Exception, asyncio.CancelledError):  # a cancelled renewal leaves no partial state
            if hub is not None:
                await hub.close()
            await self._restore_registration(held)
            raise
        self.update(
            renewals=self.state.renewals + 1, renewed_at=self.clock.now(), failures=0, error=None, is_connected=True
        )
        log.info("certificate.renewed", extra={"thumbprint": fresh.leaf.thumbprint.hex()})
        return slot.current() or fresh, hub, assigned

    async def _register_renewed(self, fresh: HeldIdentity) -> HubAssignment | None:
        """Register a new certificate at the hub unless the hub issued it."""
        if self._azure is None or self.state.hub is None:
            return await self.register(fresh)
        self.update(thumbprint=fresh.mark)
        return None

    async def _issued_by_azure(
        self, issued: IssuedIdentity, request: bytes, current: HeldIdentity | None
    ) -> IssuedChain:
        """Issue a certificate by the hub if it may know `current`, otherwise at registration."""
        is_known = current is not None and self.state.hub is not None and not self.keeper.is_expired(current)
        is_known = is_known and self.prove is None  # our connection would end the application's
        return await self.by_azure.issue(issued, request, current if is_known else None)

    async def _connect_again(self, identity: HeldIdentity) -> HubClient:
        return await self._connect_hub(identity)

    async def _register_with(self, csr: bytes) -> HubAssignment:
        azure, source = self._azure, self.config.source
        assert azure is not None  # noqa: S101 (Azure only)
        assert isinstance(source, DpsSource)  # noqa: S101 (required by configuration)
        assigned = await self.register(self.identities.preloaded(azure.bootstrap), csr=csr)
        assert assigned is not None  # noqa: S101 (a DPS is configured)
        return assigned

    # ---- facts

    @property
    def _azure(self) -> AzureIssuance | None:
        """Return the Azure issuance of the device's certificate, if configured."""
        identity = self.config.source.identity
        return identity.by if isinstance(identity, IssuedIdentity) and isinstance(identity.by, AzureIssuance) else None

    def _dps_identity(self, identity: Held) -> Held:
        """Return the identity for the provisioning service; Azure-issued certificates are valid for the hub only."""
        return identity if self._azure is None else self.identities.preloaded(self._azure.bootstrap)

    def is_registered(self, identity: Held) -> bool:
        """Return whether this certificate was registered with this configuration."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return (self.state.hub, self.state.device_id) == (source.hub, source.device_id)
        is_here = self.state.endpoint == endpoint_of(source) and self.state.hub is not None
        if not is_here or self.state.thumbprint != identity.mark:
            return False
        return not isinstance(identity, SharedIdentity) or identity.is_ready

    def now_for(self, identity: Held) -> datetime:
        """Return the time at which to validate a certificate: the current time, but never before its issuance."""
        if not isinstance(identity, HeldIdentity):
            return self.clock.now()
        self.clock.suppose(identity.leaf.not_before)
        return max(self.clock.now(), identity.leaf.not_before)

    def _begins_in(self, identity: HeldIdentity) -> timedelta:
        return identity.leaf.not_before - self.clock.now() if self.clock.is_confirmed else timedelta(0)

    def forget_time(self) -> None:
        """Trust the machine's clock and learn the time again."""
        self.clock.forget()
        self.update(seen_at=None, clock_offset_s=0.0, clock_why="", clock_boot="")

    def links_for(self, identity: Identity | None, trust: ServerTrust) -> Links:
        """Return transports with the corrected clock and the roots reached by rollover."""
        return ClockSyncTransports(self.make_links, identity, self.anchors.beyond(trust), self.time_servers)

    def trusted(self) -> ServerTrust:
        """Return the current trust anchors, including roots reached by rollover, at the current time."""
        trust = self.anchors.beyond(self.cloud_trust)
        return trust.at_time(self.clock.now()) if self.clock.is_off else trust

    @property
    def renewal(self) -> Renewal | None:
        """Renewal rules; None if the configuration disables renewal."""
        identity = self.config.source.identity
        return identity.renewal if isinstance(identity, IssuedIdentity) else None

    @property
    def others(self) -> list[ManagedCertificate]:
        """The managed certificates except the device identity, in dependency order."""
        return [one for one in self.managed.values() if one.id != DEVICE_ID]

    def renew_at(self, identity: Held) -> datetime | None:
        """Return when the device's certificate should be renewed; None for never."""
        managed = self.managed.get(DEVICE_ID)
        return (
            None if managed is None or isinstance(identity, SharedIdentity) else self.keeper.renew_at(managed, identity)
        )

    def renewal_due_in(self, identity: Held) -> timedelta | None:
        """Return the time until renewal; None if a new certificate could not be registered."""
        source = self.config.source
        is_untold = isinstance(source, ManualSource) and not isinstance(source, AwsSource)
        due = None if is_untold else self.renew_at(identity)
        if due is None:
            return None
        with contextlib.suppress(BirthmarkError):  # token unavailable: keep the connection
            if self.keeper.is_unfinished(DEVICE_ID):
                return timedelta(0)
        return due - self.now_for(identity)

    def due_in(self, managed: ManagedCertificate) -> timedelta | None:
        """Return the time until another certificate must be renewed or issued; None for never."""
        held = self.identities.slot(managed.id).current()
        if held is None or self.keeper.is_unfinished(managed.id):
            return timedelta(0)
        due = self.keeper.renew_at(managed, held)
        return None if due is None else due - self.now_for(held)

    def enrollment_warning(self) -> str | None:
        """Return a warning if renewals will be refused.

        That is the case if DPS reported an individual enrollment, which accepts a single certificate.
        """
        identity = self.config.source.identity
        if not self.state.is_individual or not isinstance(identity, IssuedIdentity) or identity.renewal is None:
            return None
        if self._azure is not None:  # registration credentials never renew
            return None
        name, ca = self.state.registration_id, "est-root"
        return (
            f"{name} was registered with an individual enrollment, which has only this certificate and will reject the "
            "renewed one. Register the CA instead: "
            f'`birthmark dps ca create {ca} "${{BIRTHMARK_DATA:-$HOME/.local/share/birthmark}}/ca/root.pem" --verified '
            f"&& birthmark device enroll-group est-group --ca-name {ca} && birthmark device rm {name}`"
        )

    def held(self) -> HeldIdentity | None:
        """Return the current certificate with its key, without requests; None also for symmetric keys."""
        identity = self.config.source.identity
        if isinstance(identity, SymmetricKeySource | TpmSettings):
            return None
        return (
            self.identities.preloaded(identity)
            if isinstance(identity, PreloadedIdentity)
            else self.identities.slot(DEVICE_ID).current()
        )

    def update(self, **changes: object) -> None:
        """Change the state and save it, unless it is unchanged."""
        changed = msgspec.structs.replace(self.state, **changes)
        if changed != self.state:
            self.state = changed
            try:
                write_state(self.places.state, changed)
            except StateNotWritableError as error:
                self.unwritten = error
                log.warning("agent.state_not_written", extra={"cause": error.explain_cause()})
            else:
                self.unwritten = None

    def note(self, problem: BirthmarkError, certificate_id: str | None = None, *, is_awaited: bool = False) -> None:
        """Record the latest error for `status` and `why`, and the certificate whose renewal it blocks.

        A repeated error is written once per hour to limit flash wear, unless a caller awaits it.
        """
        cause, now = problem.explain_cause(), self.clock.now()
        error = LastError(now, problem.code, str(problem), cause, problem.explain_fix())
        failing = self.state.failing if certificate_id is None else self.state.failing | {certificate_id: error}
        changed = msgspec.structs.replace(self.state, error=error, failures=self.state.failures + 1, failing=failing)
        if certificate_id is None and not is_awaited and self._is_known(error):
            self.state = changed
        else:
            self._written = error
            self.update(error=error, failures=changed.failures, failing=failing)
        log.warning("agent.failed", extra={"code": problem.code, "cause": cause})

    def works(self, certificate_id: str) -> None:
        """Clear the error that blocked a certificate's renewal."""
        failing = {name: error for name, error in self.state.failing.items() if name != certificate_id}
        self.update(failing=failing)

    # ---- inside

    def _is_known(self, error: LastError) -> bool:
        known = None if self.state.error is None else self._written
        if known is None or (known.code, known.cause) != (error.code, error.cause):
            return False
        return timedelta(0) <= error.at - known.at < _SEEN_EVERY

    def _planned(self, managed: ManagedCertificate, leaf: Certificate) -> datetime | None:
        found = self.state.planned.get(managed.id)
        return found.at if found is not None and found.thumbprint == leaf.thumbprint.hex() else None

    def _on_issued(self, managed: ManagedCertificate, answered: IssuedChain) -> None:
        """Learn the time from a certificate that was just issued, and save its renewal window."""
        leaf = answered.chain[0]
        if answered.window is not None:
            chance = chance_of(self.entropy.token(4))
            at = moment_in(answered.window, leaf.not_before, leaf.not_after, chance)
            self.update(planned=self.state.planned | {managed.id: PlannedRenewal(leaf.thumbprint.hex(), at)})
        if self.clock.now() > leaf.not_after:
            self.clock.learn(leaf.not_before, "a certificate that was issued just now")
        self._keep_time()

    def _keep_time(self) -> None:
        """Save the learned time; rate limited because of flash wear."""
        floor, offset = self.clock.floor, self.clock.offset.total_seconds()
        seen, state = self.state.seen_at, self.state
        is_later = seen is None or floor - seen > _SEEN_EVERY
        if is_later or abs(state.clock_offset_s - offset) > _OFFSET_S or bool(offset) != bool(state.clock_offset_s):
            self.update(seen_at=floor, clock_offset_s=offset, clock_why=self.clock.why, clock_boot=self.boot)

    async def _restore_registration(self, identity: HeldIdentity) -> None:
        """Register the old certificate again after the new one failed; DPS may already have updated the hub."""
        if self.is_registered(identity) or self.keeper.is_expired(identity):
            return
        if self._azure is not None:  # both are valid until the new one is used
            self.update(thumbprint=identity.mark)
            return
        try:
            await self.register(identity)
        except BirthmarkError as error:
            log.warning("agent.not_taken_back", extra={"code": error.code})

    def _links(self, held: Held) -> Links:
        identity = None if isinstance(held, SharedIdentity) else held.for_links()
        return self.links_for(identity, self.cloud_trust)


def _target_of(source: DpsSource, identity: Held) -> DpsTarget:
    name = source.registration_id or (identity.leaf.subject_cn if isinstance(identity, HeldIdentity) else None) or ""
    return DpsTarget(source.host, source.id_scope, name, https_port=source.port)


def endpoint_of(source: DpsSource) -> str:
    return f"{source.host}:{source.port}/{source.id_scope}"
