"""Preparation of a run: every device has a key and a certificate, and a local server has its records."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.est.client import EstClient
from birthmark.swarm.errors import IdentityMissingError
from birthmark.swarm.identities import CaFactory, IdentityDirectory, csr_of, new_key
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.model import Fault, Origin
from birthmark.swarm.rules.device_event_schedule import faults_of
from birthmark.swarm.scenario.model import Scenario, SwarmTarget

_AT_ONCE = 32  # parallel EST requests


@dataclass(frozen=True, slots=True)
class EstAccount:
    """A user that may request any device's first certificate."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Provisioner:
    """Creates missing identities. Idempotent."""

    scenario: Scenario
    target: SwarmTarget
    shelf: IdentityDirectory
    clock: Clock
    entropy: Entropy
    progress: Callable[[int, int], None] = lambda _done, _all: None

    async def run(self, dialer: Dialer, account: EstAccount | None) -> int:
        """Return the number of identities created. Raise `IdentityMissingError` if none may be created."""
        names, origin = names_of(self.scenario), self.scenario.identities.origin
        lacking = self.shelf.missing(names)
        if origin is Origin.FILES:
            if lacking:
                raise IdentityMissingError(path=self.shelf.path_of(lacking[0]))
            return 0
        wanted = {*those_with(self.scenario, Fault.EXPIRED), *those_with(self.scenario, Fault.REVOKED)}
        present = set(names) - set(lacking) - wanted
        lacking += self.shelf.find_unusable(sorted(present), self.clock.now())
        if origin is Origin.CA:
            expired = those_with(self.scenario, Fault.EXPIRED)
            self._sign([*lacking, *(name for name in expired if name not in lacking)], frozenset(expired))
        else:
            await self._ask(lacking, dialer, account)
        return len(lacking)

    def _sign(self, names: list[str], expired: frozenset[str]) -> None:
        now = self.clock.now()
        maker = CaFactory.of(self.scenario.identities, self.entropy, now)
        for done, name in enumerate(names, 1):
            self.shelf.put(name, *maker.make(name, now, is_expired=name in expired))
            self.progress(done, len(names))

    async def _ask(self, names: list[str], dialer: Dialer, account: EstAccount | None) -> None:
        turns, done = asyncio.Semaphore(_AT_ONCE), 0
        https = SwarmHttps(dialer, None)
        user, password = (None, None) if account is None else (account.user, account.password)
        client = EstClient(self.target.est_url, https, user, password)

        async def one(name: str) -> None:
            nonlocal done
            async with turns:
                key = new_key()
                issued = await client.enroll(csr_of(name, key))
            self.shelf.put(name, key, issued.chain)
            done += 1
            self.progress(done, len(names))

        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(one(name))
        except ExceptionGroup as failed:  # the first of many similar failures
            raise failed.exceptions[0] from failed


def names_of(scenario: Scenario) -> list[str]:
    """Return every device's name."""
    return [group.name_of(number) for group in scenario.groups for number in range(group.count)]


def those_with(scenario: Scenario, fault: Fault) -> list[str]:
    """Return the names of the devices with this fault."""
    return [
        group.name_of(number)
        for group in scenario.groups
        for number, found in enumerate(faults_of(group))
        if found is fault
    ]
