"""Setup of a run: target address, reachability check, keys and certificates, and records."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.errors import ConflictError
from birthmark.est.client import EstClient
from birthmark.keys.pin import Pin
from birthmark.pki.certificates import Certificate
from birthmark.swarm.device_preparation import EstAccount, Provisioner, names_of, those_with
from birthmark.swarm.identities import CaFactory, IdentityDirectory, ca_file
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.model import Fault, Origin
from birthmark.swarm.scenario.model import Scenario, SwarmTarget
from birthmark.swarm.scenario.parser import resolve

_HTTPS, _ALPN = 443, "x-amzn-mqtt-ca"  # ALPN that selects MQTT on AWS's port

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RunSetup:
    """Result of the setup: everything that a run requires."""

    scenario: Scenario
    target: SwarmTarget
    dialer: Dialer
    shelf: IdentityDirectory
    made: int
    """Number of devices with a new key and certificate."""
    ca: Path | None
    """Certificate of the local CA, which the target must know; None if another CA issued the certificates."""
    on_record: str
    """Group that was created at a local server; empty for other targets."""


def target_of(scenario: Scenario, data: Path, environment: Mapping[str, str]) -> SwarmTarget:
    """Return the target of a scenario."""
    facts: Mapping[str, Any] = {}
    if scenario.wish.where.is_local:
        from birthmark.swarm.local_server_registration import local_facts  # it needs packages that other targets do not

        facts = local_facts(data, scenario.wish.where)
    return resolve(scenario.wish, facts, environment)


@dataclass(frozen=True, slots=True)
class SetupBuilder:
    """Prepares a scenario; a repeated call has little to do."""

    scenario: Scenario
    target: SwarmTarget
    data: Path
    clock: Clock
    entropy: Entropy
    progress: Progress = lambda _done, _all: None

    async def run(self, ends: contextlib.ExitStack) -> RunSetup:
        """Return the setup of a run, valid until `ends` closes. Raise the error that prevents the run."""
        target = self.target
        trust = ServerTrust(target.trust) if target.trust is not None else ServerTrust.default(os.environ)
        is_alpn = target.where.is_aws and target.mqtt_port == _HTTPS
        dialer, shelf = (
            Dialer(trust, target.tls, (_ALPN,) if is_alpn else ()),
            IdentityDirectory(self.scenario.identities.directory),
        )
        await self._check_reachable(dialer)
        scenario = tagged(self.scenario, shelf.open(self.scenario.identities, self.entropy))
        if scenario.identities.origin is not Origin.FILES:  # files that may be read-only
            ends.enter_context(shelf.hold_lock())
        preparing = Provisioner(scenario, target, shelf, self.clock, self.entropy, self.progress)
        with self._account() as account:
            made = await preparing.run(dialer, account)
        return RunSetup(
            scenario=scenario,
            target=target,
            dialer=dialer,
            shelf=shelf,
            made=made,
            ca=ca_file(scenario.identities) if scenario.identities.origin is Origin.CA else None,
            on_record=await self._put_on_record(scenario, dialer, shelf),
        )

    async def _check_reachable(self, dialer: Dialer) -> None:
        """Raise an error of `birthmark.device_transports` if no trusted server answers.

        The error is `LinkUnreachableError` or another one.
        """
        host, port = self.target.host, self.target.mqtt_port
        (await dialer.open(host, port, None)).close()

    @contextlib.contextmanager
    def _account(self) -> Any:
        identities = self.scenario.identities
        if identities.origin is not Origin.EST:
            yield None
        elif identities.est_user is not None and identities.est_password_file is not None:
            password = Pin.from_file(identities.est_password_file)
            password.check_blanks()
            yield EstAccount(identities.est_user, password.reveal())
        elif self.scenario.wish.where.is_local:
            from birthmark.swarm.local_server_registration import create_temporary_account

            with create_temporary_account(self.data, self.entropy) as account:
                yield account
        else:
            yield None

    async def _put_on_record(self, scenario: Scenario, dialer: Dialer, shelf: IdentityDirectory) -> str:
        """Register the devices at a local server, and revoke those that it must reject."""
        where, origin = scenario.wish.where, scenario.identities.origin
        if not where.is_local or origin is Origin.FILES:
            return ""
        from birthmark.swarm.local_server_registration import put_on_record, revoke

        revoked = those_with(scenario, Fault.REVOKED)
        shelf.note_revoked(revoked)
        for name in revoked:
            with contextlib.suppress(ConflictError):  # revoked earlier
                revoke(self.data, shelf.leaf_of(name))
        if where.is_aws:
            from birthmark.swarm.local_server_registration import put_things_on_record

            over = those_with(scenario, Fault.EXPIRED)  # these cannot register
            return put_things_on_record(self.data, [one for one in names_of(scenario) if one not in over], shelf)
        return put_on_record(self.data, await self._ca(dialer))

    async def _ca(self, dialer: Dialer) -> Certificate:
        """Return the CA certificate to which all device certificates chain."""
        if self.scenario.identities.origin is Origin.CA:
            return CaFactory.of(self.scenario.identities, self.entropy, self.clock.now()).issuer.certificate
        found = await EstClient(self.target.est_url, SwarmHttps(dialer, None)).cacerts()
        return next(one for one in found if one.is_ca and one.is_self_signed)


def tagged(scenario: Scenario, tag: str) -> Scenario:
    """Add the tag of the key directory to device names that the scenario does not set."""
    if not tag:
        return scenario
    groups = (replace(one, device=one.device or f"{one.name}-{tag}-{{n}}") for one in scenario.groups)
    return replace(scenario, groups=tuple(groups))
