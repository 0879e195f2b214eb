"""Renewal schedule of a running or embedded agent: the device identity and the other certificates.

The other certificates are EST identity, local CA, and edge CA. Each has its own retry pace, so a failure delays only
its own retry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.identity_lifecycle import Agent, Held
from birthmark.agent.managed_certificate_list import ManagedCertificate
from birthmark.agent.renewal_policy import Renewal, chance_of, overdue_pause, pause_as_asked, pause_within, retry_pause
from birthmark.agent.state_directory import DEVICE_ID
from birthmark.dps.client import DpsBusyError
from birthmark.errors import BirthmarkError
from birthmark.est.client import EstServerBusyError
from birthmark.pki.path_validation import check_dates

NEVER_S = 3600.0
_DAY = timedelta(days=1)

Note = Callable[[BirthmarkError, str], None]
Tell = Callable[[str, dict[str, object]], None]


@dataclass(slots=True)
class RetryPace:
    """Retry time after failures."""

    failures: int = 0
    not_before: float = 0.0  # monotonic

    def failed(
        self, agent: Agent, problem: BirthmarkError, renewal: Renewal | None, lifetime: timedelta, remaining: timedelta
    ) -> timedelta:
        """Count a failure and return the pause: what the server requested, otherwise a growing one.

        `remaining` is the remaining lifetime of the current certificate; the pause ends before it.
        """
        self.failures += 1
        chance = chance_of(agent.entropy.token(4))
        retry = max((renewal or Renewal()).retry.of(lifetime), timedelta(seconds=1))
        pause = retry_pause(self.failures, retry, chance)
        if isinstance(problem, EstServerBusyError | DpsBusyError) and problem.retry_after_s is not None:
            pause = pause_as_asked(problem.retry_after_s, chance, remaining)
        pause = pause_within(pause, remaining)
        self.not_before = agent.clock.monotonic() + pause.total_seconds()
        return pause

    def worked(self) -> None:
        self.failures, self.not_before = 0, 0.0


def taken_by(agent: Agent, orders: ControlServer) -> Callable[[ControlCommand], bool]:
    """Return a command handler that executes immediate commands and queues the others for the loop."""

    def take(order: ControlCommand) -> bool:
        if order is ControlCommand.FORGET_TIME:
            agent.forget_time()
            return True
        return orders.give(order)

    return take


@dataclass(slots=True)
class RenewalTurn:
    """Schedules the device certificate's renewal when due; spreads overdue renewals after an outage."""

    agent: Agent
    _pace: RetryPace = field(default_factory=RetryPace)
    _seen: str = ""  # marker of an identity whose renewal is not overdue, or is postponed

    def due_s(self, identity: Held, due: timedelta | None) -> float | None:
        """Return the seconds until a renewal that is `due` after this time; None for never."""
        is_new, self._seen = self._seen != identity.mark, identity.mark
        if due is None:
            return None
        if due <= timedelta(0) and is_new:
            overdue_at = self.agent.clock.monotonic() + self._overdue_pause(identity).total_seconds()
            self._pace.not_before = max(self._pace.not_before, overdue_at)
        return max(due.total_seconds(), self._pace.not_before - self.agent.clock.monotonic())

    def failed(self, identity: Held, problem: BirthmarkError) -> timedelta:
        """Record a failed renewal, and return the pause before the next attempt."""
        lifetime = identity.leaf.not_after - identity.leaf.not_before if isinstance(identity, HeldIdentity) else _DAY
        return self._pace.failed(self.agent, problem, self.agent.renewal, lifetime, _left(self.agent, identity))

    def worked(self, identity: Held) -> BirthmarkError | None:
        """Record a completed renewal.

        If the new certificate has already expired, return the error and delay the next renewal.
        """
        problem = _find_expiry_error(self.agent, identity)
        if problem is None:
            self._pace.worked()
        else:
            self.failed(identity, problem)
        return problem

    def _overdue_pause(self, identity: Held) -> timedelta:
        agent, renewal = self.agent, self.agent.renewal
        if renewal is None or not isinstance(identity, HeldIdentity) or agent.keeper.is_unfinished(DEVICE_ID):
            return timedelta(0)
        leaf = identity.leaf
        retry = renewal.retry.of(leaf.not_after - leaf.not_before)
        return overdue_pause(leaf.not_after - agent.clock.now(), retry, chance_of(agent.entropy.token(4)))


@dataclass(slots=True)
class RenewalScheduler:
    """Renews the other certificates of an agent; `note` receives each failure."""

    agent: Agent
    tell: Tell
    note: Note
    _paces: dict[str, RetryPace] = field(default_factory=dict)

    def due_s(self) -> float:
        """Return the seconds until the next action."""
        return min((self._due_s(one) for one in self.agent.others), default=NEVER_S)

    async def work(self) -> None:
        """Issue or renew the certificates that are due."""
        for managed in self.agent.others:
            if self._due_s(managed) <= 0:
                await self._renew(managed)

    async def renew_all(self) -> None:
        """Renew all certificates now, on request."""
        for managed in self.agent.others:
            await self._renew(managed)

    def _due_s(self, managed: ManagedCertificate) -> float:
        now, pace = self.agent.clock.monotonic(), self._paces.get(managed.id, RetryPace())
        if now < pace.not_before:
            return pace.not_before - now
        try:
            due = self.agent.due_in(managed)
        except BirthmarkError:  # no token: the attempt reports it
            return 0.0
        return NEVER_S if due is None else due.total_seconds()

    def _left(self, managed: ManagedCertificate) -> timedelta:
        try:
            return _left(self.agent, self.agent.keeper.slot(managed.id).current())
        except BirthmarkError:  # token unavailable
            return timedelta(0)

    async def _renew(self, managed: ManagedCertificate) -> None:
        pace = self._paces.setdefault(managed.id, RetryPace())
        try:
            made = await self.agent.once_more(lambda: self.agent.keeper.renew(managed))
        except BirthmarkError as error:
            pause = pace.failed(self.agent, error, managed.renewal, _DAY, self._left(managed))
            self.note(error, managed.id)
            told = {
                "id": managed.id,
                "error": error.code,
                "cause": error.explain_cause_with_subject(),
                "fix": error.explain_fix(),
            }
            self.tell("certificate not renewed", {**told, "again_in_s": round(pause.total_seconds(), 1)})
            return
        if (problem := _find_expiry_error(self.agent, made)) is None:
            pace.worked()
            self.agent.works(managed.id)
        else:
            pace.failed(self.agent, problem, managed.renewal, _DAY, timedelta(0))
            self.note(problem, managed.id)
        self.tell("certificate renewed", _about(managed, made))


def _find_expiry_error(agent: Agent, identity: Held) -> BirthmarkError | None:
    """Return an error if the certificate is outside its validity period, as with a slow clock of the issuer."""
    if isinstance(identity, HeldIdentity):
        try:
            check_dates(identity.leaf, agent.now_for(identity))
        except BirthmarkError as error:
            return error
    return None


def _left(agent: Agent, identity: Held | None) -> timedelta:
    """Return the remaining lifetime of a certificate; zero without one."""
    return identity.leaf.not_after - agent.now_for(identity) if isinstance(identity, HeldIdentity) else timedelta(0)


def _about(managed: ManagedCertificate, identity: HeldIdentity) -> dict[str, object]:
    return {
        "id": managed.id,
        "thumbprint": identity.leaf.thumbprint.hex(),
        "not_after": identity.leaf.not_after.isoformat(),
    }
