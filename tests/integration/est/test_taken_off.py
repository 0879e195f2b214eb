"""Who was taken off the record gets no certificate, also where a CA elsewhere was about to sign it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark.ca.service import CertificateAuthority
from birthmark.est import wire
from birthmark.est.service import EstCredentials, RegistrationAuthorities, TokenIssuer
from birthmark.est.service.registration_authorities import AuthorityUnknownError
from birthmark.pki.certificate_profiles import DEVICE, CertificateProfile
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.extension_parser import CMC_RA
from birthmark.pki.issuance import issue, new_serial
from birthmark.refusals.queries import refusals_about
from support.fakes import SeededEntropy
from support.pki.est_server import EstServer, an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device
from support.server.asgi import Answer

pytestmark = pytest.mark.anyio
ACTOR = "operator:test"
CLIENT_AND_RA = (ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier(CMC_RA))


@dataclass
class Elsewhere:
    """A CA elsewhere, while whose work something else happens here."""

    ca: CertificateAuthority
    meanwhile: Callable[[], Awaitable[object]]

    def certificates(self) -> tuple[Certificate, ...]:
        return self.ca.hierarchy.above(self.ca.issuer_for(DEVICE))

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        await self.meanwhile()
        issuer, serial = self.ca.issuer_for(profile), new_serial(self.ca.entropy)
        now = self.ca.clock.now()
        return issue(profile, subject, request.public_key, issuer=issuer, serial=serial, now=now, lifetime=lifetime)


@pytest.fixture(params=["sqlite", "postgresql"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EstServer]:
    database = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    async with an_est_server(tmp_path, database=database) as made:
        yield made


def credentials(server: EstServer) -> EstCredentials:
    return EstCredentials(server.ca.database, server.clock, SeededEntropy(7))


async def enroll(
    server: EstServer, meanwhile: Callable[[], Awaitable[object]], leaf: Certificate | None = None, **options: object
) -> Answer:
    """Ask for a certificate of device-1, which a CA elsewhere signs."""
    server.ca.upstream = Elsewhere(server.ca, meanwhile)
    shows = {} if leaf is None else {"headers": {}, "peer": shown(leaf)}
    answer = await server.post("simpleenroll", a_csr("device-1"), **{**shows, **options})  # type: ignore[arg-type]  # options of a request
    await server.ledger.wait_until_written()
    return answer


async def refused(server: EstServer, answer: Answer, status: int, code: str) -> None:
    assert (answer.status, [one.code for one in await refusals_about(server.ca.database, None)]) == (status, [code])
    assert await server.ca.of_name("device-1") == []


async def nothing() -> None: ...


async def test_a_user_that_was_removed(server: EstServer) -> None:
    known = credentials(server)
    answer = await enroll(server, lambda: known.remove_user("factory", actor=ACTOR))
    await refused(server, answer, 401, "est.password_wrong")


async def test_a_user_that_has_another_password(server: EstServer) -> None:
    known = credentials(server)

    async def exchange() -> None:
        await known.remove_user("factory", actor=ACTOR)
        await known.add_user("factory", "another", device_id=None, actor=ACTOR)

    await refused(server, await enroll(server, exchange), 401, "est.password_wrong")


async def test_a_token_that_was_removed(server: EstServer) -> None:
    known = credentials(server)
    tokens = TokenIssuer(server.ca.database, server.clock, SeededEntropy(8))
    user, password = await tokens.add("device-1", timedelta(hours=1), actor=ACTOR)
    basic = {"Authorization": wire.render_basic(user.name, password)}
    answer = await enroll(server, lambda: known.remove_user(user.name, actor=ACTOR), headers=basic)
    await refused(server, answer, 401, "est.password_wrong")


async def a_makers_device(server: EstServer, *, any_name: bool) -> tuple[Certificate, Certificate]:
    """Return the CA of a maker, which is accepted, and what a device of it shows."""
    maker = a_ca("Maker")
    await credentials(server).accept_ca(maker.certificate, any_name=any_name, actor=ACTOR)
    return maker.certificate, a_device(maker, "chip-1" if any_name else "device-1").certificate


async def test_a_device_whose_maker_is_accepted_no_more(server: EstServer) -> None:
    maker, leaf = await a_makers_device(server, any_name=False)
    known = credentials(server)
    answer = await enroll(server, lambda: known.remove_ca(maker.thumbprint, actor=ACTOR), leaf)
    await refused(server, answer, 401, "est.client_certificate_unknown")


async def test_a_device_whose_maker_is_accepted_for_its_own_name_alone(server: EstServer) -> None:
    maker, leaf = await a_makers_device(server, any_name=True)
    known = credentials(server)
    answer = await enroll(server, lambda: known.accept_ca(maker, any_name=False, actor=ACTOR), leaf)
    await refused(server, answer, 401, "est.client_certificate_unknown")


async def an_authority(server: EstServer) -> tuple[RegistrationAuthorities, Certificate]:
    purposes = replace(DEVICE, extended_key_usage=CLIENT_AND_RA)
    leaf = a_device(a_ca("Elsewhere"), "ra-1", profile=purposes).certificate
    known = RegistrationAuthorities(server.ca.database, server.clock)
    await known.add(leaf, "*", actor=ACTOR)
    return known, leaf


async def test_an_authority_that_was_removed(server: EstServer) -> None:
    known, leaf = await an_authority(server)
    answer = await enroll(server, lambda: known.remove(leaf.thumbprint, actor=ACTOR), leaf)
    await refused(server, answer, 401, "est.client_certificate_unknown")


async def test_an_authority_is_taken_off_with_each_of_its_certificates(server: EstServer) -> None:
    """One that renewed is on the list twice until the earlier one ends."""
    ca, purposes = a_ca("Elsewhere"), replace(DEVICE, extended_key_usage=CLIENT_AND_RA)
    earlier, later = (a_device(ca, "ra-1", profile=purposes).certificate for _ in range(2))
    other = a_device(ca, "ra-2", profile=purposes).certificate
    known = RegistrationAuthorities(server.ca.database, server.clock)
    for one in (earlier, later, other):
        await known.add(one, "*", actor=ACTOR)
    await known.remove(later.thumbprint, actor=ACTOR)
    assert [one.certificate for one in await known.all()] == [other]
    with pytest.raises(AuthorityUnknownError):
        await known.remove(earlier.thumbprint, actor=ACTOR)


async def test_an_authority_that_may_ask_for_other_names_only(server: EstServer) -> None:
    known, leaf = await an_authority(server)
    answer = await enroll(server, lambda: known.add(leaf, "line7-*", actor=ACTOR), leaf)
    await refused(server, answer, 401, "est.client_certificate_unknown")


@pytest.mark.parametrize("how", ["user", "maker", "authority"])
async def test_whoever_is_on_record_as_before_gets_it(server: EstServer, how: str) -> None:
    leaf = None
    if how == "maker":
        _, leaf = await a_makers_device(server, any_name=True)
    elif how == "authority":
        _, leaf = await an_authority(server)
    assert (await enroll(server, nothing, leaf)).status == 200
