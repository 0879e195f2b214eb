"""An EST server for tests: routes on a fresh CA and database, no socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from birthmark.auth.password_digests import PasswordCheck
from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import ca_directory
from birthmark.ca.service import CertificateAuthority
from birthmark.est import wire
from birthmark.est.http import routes
from birthmark.est.model import EstSettings
from birthmark.est.service import EstCredentials, EstService
from birthmark.pki.certificates import Certificate
from birthmark.refusals import Ledger
from birthmark.store import open_database
from support.fakes import NOON, FakeClock, SeededEntropy
from support.server.asgi import Answer, FakePeer, request

OPERATOR = Principal(PrincipalKind.OPERATOR, "test")
BASIC = {"Authorization": wire.render_basic("factory", "secret")}
PKCS10 = {"Content-Type": "application/pkcs10"}


@dataclass
class EstServer:
    app: Starlette
    ca: CertificateAuthority
    service: EstService
    ledger: Ledger
    clock: FakeClock

    async def get(self, operation: str, **options: Any) -> Answer:
        return await request(self.app, "GET", f"/.well-known/est/{operation}", **options)

    async def post(
        self, operation: str, csr: bytes, *, headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        wanted = {**PKCS10, **(BASIC if headers is None else headers)}
        path = f"/.well-known/est/{operation}"
        return await request(self.app, "POST", path, headers=wanted, body=wire.render_csr(csr), **options)

    async def issued(self, csr: bytes, **options: Any) -> Certificate:
        answer = await self.post("simpleenroll", csr, **options)
        assert answer.status == 200, answer.text
        (certificate,) = wire.parse_certs_only(answer.body)
        return certificate


@asynccontextmanager
async def an_est_server(
    directory: Path, settings: EstSettings | None = None, now: datetime = NOON, *, database: str | None = None
) -> AsyncIterator[EstServer]:
    clock, entropy = FakeClock(now), SeededEntropy()
    made = ca_directory.create(directory / "ca", "Test", now=now, entropy=entropy)
    opened = await open_database(database or f"sqlite:///{directory}/x.db", clock)
    try:
        await EstCredentials(opened, clock, entropy).add_user(
            "factory", "secret", device_id=None, actor="operator:local"
        )
        ca = CertificateAuthority(made, opened, clock, entropy)
        service = EstService(ca, PasswordCheck(entropy), settings or EstSettings())
        ledger = Ledger(opened, clock, entropy)
        yield EstServer(Starlette(routes=routes(service, ledger)), ca, service, ledger, clock)
        await ledger.wait_until_written()
    finally:
        await opened.close()


def shown(*certificates: Certificate, **options: Any) -> FakePeer:
    """A peer that showed these, leaf first."""
    return FakePeer(certificates[0], certificates[1:], **options)
