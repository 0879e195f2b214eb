"""Embedded agent: manages an identity for a program with its own client.

    async with connect("/etc/aziot/config.toml") as device:
        client = make_client(device.identity)       # certificate_file, key_file, hub, device_id
        async for identity in device.renewals():    # each was proven and is in place already
            client = make_client(identity)

Configuration, file locations, and proof of renewals match `birthmark agent run`; only the hub connection belongs to the
program. For a device of another cloud or broker, `prove` replaces the proof of a renewed identity. It connects with the
identity and raises if it is refused.
"""

import asyncio
import contextlib
import logging
import math
import os
import shlex
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from birthmark.agent.agent_factory import open_agent
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.config import ConfigUnsupportedError, ManualSource, read_config
from birthmark.agent.config.model import SymmetricKeySource
from birthmark.agent.control_socket import ControlCommand, ControlServer, answering
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.renewal_scheduler import NEVER_S, RenewalScheduler, RenewalTurn, taken_by
from birthmark.agent.running_instance import AgentRunningError, locked
from birthmark.agent.state_directory import DEVICE_ID, AgentPaths, control_socket_of
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.openssl.tls_context import client_context
from birthmark.device_transports.transport_selection import open_links
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.file_key import FileKey
from birthmark.keys.tpm_attestation import TpmSettings
from birthmark.supervised_tasks import await_third_party, cancel_and_wait

log = logging.getLogger(__name__)

_LOOK_S = 30.0
PROVE_S = 300.0
"""Time limit of a program's proof in seconds; no other renewal runs until it completes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Client credentials. `key_file` is None for a key in a token; `key` is then its URI (`pkcs11:…`)."""

    device_id: str
    hub: str | None
    certificate_file: Path
    key_file: Path | None
    key: str
    thumbprint: str
    not_after: datetime
    held: HeldIdentity = field(repr=False)
    trusted: Callable[[], ServerTrust] = field(repr=False, compare=False)

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context with the identity and the current trust anchors of the device; for keys in files.

        The anchors are the configured ones and the roots reached from them by a root rollover.
        """
        shown = self.held.for_links()
        if not isinstance(shown, FileIdentity):
            raise TypeError("the key is in a token, which ssl.SSLContext does not support")
        return client_context(shown, self.trusted())


Prove = Callable[[Identity], Awaitable[None]]
Renewed = Callable[[Identity], Awaitable[None] | None]


@dataclass(slots=True)
class AgentDevice:
    """A device with a managed identity, which changes with each renewal."""

    agent: Agent
    identity: Identity
    _callbacks: list[Renewed] = field(default_factory=list)
    _untold: list[Renewed] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _renewal: RenewalTurn = field(init=False)
    _orders: ControlServer = field(default_factory=ControlServer)
    _registers_at: float = math.inf
    """Time of the next registration that a command requested, monotonic."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Serializes renewals: of two concurrent registrations, the later one ends the earlier."""

    _yielded: Identity = field(init=False)

    def __post_init__(self) -> None:
        self._renewal = RenewalTurn(self.agent)
        self._yielded = self.identity

    def on_renewed(self, callback: Renewed) -> None:
        """Register a function or coroutine function to call with each new identity; its exceptions are logged."""
        self._callbacks.append(callback)

    def renewals(self) -> AsyncIterator[Identity]:
        """Yield each new identity; if several are pending, only the latest.

        An identity is new if it arrived since `connect`, or since the last one delivered when this was called. A slow
        consumer misses none, and concurrent consumers each receive all.
        """
        return self._renewals(self._yielded)

    async def _renewals(self, last: Identity) -> AsyncIterator[Identity]:
        while True:
            async with self._news:
                await self._news.wait_for(lambda: _news_of(self.identity) != _news_of(last))  # noqa: B023 - asked at once
            last = self._yielded = self.identity
            yield last

    async def renew(self) -> Identity:
        """Renew now. On failure, keep the old identity and raise the reason."""
        async with self._turn:
            await self._renewed()
        await self._tell()
        return self.identity

    async def _renewed(self) -> None:
        held, hub = await self.agent.renew(self.identity.held)
        self._change(held)  # before any wait: the old one is gone even on cancellation
        if hub is not None:
            await hub.close()

    def _change(self, identity: HeldIdentity) -> None:
        self.identity = identity_of(self.agent, identity)
        self._untold = [self._wake, *self._callbacks]

    async def _wake(self, _identity: Identity) -> None:
        async with self._news:
            self._news.notify_all()

    async def _tell(self) -> None:
        """Run the pending renewal callbacks; `keep` runs those that a cancelled renewal left.

        Callbacks run without the renewal lock, as a callback may renew.
        """
        while self._untold:
            callback = self._untold.pop(0)
            try:
                if (answer := callback(self.identity)) is not None:
                    await await_third_party(answer)
            except Exception:  # a callback error must not stop renewals
                log.exception("agent.callback_failed")

    async def keep(self) -> None:
        """Renew when due and execute commands while the program runs; `connect` starts this."""
        upkeep = RenewalScheduler(self.agent, lambda event, _facts: log.info(event), self.agent.note)
        while True:
            try:
                await self._tell()
                await self._kept(upkeep)
            except Exception:  # no task awaits this one: log the error, then retry
                log.exception("agent.upkeep_failed")
                await asyncio.sleep(_LOOK_S)

    async def _kept(self, upkeep: RenewalScheduler) -> None:
        async with self._turn:
            order = self._orders.take()
            now = self.agent.clock.monotonic()
            if order is ControlCommand.REPROVISION:
                self._registers_at = now
            if (register_s := self._registers_at - now) <= 0:
                await self._register()
                return
            if order is ControlCommand.RENEW:  # a scheduled run covers due ones only
                await upkeep.renew_all()
            if order is ControlCommand.RENEW or (due_s := self._due_s()) <= 0:
                await self._noted(self._renewed)
                return
            if (upkeep_s := upkeep.due_s()) <= 0:
                await upkeep.work()
                return
        await self._orders.wait(min(due_s, upkeep_s, register_s, _LOOK_S))

    def _due_s(self) -> float:
        managed = self.agent.managed.get(DEVICE_ID)
        if managed is None:
            return NEVER_S
        is_manual = isinstance(self.agent.config.source, ManualSource)
        try:
            due = self.agent.due_in(managed) if is_manual else self.agent.renewal_due_in(self.identity.held)
        except BirthmarkError:  # no token: the attempt reports it
            due = timedelta(0)
        if is_manual and self.agent.prove is None:
            due = None
        due_s = self._renewal.due_s(self.identity.held, due)
        return NEVER_S if due_s is None else due_s

    async def _registered_again(self) -> None:
        held, before = self.identity.held, self.identity
        await self.agent.once_more(lambda: self.agent.register(held))
        if self.agent.state.hub != before.hub:
            self._change(held)

    async def _register(self) -> None:
        """Register again as commanded; the command stays pending while that fails."""
        try:
            await self._registered_again()
        except BirthmarkError as error:
            self._registers_at = self.agent.clock.monotonic() + _LOOK_S
            self.agent.note(error, DEVICE_ID)
        else:
            self._registers_at = math.inf
            self.agent.works(DEVICE_ID)

    async def _noted(self, act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except BirthmarkError as error:
            self._renewal.failed(self.identity.held, error)
            self.agent.note(error, DEVICE_ID)
        else:
            if (problem := self._renewal.worked(self.identity.held)) is None:
                self.agent.works(DEVICE_ID)
            else:
                self.agent.note(problem, DEVICE_ID)


Device = AgentDevice
"""Former name, in releases up to 0.3."""


@contextlib.asynccontextmanager
async def connect(
    config: Path | str | None = None, *, root: Path | str = "/", prove: Prove | None = None
) -> AsyncIterator[AgentDevice]:
    """Obtain the device's identity, issued and registered if necessary, and manage it during the block.

    Raise `AgentRunningError` if an agent already runs on this root, or the reason why there is no identity.
    """
    places = AgentPaths(Path(root))
    file = Path(config) if config is not None else places.config
    read = read_config(file)
    if isinstance(read.source.identity, SymmetricKeySource | TpmSettings):
        raise ConfigUnsupportedError(
            file=file,
            line="1",
            key="provisioning",
            detail="an identity without a certificate, for a program,",
            accepted="Use `birthmark agent run`, or give the device a certificate (`identity_cert`)",
        )
    agent = open_agent(
        read,
        places,
        make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
        environment=os.environ,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    places.prepare()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(places.lock))
        except AgentRunningError as error:
            error.add_facts(root=shlex.quote(str(root)))
            raise
        stack.enter_context(contextlib.closing(agent.identities.keys))
        agent.keeper.recover()
        if prove is not None:
            agent.prove = _wrap_prove(agent, prove)
        orders = ControlServer(takes_stop=False)  # commands must not end a program
        async with answering(control_socket_of(places.lock), taken_by(agent, orders)):
            await agent.prepare()
            held = agent.held()
            if held is None:
                raise UnavailableError
            device = AgentDevice(agent, identity_of(agent, held), _orders=orders)
            task = asyncio.create_task(device.keep())
            try:
                yield device
            finally:
                await cancel_and_wait(task)


def identity_of(agent: Agent, identity: HeldIdentity) -> Identity:
    """Return the client credentials of a certificate with its key."""
    given = agent.config.source.identity
    slot = agent.identities.slot(DEVICE_ID)
    certificate = getattr(given, "certificate", None) or slot.file_of(identity)
    key = identity.key.handle
    name = agent.state.device_id or identity.leaf.subject_cn or ""
    file = key.path if isinstance(key, FileKey) else None
    until = identity.leaf.not_after

    def trusted() -> ServerTrust:
        return agent.anchors.beyond(agent.cloud_trust)

    return Identity(name, agent.state.hub, certificate, file, key.describe(), identity.mark, until, identity, trusted)


def _news_of(identity: Identity) -> tuple[str, str | None]:
    return identity.thumbprint, identity.hub


def _wrap_prove(agent: Agent, prove: Prove) -> Callable[[HeldIdentity], Awaitable[None]]:
    """Return the program's proof as the agent's callback; on any exception, the old identity stays."""

    async def proven(identity: HeldIdentity) -> None:
        try:
            async with asyncio.timeout(PROVE_S):
                await await_third_party(prove(identity_of(agent, identity)))
        except BirthmarkError:
            raise
        except Exception as error:
            log.warning("agent.not_proven", extra={"reason": str(error) or type(error).__name__})
            raise UnavailableError from error

    return proven
