"""DPS, a hub and a CA that issues by the policies of enrollments, on a real database and without a socket."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.ca import ca_directory
from birthmark.ca.cloud_device_issuance import Also, CertificateOrder, CertificateOrders
from birthmark.ca.service import CertificateAuthority
from birthmark.dps.model import Claim, Registration
from birthmark.iothub import wire
from birthmark.iothub.model import Device, Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.certificate_renewal import AcceptedIssuance
from birthmark.late_reference import Ref
from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.csr import parse_csr
from birthmark.store import Database
from support.azure.dps_world import DpsWorld, a_dps, an_individual
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.pki_builders import Holder, a_csr, a_device


@dataclass(frozen=True)
class Slow(CertificateOrders):
    """A CA that signs when it is told to."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self) -> None:
        """Sign nothing, until it is told to."""
        self.go.clear()
        self.asked.clear()

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        self.asked.set()
        await self.go.wait()
        return await super().issue(order, also)


@dataclass
class IssuingWorld:
    """What there is, and a device that may be issued certificates."""

    dps: DpsWorld
    iothub: IotHub
    authority: CertificateAuthority
    issuer: Slow
    born: Holder

    @property
    def hub(self) -> Hub:
        return self.dps.hub

    async def register(self, key: ec.EllipticCurvePrivateKey | None, name: str = "device-1") -> Registration:
        csr = None if key is None else parse_csr(a_csr(name, key=key))
        claim = Claim(self.dps.instance.id_scope, name, self.born.certificate, (), None, csr=csr)
        return await self.dps.registrations.register(claim)

    async def issued(self, key: ec.EllipticCurvePrivateKey) -> Certificate:
        """Register with a request, and return the certificate."""
        return leaf_of((await self.register(key)).issued_chain)

    async def device(self) -> Device:
        return await self.iothub.registry.device(self.hub, "device-1")

    async def slots(self) -> tuple[bytes | None, bytes | None]:
        authentication = (await self.device()).authentication
        return authentication.primary_thumbprint, authentication.secondary_thumbprint

    async def accept(
        self, leaf: Certificate, key: ec.EllipticCurvePrivateKey, *, session: str = "s", **more: Any
    ) -> AcceptedIssuance:
        asked = wire.CredentialRequest("device-1", parse_csr(a_csr("device-1", key=key)), more.get("replaces"))
        device = more.get("device") or await self.device()
        return await self.iothub.credentials.accept(
            self.hub, device, leaf, asked, request_id=more.get("rid", "7"), session=session
        )

    async def issue(self, leaf: Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
        return leaf_of(await self.iothub.credentials.finish(await self.accept(leaf, key)))


def leaf_of(chain: Sequence[str] | None) -> Certificate:
    assert chain
    return parse_der(base64.b64decode(chain[0]))


@contextlib.asynccontextmanager
async def an_issuing_world(
    directory: Path, url: str, has_room: Callable[[str, float], bool] = lambda _registration_actor, _now: True
) -> AsyncIterator[IssuingWorld]:
    """Enroll a device by the certificate that it was born with, whose enrollment has the policy `device`."""
    known: Ref[Slow] = Ref()

    def issuing(database: Database, clock: FakeClock) -> Slow:
        made = ca_directory.create(directory / "ca", "Test", now=NOON, entropy=SeededEntropy(3))
        return known.fill(Slow(CertificateAuthority(made, database, clock, SeededEntropy(4)), has_room=has_room))

    async with a_dps(url, issuing) as dps:
        issuer = known()
        issuer.go.set()
        born = a_device(common_name="device-1", lifetime=timedelta(days=30))
        await dps.enrollments.put(dps.instance, with_policy(an_individual("device-1", born)), None, actor="test")
        yield IssuingWorld(dps, dps.iothub, issuer.authority, issuer, born)


def with_policy(document: Any, policy: str | None = "device") -> Any:
    return msgspec.structs.replace(document, credential_policy_name=policy)


__all__ = ["IssuingWorld", "an_issuing_world", "leaf_of", "with_policy"]
