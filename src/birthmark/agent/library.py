"""The agent inside a program: an identity that is kept alive, for a client of the program's own.

    async with connect("/etc/aziot/config.toml") as device:
        client = make_client(device.identity)       # certificate_file, key_file, hub, device_id
        async for identity in device.renewals():    # each was proven and is in place already
            client = make_client(identity)

What is configured, where files lie and how a renewal is proven is as for `birthmark agent run`; only the connection to
the hub is the program's. `prove` proves a renewed identity in the program's own way, where the device belongs to
another cloud or broker: it connects with it, and raises when it may not.
"""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from birthmark.agent.config import ManualSource, read_config
from birthmark.agent.control import locked
from birthmark.agent.files import DEVICE_ID, Places
from birthmark.agent.opening import open_agent
from birthmark.agent.service import Agent
from birthmark.agent.slots import HeldIdentity
from birthmark.agent.upkeep import NEVER_S, Pace, Upkeep
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.file_key import FileKey
from birthmark.links.choose import open_links
from birthmark.links.identity import FileIdentity, Trust
from birthmark.links.openssl.tls import client_context

log = logging.getLogger(__name__)

_LOOK_S = 30.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client needs. `key_file` is None where the key is in a token; `key` names it then (`pkcs11:…`)."""

    device_id: str
    hub: str | None
    certificate_file: Path
    key_file: Path | None
    key: str
    thumbprint: str
    not_after: datetime
    held: HeldIdentity = field(repr=False)
    trust: Trust = field(repr=False)

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context that shows the identity and trusts what the configuration trusts; for keys in files."""
        shown = self.held.for_links()
        if not isinstance(shown, FileIdentity):
            raise TypeError("the key is in a token: no ssl.SSLContext can use it")
        return client_context(shown, self.trust)


Prove = Callable[[Identity], Awaitable[None]]
Renewed = Callable[[Identity], Awaitable[None] | None]


@dataclass(slots=True)
class Device:
    """A device whose identity is kept. Its identity changes with each renewal."""

    agent: Agent
    identity: Identity
    _callbacks: list[Renewed] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _pace: Pace = field(default_factory=Pace)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One renewal at a time: of two registrations the later ends the earlier."""

    def on_renewed(self, callback: Renewed) -> None:
        """Have a function, or a coroutine function, called with each new identity."""
        self._callbacks.append(callback)

    async def renewals(self) -> AsyncIterator[Identity]:
        """Yield each new identity; of several that came at once, the latest."""
        seen = self.identity
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self.identity.thumbprint != seen.thumbprint)  # noqa: B023 (this turn's)
            seen = self.identity
            yield seen

    async def renew(self) -> Identity:
        """Renew now. On failure the old identity stays, and the reason is raised."""
        async with self._turn:
            return await self._renewed()

    async def _renewed(self) -> Identity:
        held, hub = await self.agent.renew(self.identity.held)
        if hub is not None:
            await hub.close()
        self.identity = identity_of(self.agent, held)
        async with self._news:
            self._news.notify_all()
        for callback in self._callbacks:
            if (answer := callback(self.identity)) is not None:
                await answer
        return self.identity

    async def keep(self) -> None:
        """Renew what is due, for as long as the program runs; `connect` has it done."""
        upkeep = Upkeep(self.agent, lambda event, _facts: log.info(event), self.agent.note)
        while True:
            async with self._turn:
                if (upkeep_s := upkeep.due_s()) <= 0:
                    await upkeep.work()
                    continue
                if (due_s := self._due_s()) <= 0:
                    await self._renew_once()
                    continue
            await asyncio.sleep(min(due_s, upkeep_s, _LOOK_S))

    def _due_s(self) -> float:
        managed = self.agent.managed.get(DEVICE_ID)
        if managed is None:
            return NEVER_S
        is_manual = isinstance(self.agent.config.source, ManualSource)
        due = self.agent.due_in(managed) if is_manual else self.agent.renewal_due_in(self.identity.held)
        if due is None or (is_manual and self.agent.prove is None):
            return NEVER_S
        return max(due.total_seconds(), self._pace.not_before - self.agent.clock.monotonic())

    async def _renew_once(self) -> None:
        try:
            await self._renewed()
        except BirthmarkError as error:
            leaf = self.identity.held.leaf
            self._pace.failed(self.agent, error, self.agent.renewal, leaf.not_after - leaf.not_before)
            self.agent.note(error, DEVICE_ID)
        else:
            self._pace.worked()
            self.agent.works(DEVICE_ID)


@contextlib.asynccontextmanager
async def connect(
    config: Path | str | None = None, *, root: Path | str = "/", prove: Prove | None = None
) -> AsyncIterator[Device]:
    """Get the device's identity, issued and registered where needed, and keep it while the block runs.

    Raise `AgentRunningError` where an agent runs on this root already, and whatever keeps the device from its identity.
    """
    places = Places(Path(root))
    agent = open_agent(
        read_config(Path(config) if config is not None else places.config),
        places,
        make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
        environment=os.environ,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    places.prepare()
    with locked(places.lock), contextlib.closing(agent.identities.keys):
        agent.keeper.recover()
        if prove is not None:
            agent.prove = _proving(agent, prove)
        await agent.prepare()
        held = agent.held()
        if held is None:
            raise UnavailableError
        device = Device(agent, identity_of(agent, held))
        task = asyncio.create_task(device.keep())
        try:
            yield device
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def identity_of(agent: Agent, held: HeldIdentity) -> Identity:
    """Return what a client needs of a certificate with its key."""
    given = agent.config.source.identity
    slot = agent.identities.slot(DEVICE_ID)
    certificate = getattr(given, "certificate", None) or slot.file_of(held)
    key = held.key.handle
    name = agent.state.device_id or held.leaf.subject_cn or ""
    file = key.path if isinstance(key, FileKey) else None
    trust, until = agent.cloud_trust, held.leaf.not_after
    return Identity(name, agent.state.hub, certificate, file, key.describe(), held.mark, until, held, trust)


def _proving(agent: Agent, prove: Prove) -> Callable[[HeldIdentity], Awaitable[None]]:
    """Return the program's proof as the agent takes it: whatever it raises, the old identity stays."""

    async def proven(held: HeldIdentity) -> None:
        try:
            await prove(identity_of(agent, held))
        except BirthmarkError:
            raise
        except Exception as error:
            log.warning("agent.not_proven", extra={"reason": str(error)})
            raise UnavailableError from error

    return proven
