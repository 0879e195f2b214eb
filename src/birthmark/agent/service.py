"""The agent at work on one device: issue, register, prove, replace.

Every step can be done again after an interruption, and nothing that works is given up before its successor has worked:
a new certificate is registered and has connected to the hub before it takes the old one's place.
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
from birthmark.agent.clock_sync import AskTime, ClockSyncTransports, TimeServers, time_urls
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
from birthmark.agent.credential_store import HeldIdentity
from birthmark.agent.identities import IdentityStore
from birthmark.agent.issuance import TRUST_BUNDLE, ByAzure, CertificateSource, IssuedChain, MakeLinks, trusting_by
from birthmark.agent.keys import TOKEN_TROUBLE
from birthmark.agent.managed_certificates import ManagedCertificate, managed_by
from birthmark.agent.paths import DEVICE_ID, LOCAL_CA, AgentPaths, StateNotWritableError
from birthmark.agent.renewal_policy import Renewal, chance_of, moment_in
from birthmark.agent.state import AgentState, LastError, PlannedRenewal, keep, write_state
from birthmark.agent.symmetric_key import SharedIdentity, open_shared
from birthmark.agent.tpm_identity import open_tpm
from birthmark.agent.trust_anchors import FollowedAnchors
from birthmark.agent.trusted_clock import Timekeeper
from birthmark.awsiot.client import ThingClient, connect_thing
from birthmark.clock import Entropy
from birthmark.device_transports.errors import MqttRefusedError
from birthmark.device_transports.identity import Identity, ServerTrust
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
from birthmark.keys.tpm import TpmSettings
from birthmark.pki.certificates import Certificate
from birthmark.text_files import plain_text
from birthmark.untrusted_text import decode_json, reason_of

_MAX_PAYLOAD_BYTES = 64 * 1024
_MAX_REASON = 200


class PayloadInvalidError(InvalidRequestError):
    """The payload of the registration cannot be sent."""

    code = "agent.payload_invalid"
    cause = "{path}, set by provisioning.payload, cannot be sent: {reason}."
    fix = (
        "Correct the JSON in the file, at most 64 KiB. To keep the file and send an empty object: `mv "
        "--backup=t {path} {path}.old && echo '{{}}' > {path}`"
    )
    path: Path
    reason: str


class PayloadMissingError(PayloadInvalidError):
    """The payload of the registration cannot be read."""

    code = "agent.payload_missing"
    fix = "Create the file with at most 64 KiB of JSON, such as an empty object: `(set -C; echo '{{}}' > {path})`"


def payload_of(source: DpsSource) -> object:
    """Return what is sent along with a registration. Raise `PayloadInvalidError`."""
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
    """Acts for one configuration and root. The caller holds the lock of that root."""

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
    """Why the state could not be written down; it is kept in memory then, and nothing stops for it."""

    prove: Callable[[HeldIdentity], Awaitable[None]] | None = field(default=None, init=False)
    instead_of_config: str | None = field(default=None, init=False)
    """Why the configuration in use is the last good one and not the file's."""

    _written: LastError | None = field(default=None, init=False)
    trust_problem: BirthmarkError | None = field(default=None, init=False)
    """Why nobody is trusted: the bundle cannot be read, and somebody only looks."""

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

    # ---- the steps

    async def apply(self) -> HubAssignment | None:
        """Do what the configuration asks for. Return the assignment.

        None where the hub is given: then it is asked whether it knows the device, as nobody else has said so.
        A certificate from before that DPS refuses, as one that was taken back is, gives way to another.
        """
        before = self._kept_mark()
        held = await self.ensure()
        try:
            assigned = await self.register(held)
        except DpsRefusedError as refusal:
            if held.mark != before:  # it was issued a moment ago: another would fare no better
                raise
            assigned = await self._replaced(held, refusal)
        if assigned is None:
            await (await self.connect(held)).close()
        await self._accept()
        return assigned

    def _kept_mark(self) -> str | None:
        """Return the mark of a certificate in whose place an EST server may issue another, where DPS refuses it."""
        identity, source = self.config.source.identity, self.config.source
        if not (
            isinstance(source, DpsSource)
            and isinstance(identity, IssuedIdentity)
            and isinstance(identity.by, EstIssuance)
        ):
            return None
        held = self.identities.slot(DEVICE_ID).current()
        return None if held is None else held.mark

    async def _replaced(self, held: Held, refusal: BirthmarkError) -> HubAssignment | None:
        """Get other certificates by the configured credentials, with other keys. Raise `refusal` if that is no help."""
        try:
            made = await self._issued_before(held) or await self._renewed(held, is_key_over=True)
        except BirthmarkError as error:
            log.warning("certificate.not_replaced", extra={"code": error.code})
            raise refusal from error
        _fresh, hub, assigned = made
        if hub is not None:
            await hub.close()
        self.update(is_connected=False)
        for managed in self.others:  # who was taken back was so with all of it
            await self.keeper.renew(managed, is_key_over=True)
        return assigned

    async def _issued_before(self, held: Held) -> _Renewed | None:
        """Use what was issued before and not proven, where DPS takes it: a password for once was spent for its key."""
        if self.keeper.unproven(self.managed[DEVICE_ID]) is None:
            return None
        try:
            return await self._renewed(held)
        except (DpsRefusedError, MqttRefusedError):
            return None

    async def prepare(self) -> None:
        """Get a certificate where one is needed, and register; whoever calls connects by itself.

        The hub may have changed since, and nobody here would hear it refuse the device: so it registers each time, and
        goes on as it was registered before where the service is away.
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
        """Keep the other certificates, and the configuration as one that works."""
        for managed in self.others:
            await self.keeper.ensure(managed)
        self.update(config_digest=self.config.digest, error=None)
        keep(self.places, self.config, self.clock.now())

    async def ensure(self) -> Held:
        """Return a usable identity, issuing one when there is none, or it has expired, or is for another name."""
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
        """What the device is known by, as far as that is configured or was told by the provisioning service."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return source.device_id
        return self.state.registration_id or source.registration_id

    async def register(self, held: Held, *, csr: bytes | None = None) -> HubAssignment | None:
        """Register at DPS and remember the answer; nothing to do where the hub is configured.

        With a request, `csr`, the device is issued a certificate as well.
        """
        source = self.config.source
        if isinstance(source, ManualSource):
            self.update(hub=source.hub, device_id=source.device_id, endpoint=None, thumbprint=held.mark)
            return None
        target, shown = _target_of(source, held), self._introduced(held)
        https, payload = self._links(shown).https(), payload_of(source)
        with trusting_by(TRUST_BUNDLE):
            if isinstance(held, SharedIdentity):
                assigned = await held.register(https, target, payload, self.now_for(held))
            else:
                assigned = await register_by_https(https, target, payload=payload, csr=csr)
        mark = assigned.chain[0].thumbprint.hex() if assigned.chain else held.mark
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

    async def is_known(self, held: Held, source: DpsSource) -> bool:
        """Ask the provisioning service whether the device is registered. Raise why it could not register."""
        target, authorization = _target_of(source, held), None
        if isinstance(held, SharedIdentity):
            authorization = held.for_dps(target.id_scope, target.registration_id, self.now_for(held))
        shown = self._introduced(held)
        with trusting_by(TRUST_BUNDLE):
            return await is_registered_by_https(self._links(shown).https(), target, authorization=authorization)

    async def connect(self, held: Held) -> Connected:
        """Connect to the assigned hub; register first unless this very certificate was registered here before."""
        if not self.is_registered(held):
            await self.register(held)
        hub = await self._connect(held)
        self._use(hub)
        return hub

    async def connect_or_anew(self, held: Held) -> tuple[Held, Connected]:
        """Connect; where the hub takes what Azure issued no more, by what it was issued since, or by another one.

        A renewal may have been cut off when the hub had let go of the old certificate: that is the former. Another is
        got by the bootstrap certificate, and not more often than once an hour: a device that was switched off gets no
        use of it.
        """
        try:
            return held, await self.connect(held)
        except MqttRefusedError:
            if self._azure is None:
                raise
            if (found := await self._by_pending(held)) is not None:
                return found
            now = self.clock.monotonic()
            if self._anew_at is not None and now - self._anew_at < _ANEW_EVERY_S:
                raise
            self._anew_at = now
        log.info("certificate.anew", extra={"thumbprint": held.mark})
        self.by_azure.live = None
        fresh = await self.keeper.renew(self.managed[DEVICE_ID], is_key_over=True)
        return fresh, await self.connect(fresh)

    async def _by_pending(self, held: Held) -> tuple[Held, Connected] | None:
        """Connect by a certificate that a renewal left behind, and put it to use; None where the hub takes none."""
        slot = self.identities.slot(DEVICE_ID)
        pending = slot.pending()
        if pending is None or pending.mark == held.mark:
            return None
        try:
            hub = await self._connect(pending)
        except MqttRefusedError:
            return None
        self._use(hub)
        self.update(thumbprint=pending.mark)
        try:
            slot.commit()
        except BirthmarkError as error:  # its disk is in trouble: it is connected all the same
            log.warning("certificate.not_put_to_use", extra={"code": error.code})
            return pending, hub
        return slot.current() or pending, hub

    def _use(self, hub: Connected) -> None:
        """Remember the connection by which a hub is asked for certificates."""
        self.by_azure.live = hub if isinstance(hub, HubClient) else None

    async def _connect(self, held: Held) -> Connected:
        if isinstance(source := self.config.source, AwsSource):
            with trusting_by(TRUST_BUNDLE):
                return await connect_thing(self._links(held).mqtt(), source.hub, source.device_id)
        return await self._connect_hub(held)

    async def _connect_hub(self, held: Held) -> HubClient:
        hub, device_id = self.state.hub, self.state.device_id
        assert hub is not None  # noqa: S101 (registering has set both)
        assert device_id is not None  # noqa: S101 (as above)
        password = held.for_hub(hub, device_id, self.now_for(held)) if isinstance(held, SharedIdentity) else None
        with trusting_by(TRUST_BUNDLE):
            return await connect_hub(self._links(held).mqtt(), hub, device_id, password=password, gateway=self.gateway)

    @property
    def gateway(self) -> str | None:
        """The parent device through which the hub is reached, where there is one."""
        source = self.config.source
        return source.gateway if isinstance(source, ManualSource) else None

    async def renew(self, held: Held) -> tuple[HeldIdentity, Connected | None]:
        """Renew and prove it: return the new identity and its hub connection. On failure the old identity stays.

        Where a program proves it by itself (`prove`) there is no connection.
        """
        fresh, hub, _assigned = await self.once_more(lambda: self._renewed(self._opened(held)))
        return fresh, hub

    async def once_more(self, act: Callable[[], Awaitable[_T]]) -> _T:
        """Do something; where a token fails, open it anew and try once more, as it may be back from somewhere."""
        try:
            return await act()
        except TOKEN_TROUBLE as error:
            log.info("agent.token_opened_anew", extra={"code": error.code})
            self.identities.keys.start_anew()
        return await act()

    def _opened(self, held: Held) -> Held:
        """Return what is held with its key as it is open now: a token's may have been opened anew since."""
        current = self.held() if isinstance(held, HeldIdentity) else None
        return current if current is not None and current.mark == held.mark else held

    async def _renewed(self, held: Held, *, is_key_over: bool = False) -> _Renewed:
        identity = self.config.source.identity
        if not isinstance(identity, IssuedIdentity) or isinstance(held, SharedIdentity):
            what = identity.certificate if isinstance(identity, PreloadedIdentity) else f"by {held.mark}"
            raise NotIssuedHereError(path=what)
        fresh = await self.keeper.fresh(self.managed[DEVICE_ID], held, is_key_over=is_key_over)
        slot = self.identities.slot(DEVICE_ID)
        hub: Connected | None = None
        try:
            assigned = await self._announced(fresh)
            if self.prove is None:
                hub = await self.connect(fresh)
            else:
                await self.prove(fresh)
            slot.commit()
        except (Exception, asyncio.CancelledError):  # who gives up a renewal leaves nothing half done
            if hub is not None:
                await hub.close()
            await self._take_back(held)
            raise
        self.update(
            renewals=self.state.renewals + 1, renewed_at=self.clock.now(), failures=0, error=None, is_connected=True
        )
        log.info("certificate.renewed", extra={"thumbprint": fresh.leaf.thumbprint.hex()})
        return slot.current() or fresh, hub, assigned

    async def _announced(self, fresh: HeldIdentity) -> HubAssignment | None:
        """Have the hub learn of a new certificate, where it did not issue it itself."""
        if self._azure is None or self.state.hub is None:
            return await self.register(fresh)
        self.update(thumbprint=fresh.mark)
        return None

    async def _issued_by_azure(
        self, issued: IssuedIdentity, request: bytes, current: HeldIdentity | None
    ) -> IssuedChain:
        """Have a certificate issued by the hub, where it may know `current`, else with the registration."""
        is_known = current is not None and self.state.hub is not None and not self.keeper.is_expired(current)
        is_known = is_known and self.prove is None  # a connection of ours would end that of the program
        return await self.by_azure.issue(issued, request, current if is_known else None)

    async def _connect_again(self, held: HeldIdentity) -> HubClient:
        return await self._connect_hub(held)

    async def _register_with(self, csr: bytes) -> HubAssignment:
        azure, source = self._azure, self.config.source
        assert azure is not None  # noqa: S101 (who else asks)
        assert isinstance(source, DpsSource)  # noqa: S101 (the configuration has it so)
        assigned = await self.register(self.identities.preloaded(azure.bootstrap), csr=csr)
        assert assigned is not None  # noqa: S101 (there is somebody to register at)
        return assigned

    # ---- facts

    @property
    def _azure(self) -> AzureIssuance | None:
        """Return how Azure issues the device's certificate, where it does."""
        identity = self.config.source.identity
        return identity.by if isinstance(identity, IssuedIdentity) and isinstance(identity.by, AzureIssuance) else None

    def _introduced(self, held: Held) -> Held:
        """Return what is shown to the provisioning service: what Azure issued is for the hub alone."""
        return held if self._azure is None else self.identities.preloaded(self._azure.bootstrap)

    def is_registered(self, held: Held) -> bool:
        """Say whether this certificate was registered with this configuration."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return (self.state.hub, self.state.device_id) == (source.hub, source.device_id)
        is_here = self.state.endpoint == endpoint_of(source) and self.state.hub is not None
        if not is_here or self.state.thumbprint != held.mark:
            return False
        return not isinstance(held, SharedIdentity) or held.is_ready

    def now_for(self, held: Held) -> datetime:
        """Return the time to judge this certificate by: never before it was issued."""
        if not isinstance(held, HeldIdentity):
            return self.clock.now()
        self.clock.suppose(held.leaf.not_before)
        return max(self.clock.now(), held.leaf.not_before)

    def _begins_in(self, held: HeldIdentity) -> timedelta:
        return held.leaf.not_before - self.clock.now() if self.clock.is_confirmed else timedelta(0)

    def forget_time(self) -> None:
        """Take the machine's clock for right, and learn the time anew."""
        self.clock.forget()
        self.update(seen_at=None, clock_offset_s=0.0, clock_why="", clock_boot="")

    def links_for(self, identity: Identity | None, trust: ServerTrust) -> Links:
        """Return links that know the time, and the roots to which those that are trusted have led."""
        return ClockSyncTransports(self.make_links, identity, self.anchors.beyond(trust), self.time_servers)

    def trusted(self) -> ServerTrust:
        """Return whom the device believes now, with the roots to which those have led, at the time that it is."""
        trust = self.anchors.beyond(self.cloud_trust)
        return trust.dated(self.clock.now()) if self.clock.is_off else trust

    @property
    def renewal(self) -> Renewal | None:
        """The rules of renewal; None where the configuration wants none."""
        identity = self.config.source.identity
        return identity.renewal if isinstance(identity, IssuedIdentity) else None

    @property
    def others(self) -> list[ManagedCertificate]:
        """What is kept beside the device identity, in the order in which they need each other."""
        return [one for one in self.managed.values() if one.id != DEVICE_ID]

    def renew_at(self, held: Held) -> datetime | None:
        """Return when the device's certificate should be renewed; None for never."""
        managed = self.managed.get(DEVICE_ID)
        return None if managed is None or isinstance(held, SharedIdentity) else self.keeper.renew_at(managed, held)

    def renewal_due_in(self, held: Held) -> timedelta | None:
        """Return how long until then; None where nobody could be told of a new certificate."""
        source = self.config.source
        is_untold = isinstance(source, ManualSource) and not isinstance(source, AwsSource)
        due = None if is_untold else self.renew_at(held)
        if due is None:
            return None
        with contextlib.suppress(BirthmarkError):  # its token is away: who is connected stays so
            if self.keeper.is_unfinished(DEVICE_ID):
                return timedelta(0)
        return due - self.now_for(held)

    def due_in(self, managed: ManagedCertificate) -> timedelta | None:
        """Return how long until another certificate has to be renewed, or issued; None for never."""
        held = self.identities.slot(managed.id).current()
        if held is None or self.keeper.is_unfinished(managed.id):
            return timedelta(0)
        due = self.keeper.renew_at(managed, held)
        return None if due is None else due - self.now_for(held)

    def enrollment_warning(self) -> str | None:
        """Say that renewals will be refused where an individual enrollment knows one certificate; DPS told us so."""
        identity = self.config.source.identity
        if not self.state.is_individual or not isinstance(identity, IssuedIdentity) or identity.renewal is None:
            return None
        if self._azure is not None:  # nobody renews by what it registers with
            return None
        name, ca = self.state.registration_id, "est-root"
        return (
            f"{name} was registered by an individual enrollment, which knows this certificate alone and will refuse "
            "the renewed one. Put the CA on record in its place: "
            f'`birthmark dps ca create {ca} "${{BIRTHMARK_DATA:-$HOME/.local/share/birthmark}}/ca/root.pem" --verified '
            f"&& birthmark device enroll-group est-group --ca-name {ca} && birthmark device rm {name}`"
        )

    def held(self) -> HeldIdentity | None:
        """Return the certificate there is with its key, asking nobody; None too where a shared key stands for it."""
        identity = self.config.source.identity
        if isinstance(identity, SymmetricKeySource | TpmSettings):
            return None
        return (
            self.identities.preloaded(identity)
            if isinstance(identity, PreloadedIdentity)
            else self.identities.slot(DEVICE_ID).current()
        )

    def update(self, **changes: object) -> None:
        """Change the state and write it down, unless nothing changes."""
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
        """Remember the latest trouble for `status` and `why`, and which certificate it keeps from being renewed.

        The same trouble again is written down once an hour, for the sake of the flash, unless somebody waits for it.
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
        """Forget what kept a certificate from being renewed."""
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
        """Learn the time from a certificate that was issued this very moment, and keep its renewal's window."""
        leaf = answered.chain[0]
        if answered.window is not None:
            chance = chance_of(self.entropy.token(4))
            at = moment_in(answered.window, leaf.not_before, leaf.not_after, chance)
            self.update(planned=self.state.planned | {managed.id: PlannedRenewal(leaf.thumbprint.hex(), at)})
        if self.clock.now() > leaf.not_after:
            self.clock.learn(leaf.not_before, "a certificate that was issued just now")
        self._keep_time()

    def _keep_time(self) -> None:
        """Write down what was learnt of the time; not each minute, for the sake of the flash."""
        floor, offset = self.clock.floor, self.clock.offset.total_seconds()
        seen, state = self.state.seen_at, self.state
        is_later = seen is None or floor - seen > _SEEN_EVERY
        if is_later or abs(state.clock_offset_s - offset) > _OFFSET_S or bool(offset) != bool(state.clock_offset_s):
            self.update(seen_at=floor, clock_offset_s=offset, clock_why=self.clock.why, clock_boot=self.boot)

    async def _take_back(self, held: HeldIdentity) -> None:
        """The new certificate did not work; DPS may have told the hub of it already, so register the old one again."""
        if self.is_registered(held) or self.keeper.is_expired(held):
            return
        if self._azure is not None:  # the hub takes both, until the new one is used
            self.update(thumbprint=held.mark)
            return
        try:
            await self.register(held)
        except BirthmarkError as error:
            log.warning("agent.not_taken_back", extra={"code": error.code})

    def _links(self, held: Held) -> Links:
        identity = None if isinstance(held, SharedIdentity) else held.for_links()
        return self.links_for(identity, self.cloud_trust)


def _target_of(source: DpsSource, held: Held) -> DpsTarget:
    name = source.registration_id or (held.leaf.subject_cn if isinstance(held, HeldIdentity) else None) or ""
    return DpsTarget(source.host, source.id_scope, name, https_port=source.port)


def endpoint_of(source: DpsSource) -> str:
    return f"{source.host}:{source.port}/{source.id_scope}"
