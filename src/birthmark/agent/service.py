"""The agent at work on one device: issue, register, prove, replace.

Every step can be done again after an interruption, and nothing that works is given up before its successor has worked:
a new certificate is registered and has connected to the hub before it takes the old one's place.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from birthmark.agent.config.model import AgentConfig, DpsSource, Issued, ManualSource, Preloaded
from birthmark.agent.files import DEVICE_ID, TEMPORARY, Places
from birthmark.agent.identities import HeldIdentity, IdentityStore
from birthmark.agent.issuing import TRUST_BUNDLE, CertificateSource, MakeLinks, cloud_trust, trusting_by
from birthmark.agent.keys import HeldKey, KeyStore
from birthmark.agent.renewal import Renewal, clock_offset, renew_at, trusted_now
from birthmark.agent.state import LastError, State, read_state, write_state
from birthmark.clock import Clock, Entropy
from birthmark.dps.client import Assigned, DpsTarget, register_by_https
from birthmark.errors import BirthmarkError, PolicyError
from birthmark.iothub.client import HubClient, connect_hub
from birthmark.links.identity import Trust
from birthmark.links.ports import Links

log = logging.getLogger(__name__)


class NotIssuedHereError(PolicyError):
    """There is nothing to renew here."""

    code = "agent.not_issued_here"
    cause = "The identity {path} is given by the configuration; the agent did not issue it and cannot renew it."
    fix = 'Replace the file yourself, or let the agent issue it: `identity_cert = {{ method = "est" }}`.'
    path: Path


@dataclass(slots=True)
class Agent:
    """Acts for one configuration and root. The caller holds the lock of that root."""

    config: AgentConfig
    places: Places
    identities: IdentityStore
    make_links: MakeLinks
    cloud_trust: Trust
    clock: Clock
    entropy: Entropy
    state: State = field(default_factory=State)

    # ---- the steps

    async def apply(self) -> Assigned | None:
        """Get a certificate where one is needed, and register. Return the assignment; None where the hub is given."""
        held = await self.ensure()
        assigned = await self.register(held)
        self.update(config_digest=self.config.digest, error=None)
        return assigned

    async def ensure(self) -> HeldIdentity:
        """Return a usable identity, issuing one when there is none, or it has expired, or is for another name."""
        identity = self.config.source.identity
        if isinstance(identity, Preloaded):
            return self.identities.preloaded(identity)
        current = self.identities.current()
        if current is not None and current.leaf.subject_cn == identity.common_name and not self.is_expired(current):
            return current
        keys = self.identities.keys
        key = keys.open(DEVICE_ID) if keys.exists(DEVICE_ID) and current is None else None
        is_in_place = key is not None or keys.is_preloaded(DEVICE_ID) or not self._may_rotate(identity)
        if is_in_place:
            key = key or (keys.open(DEVICE_ID) if keys.exists(DEVICE_ID) else keys.create(DEVICE_ID))
        else:
            self.identities.drop_pending()
            key = keys.create(TEMPORARY)
        made = await self._issued(identity, key, None, DEVICE_ID if is_in_place else TEMPORARY)
        if not is_in_place:
            self.identities.commit()
        log.info("certificate.issued", extra={"thumbprint": made.leaf.thumbprint.hex()})
        return self.identities.current() or made

    @property
    def name(self) -> str | None:
        """What the device is known by, as far as that is configured or was told by the provisioning service."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return source.device_id
        return self.state.registration_id or source.registration_id

    async def register(self, held: HeldIdentity) -> Assigned | None:
        """Register at DPS and remember the answer; nothing to do where the hub is configured."""
        source = self.config.source
        if isinstance(source, ManualSource):
            self.update(
                hub=source.hub, device_id=source.device_id, endpoint=None, thumbprint=held.leaf.thumbprint.hex()
            )
            return None
        name = source.registration_id or held.leaf.subject_cn or ""
        target = DpsTarget(source.host, source.id_scope, name, https_port=source.port)
        with trusting_by(TRUST_BUNDLE):
            assigned = await register_by_https(self._links(held).https(), target)
        self.update(
            hub=assigned.hub,
            device_id=assigned.device_id,
            registration_id=assigned.registration_id,
            endpoint=endpoint_of(source),
            thumbprint=held.leaf.thumbprint.hex(),
            registered_at=self.clock.now(),
        )
        log.info("device.registered", extra={"hub": assigned.hub, "device_id": assigned.device_id})
        return assigned

    async def connect(self, held: HeldIdentity) -> HubClient:
        """Connect to the assigned hub; register first unless this very certificate was registered here before."""
        if not self.is_registered(held):
            await self.register(held)
        assert self.state.hub is not None  # noqa: S101 (registering has set both)
        assert self.state.device_id is not None  # noqa: S101 (as above)
        with trusting_by(TRUST_BUNDLE):
            return await connect_hub(self._links(held).mqtt(), self.state.hub, self.state.device_id)

    async def renew(self, held: HeldIdentity) -> tuple[HeldIdentity, HubClient]:
        """Renew and prove it: return the new identity and its hub connection. On failure the old identity stays."""
        identity = self.config.source.identity
        if not isinstance(identity, Issued):
            raise NotIssuedHereError(path=identity.certificate)
        fresh = await self._fresh(identity, held)
        try:
            await self.register(fresh)
            hub = await self.connect(fresh)
        except BirthmarkError:
            await self._take_back(held)
            raise
        self.identities.commit()
        self.update(
            renewals=self.state.renewals + 1, renewed_at=self.clock.now(), failures=0, error=None, is_connected=True
        )
        log.info("certificate.renewed", extra={"thumbprint": fresh.leaf.thumbprint.hex()})
        return self.identities.current() or fresh, hub

    # ---- facts

    def is_registered(self, held: HeldIdentity) -> bool:
        """Say whether this certificate was registered with this configuration."""
        source = self.config.source
        if isinstance(source, ManualSource):
            return (self.state.hub, self.state.device_id) == (source.hub, source.device_id)
        is_here = self.state.endpoint == endpoint_of(source) and self.state.hub is not None
        return is_here and self.state.thumbprint == held.leaf.thumbprint.hex()

    def is_expired(self, held: HeldIdentity) -> bool:
        return self.now_for(held) > held.leaf.not_after

    def now_for(self, held: HeldIdentity) -> datetime:
        """Return the time to judge this certificate by."""
        offset = timedelta(seconds=self.state.clock_offset_s)
        return trusted_now(self.clock.now(), offset, held.leaf.not_before, held.leaf.not_after)

    @property
    def renewal(self) -> Renewal | None:
        """The rules of renewal; None where the configuration wants none."""
        identity = self.config.source.identity
        return identity.renewal if isinstance(identity, Issued) else None

    def renew_at(self, held: HeldIdentity) -> datetime | None:
        """Return when the certificate should be renewed; None for never."""
        leaf, renewal = held.leaf, self.renewal
        return None if renewal is None else renew_at(leaf.not_before, leaf.not_after, renewal.threshold)

    def renewal_due_in(self, held: HeldIdentity) -> timedelta | None:
        """Return how long until then; None where nobody could be told of a new certificate."""
        due = None if isinstance(self.config.source, ManualSource) else self.renew_at(held)
        return None if due is None else due - self.now_for(held)

    def held(self) -> HeldIdentity | None:
        """Return the identity there is, asking nobody."""
        identity = self.config.source.identity
        return self.identities.preloaded(identity) if isinstance(identity, Preloaded) else self.identities.current()

    def update(self, **changes: object) -> None:
        """Change the state and write it down, unless nothing changes."""
        changed = msgspec.structs.replace(self.state, **changes)
        if changed != self.state:
            self.state = changed
            write_state(self.places.state, changed)

    def note(self, problem: BirthmarkError) -> None:
        """Remember the latest trouble for `status` and `why`."""
        cause, now = problem.explain_cause(), self.clock.now()
        error = LastError(now, problem.code, str(problem), cause, problem.explain_fix())
        self.update(error=error, failures=self.state.failures + 1)
        log.warning("agent.failed", extra={"code": problem.code, "cause": cause})

    # ---- inside

    async def _fresh(self, identity: Issued, held: HeldIdentity) -> HeldIdentity:
        """Return a certificate to prove: one that was issued before and could not be proven yet, else a new one."""
        pending = self.identities.pending()
        renewal = identity.renewal or Renewal()
        if pending is not None and pending.leaf.thumbprint != held.leaf.thumbprint:
            due = renew_at(pending.leaf.not_before, pending.leaf.not_after, renewal.threshold)
            if self.now_for(pending) < due and pending.leaf.subject_cn == identity.common_name:
                return pending
        self.identities.drop_pending()
        keys = self.identities.keys
        key = keys.create(TEMPORARY) if self._may_rotate(identity) else held.key
        return await self._issued(identity, key, None if self.is_expired(held) else held, TEMPORARY)

    async def _issued(
        self, identity: Issued, key: HeldKey, current: HeldIdentity | None, certificate_id: str
    ) -> HeldIdentity:
        """Have a certificate issued for a key, and keep it; it tells whether the clock can be right."""
        source = CertificateSource(
            identity, self.identities, self.make_links, self.cloud_trust, self.clock, self.entropy
        )
        made = HeldIdentity(await source.issue(key, current), key)
        self.identities.save(certificate_id, made.chain)
        offset = clock_offset(self.clock.now(), made.leaf.not_before, made.leaf.not_after)
        if offset:
            log.warning("clock.wrong", extra={"offset_s": round(offset.total_seconds())})
        self.update(clock_offset_s=offset.total_seconds())
        return made

    def _may_rotate(self, identity: Issued) -> bool:
        """A key that the configuration gives, such as a chip's own, is certified again and never replaced."""
        rotates = identity.renewal is None or identity.renewal.rotate_key
        return rotates and not self.identities.keys.is_preloaded(DEVICE_ID)

    async def _take_back(self, held: HeldIdentity) -> None:
        """The new certificate did not work; DPS may have told the hub of it already, so register the old one again."""
        if self.is_registered(held) or self.is_expired(held):
            return
        try:
            await self.register(held)
        except BirthmarkError as error:
            log.warning("agent.not_taken_back", extra={"code": error.code})

    def _links(self, held: HeldIdentity) -> Links:
        return self.make_links(held.for_links(), self.cloud_trust)


def endpoint_of(source: DpsSource) -> str:
    return f"{source.host}:{source.port}/{source.id_scope}"


def open_agent(
    config: AgentConfig,
    places: Places,
    *,
    make_links: MakeLinks,
    environment: Mapping[str, str],
    clock: Clock,
    entropy: Entropy,
) -> Agent:
    """Return the agent of this configuration and root; close `identities.keys` when done."""
    keys = KeyStore(places, config.keys, config.preloaded_keys, entropy)
    trust = cloud_trust(environment, config.trust_bundle)
    state = read_state(places.state)
    return Agent(config, places, IdentityStore(places, keys), make_links, trust, clock, entropy, state)
