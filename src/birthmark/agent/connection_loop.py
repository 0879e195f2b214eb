"""Connection loop of `birthmark agent run`.

It reacts to commands, connection loss, and due renewals. Each failure is recorded and retried after a growing,
randomized pause.
"""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from birthmark import supervised_tasks
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.identity_lifecycle import Agent, Connected, Held
from birthmark.agent.jobs.file_update import fetching
from birthmark.agent.jobs.job_loop import JobAgent
from birthmark.agent.renewal_policy import chance_of, pause_as_asked
from birthmark.agent.renewal_scheduler import RenewalScheduler, RenewalTurn
from birthmark.agent.state import keep
from birthmark.agent.state_directory import DEVICE_ID
from birthmark.awsiot.client import ThingClient
from birthmark.dps.client import DpsBusyError
from birthmark.errors import BirthmarkError, ForbiddenError, UnauthenticatedError
from birthmark.est.client import EstServerBusyError
from birthmark.iothub.client import HubClient

_MAX_RECONNECT_S = 60.0
_SHORT_S = 60.0  # shorter connections indicate a duplicate client or a rejecting hub
_LOOK_S = 30.0  # the wall clock may jump, or stop during system sleep

Tell = Callable[[str, dict[str, object]], None]


@dataclass(slots=True)
class Loop:
    """One run of an agent; `tell` receives its events for users and logs."""

    agent: Agent
    orders: ControlServer
    tell: Tell
    telemetry_s: float | None = None
    journal: Callable[[BirthmarkError], None] | None = None  # called for each new error type, not for each repetition
    _journaled: str | None = None
    _failures: int = 0
    _short: int = 0
    """Number of consecutive connections that ended right after they started."""
    _renewal: RenewalTurn = field(init=False)
    _upkeep: RenewalScheduler = field(init=False)
    _registers_at: float = math.inf
    """Time of the next registration, as commanded or after a hub's refusal; set until it succeeds; monotonic."""
    _next_telemetry: float = 0.0
    _sent: int = 0

    _jobs: JobAgent | None = field(init=False)
    _asked: asyncio.Future[BirthmarkError | None] | None = None
    """Receives the result of the next renewal for a waiting job."""

    def __post_init__(self) -> None:
        self._upkeep, self._renewal = RenewalScheduler(self.agent, self.tell, self._note), RenewalTurn(self.agent)
        self._jobs = self._jobs_of(self.agent)

    async def run(self) -> None:
        """Stay connected until stopped."""
        hub: Connected | None = None
        held: Held | None = None
        began = 0.0
        jobs = None if self._jobs is None else supervised_tasks.start_supervised("jobs", self._jobs.run)
        try:
            while not self.orders.is_stopping:
                if hub is None or held is None:
                    held, hub = await self._obtain_and_connect()
                    if hub is None or held is None:
                        continue
                    self._use(hub)
                    began = self.agent.clock.monotonic()
                match await self._watch(held, hub):
                    case ControlCommand.STOP:
                        break
                    case ControlCommand.RENEW:
                        before = hub
                        held, hub = await self._renew(held, hub)
                        if hub is not None and hub is not before:
                            self._use(hub)
                    case ControlCommand.REPROVISION:
                        if await self._register(held):
                            await hub.close()
                            hub = None
                    case _:
                        await hub.close()
                        hub = None
                        await self._pause_after(self.agent.clock.monotonic() - began)
        finally:
            await supervised_tasks.cancel_and_wait(jobs)
            if hub is not None:
                await hub.close()
            self.agent.update(is_connected=False)
        self.tell("stopped", {})

    async def _pause_after(self, lived_s: float) -> None:
        """Wait after short connections: two devices with one identity disconnect each other."""
        self._short = 0 if lived_s >= _SHORT_S else self._short + 1
        if self._short > 1:
            pause = min(_MAX_RECONNECT_S, 2.0 ** (min(self._short, 10) - 2)) * (0.5 + self._chance())
            await self.orders.wait(pause)

    async def _obtain_and_connect(self) -> tuple[Held | None, Connected | None]:
        """Obtain an identity and connect; wait after a failure, so that the caller can simply retry.

        Commands are also executed here: the hub may be unreachable because DPS would now assign another.
        """
        agent = self.agent
        if self.orders.take_one(ControlCommand.REPROVISION):
            self._registers_at = agent.clock.monotonic()
            agent.update(error=None)  # a waiting command needs its own error
        try:
            held, hub = await agent.once_more(self._connected)
        except BirthmarkError as error:
            if isinstance(error, UnauthenticatedError | ForbiddenError) and agent.state.hub is not None:
                self._registers_at = agent.clock.monotonic()  # unknown to the hub: register at DPS first
            await self._failed(error)
            return None, None
        self._failures, self._journaled = 0, None
        awaited = None if math.isinf(self._registers_at) else agent.state.error
        agent.update(is_connected=True, error=awaited, config_digest=agent.config.digest, failures=0)
        keep(agent.places, agent.config, agent.clock.now())
        self.tell("connected", self._about(held))
        return held, hub

    async def _connected(self) -> tuple[Held, Connected]:
        agent, hub = self.agent, None
        held: Held = await agent.ensure()
        if self._registers_at <= agent.clock.monotonic():
            await self._register(held)
        if self.orders.take_one(ControlCommand.RENEW):
            agent.update(error=None)
            await self._upkeep.renew_all()
            held, hub = await self._renew(held, None)
        return await agent.connect_or_reissue(held) if hub is None else (held, hub)

    async def _register(self, identity: Held) -> bool:
        """Register again after a command or a hub's refusal; return whether that succeeded.

        While it fails, the command stays pending and the previously assigned hub stays in use: DPS may be down for
        long.
        """
        agent = self.agent
        try:
            await agent.once_more(lambda: agent.register(identity))
        except BirthmarkError as error:
            self._registers_at = agent.clock.monotonic() + _LOOK_S
            self._note(error)
            self.tell("not registered", {**_words(error), "again_in_s": _LOOK_S})
            return False
        self._registers_at = math.inf
        return True

    async def _failed(self, problem: BirthmarkError) -> None:
        self._failures += 1
        self._note(problem)
        pause = min(_MAX_RECONNECT_S, 2.0 ** (min(self._failures, 10) - 1)) * (0.5 + self._chance())
        if isinstance(problem, EstServerBusyError | DpsBusyError) and problem.retry_after_s is not None:
            # The device is not connected, so the server's retry delay applies regardless of its credentials.
            pause = pause_as_asked(problem.retry_after_s, self._chance()).total_seconds()
        self.tell("failed", {**_words(problem), "again_in_s": round(pause, 1)})
        await self.orders.wait(pause)

    async def _watch(self, identity: Held, hub: Connected) -> ControlCommand | None:
        """Wait for a command or the due renewal; return None when the connection is lost."""
        lost = asyncio.ensure_future(hub.wait_until_lost())
        try:
            while True:
                if (order := self.orders.take()) is not None:
                    if order is ControlCommand.RENEW:  # a scheduled run covers due ones only
                        await self._upkeep.renew_all()
                    return order
                if (register_s := self._registers_at - self.agent.clock.monotonic()) <= 0:
                    return ControlCommand.REPROVISION
                if (due_s := self._renewal_due_s(identity)) <= 0:
                    return ControlCommand.RENEW
                telemetry_s = await self._send_telemetry(identity, hub)
                if (upkeep_s := self._upkeep.due_s()) <= 0:
                    await self._upkeep.work()
                    continue
                news = asyncio.ensure_future(self.orders.wait(min(due_s, register_s, upkeep_s, telemetry_s, _LOOK_S)))
                await asyncio.wait({lost, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if lost.done():
                    reason = lost.result()
                    break
        except BirthmarkError as error:  # a send failed: the connection has ended
            reason = error
        finally:
            lost.cancel()
        self.agent.update(is_connected=False)
        self.tell("disconnected", _words(reason) if isinstance(reason, BirthmarkError) else {})
        return None

    def _renewal_due_s(self, identity: Held) -> float:
        due_s = self._renewal.due_s(identity, self.agent.renewal_due_in(identity))
        return _LOOK_S if due_s is None else due_s

    async def _renew(self, identity: Held, hub: Connected | None) -> tuple[Held, Connected | None]:
        """Renew; after a failure, the next check of the old connection shows whether it is still up."""
        self.tell("renewing", {"thumbprint": identity.mark})
        try:
            fresh, fresh_hub = await self.agent.renew(identity)
        except BirthmarkError as error:
            self._note(error, DEVICE_ID)
            pause = self._renewal.failed(identity, error)
            self.tell("not renewed", {**_words(error), "again_in_s": round(pause.total_seconds(), 1)})
            self._answer(error)
            return identity, hub
        if (problem := self._renewal.worked(fresh)) is None:
            self.agent.works(DEVICE_ID)
        else:
            self._note(problem, DEVICE_ID)
        if hub is not None:
            await hub.close()
        self.tell("renewed", self._about(fresh))
        self._answer(None)
        return fresh, fresh_hub

    # ---- jobs

    def _jobs_of(self, agent: Agent) -> JobAgent | None:
        """Return the job agent if the configuration allows jobs."""
        if agent.config.jobs is None:
            return None

        def mark() -> str | None:
            held = agent.held()
            return None if held is None else held.mark

        return JobAgent(
            agent.config.jobs,
            agent.places.job,
            agent.boot,
            agent.clock,
            agent.entropy,
            fetching(agent.trusted),
            self._renew_for_job,
            mark,
            self.tell,
        )

    def _use(self, hub: Connected) -> None:
        if self._jobs is not None and isinstance(hub, ThingClient):
            self._jobs.connected(hub)

    async def _renew_for_job(self) -> None:
        """Renew the identity for a job, in turn. Raise the reason of a failure."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self.orders.give(ControlCommand.RENEW)
        if (error := await asyncio.shield(self._asked)) is not None:
            raise error

    def _answer(self, error: BirthmarkError | None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.set_result(error)

    async def _send_telemetry(self, identity: Held, hub: Connected) -> float:
        """Send telemetry when due; return the seconds until the next message."""
        if self.telemetry_s is None:
            return _LOOK_S
        now = self.agent.clock.monotonic()
        if now >= self._next_telemetry:
            self._sent += 1
            body = {"n": self._sent, "thumbprint": identity.mark}
            sent = json.dumps(body).encode()
            if isinstance(hub, HubClient):
                await hub.send(sent, content_type="application/json")
            else:
                await hub.send(sent)
            self._next_telemetry = now + self.telemetry_s
        return self._next_telemetry - now

    def _note(self, problem: BirthmarkError, certificate_id: str | None = None) -> None:
        self.agent.note(problem, certificate_id, is_awaited=self.orders.is_any)
        if self.journal is not None and problem.code != self._journaled:
            # `why` finds the error by device name, whatever the subject of the refusal.
            problem.add_facts(registration_id=self.agent.name)
            self.journal(problem)
        self._journaled = problem.code

    def _about(self, identity: Held) -> dict[str, object]:
        about: dict[str, object] = {"hub": self.agent.state.hub, "device_id": self.agent.state.device_id}
        if isinstance(identity, HeldIdentity):
            about |= {"thumbprint": identity.mark, "not_after": identity.leaf.not_after.isoformat()}
        return about | {"renewals": self.agent.state.renewals}

    def _chance(self) -> float:
        return chance_of(self.agent.entropy.token(4))


def _words(problem: BirthmarkError) -> dict[str, object]:
    return {"error": problem.code, "cause": problem.explain_cause_with_subject(), "fix": problem.explain_fix()}
