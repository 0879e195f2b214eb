"""Issuing and revoking, on a database in a file: what counts is what is on record."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.revocation import AlreadyRevokedError, CertificateUnknownError
from birthmark.ca.rules.certificate_name_policy import NamesRefusedError
from birthmark.ca.rules.issuance_eligibility import KeyTakenError, NameLostError
from birthmark.pki.certificate_profiles import DEVICE, SERVER, CertificateProfile
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import CertificateRequest, parse_csr
from birthmark.pki.issuance import issue
from birthmark.pki.path_validation import build_chain
from support.fakes import NOON, FakeClock
from support.pki.ca_world import OPERATOR, USER, an_authority, of
from support.pki.pki_builders import a_ca, a_csr, a_key


async def test_what_is_issued_leads_to_the_root_and_is_on_record_first(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        chain = await ca.issue(parse_csr(a_csr("device-1")), OPERATOR)
        assert build_chain(chain[0], chain[1:], ca.hierarchy.anchors, NOON) == chain
        known = await ca.find(chain[0].thumbprint)
        assert known is not None
        assert (known.device_id, known.requested_by, known.is_revoked) == ("device-1", "operator:test", False)
        assert [event["kind"] for event in await ca.database.events_after(0, 10)] == ["ca.certificate_issued"]
        assert await ca.search("device-1") == await ca.search(chain[0].thumbprint.hex(":")) == [known]
        assert await ca.search(f"{chain[0].serial:X}") == [known]


async def test_a_key_of_one_device_is_refused_to_another(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        key = a_key()
        await ca.issue(parse_csr(a_csr("device-1", key=key)), OPERATOR)
        await ca.issue(parse_csr(a_csr("device-1", key=key)), OPERATOR)
        with pytest.raises(KeyTakenError):
            await ca.issue(parse_csr(a_csr("device-2", key=key)), OPERATOR)
        assert len(await ca.latest()) == 2


async def test_the_lifetime_is_a_setting(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        ca.lifetimes["device"] = timedelta(seconds=20)
        chain = await ca.issue(parse_csr(a_csr()), OPERATOR)
        assert chain[0].not_after == NOON + timedelta(seconds=20)


async def test_a_revoked_certificate_is_on_the_list_at_once(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(parse_csr(a_csr()), OPERATOR)
        before = x509.load_der_x509_crl(await ca.crl())
        assert len(before) == 0
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
        after = x509.load_der_x509_crl(await ca.crl())
        assert after.get_revoked_certificate_by_serial_number(leaf.serial) is not None
        numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (before, after)]
        assert numbers == [1, 2]
        known = await ca.find(leaf.thumbprint)
        assert known is not None
        assert known.revocation_reason is RevocationReason.KEY_COMPROMISE
        with pytest.raises(AlreadyRevokedError):
            await ca.revocations.certificate(leaf.thumbprint, OPERATOR)


async def test_a_stranger_cannot_be_revoked(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        with pytest.raises(CertificateUnknownError):
            await ca.revocations.certificate(Thumbprint(bytes(32)), OPERATOR)


async def test_a_revocation_list_is_kept_until_half_of_its_life(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        first = await ca.crl()
        assert await ca.crl() == first
        assert isinstance(ca.clock, FakeClock)
        ca.clock.move(timedelta(days=4))
        assert await ca.crl() != first


class Elsewhere:
    """A CA elsewhere that signs whatever it is asked for, and keeps for whom."""

    def __init__(self) -> None:
        self.root = a_ca("Elsewhere")
        self.asked: list[x509.Name] = []

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        self.asked.append(subject)
        key, serial = request.public_key, 1000 + len(self.asked)
        given: dict[str, Any] = {"issuer": self.root.as_issuer, "serial": serial, "now": NOON, "lifetime": lifetime}
        rules = SERVER if request.names else profile  # its own, by which every name is taken over
        return issue(rules, subject, key, **given, san=request.names)

    def certificates(self) -> tuple[Certificate, ...]:
        return (self.root.certificate,)


async def test_a_ca_elsewhere_signs_in_the_place_of_ours_and_what_it_signed_is_on_record_here(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        ca.upstream = elsewhere = Elsewhere()
        chain = await ca.issue(parse_csr(a_csr("device-1")), OPERATOR)
        assert chain[1:] == ca.certificates_for(DEVICE) == elsewhere.certificates()
        known = await ca.find(chain[0].thumbprint)
        assert known is not None
        assert known.device_id == "device-1"


async def test_certificates_of_servers_are_signed_here_whoever_signs_elsewhere(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        ca.upstream = elsewhere = Elsewhere()
        host = x509.DNSName("door.test")
        leaf, *above = await ca.issue(parse_csr(a_csr("door.test")), OPERATOR, SERVER, san=[host])
        assert elsewhere.asked == []
        assert tuple(above) == ca.certificates_for(SERVER)
        assert build_chain(leaf, above, ca.hierarchy.anchors, NOON)


async def test_a_key_that_is_taken_is_refused_before_a_ca_elsewhere_is_asked(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        ca.upstream = elsewhere = Elsewhere()
        key = a_key()
        await ca.issue(parse_csr(a_csr("device-1", key=key)), OPERATOR)
        with pytest.raises(KeyTakenError):
            await ca.issue(parse_csr(a_csr("device-2", key=key)), OPERATOR)
        assert len(elsewhere.asked) == 1


async def test_a_name_that_was_asked_for_and_not_granted_is_not_taken_from_a_ca_elsewhere(tmp_path: Path) -> None:
    asked = x509.SubjectAlternativeName([x509.DNSName("asked.test")])
    async with an_authority(tmp_path) as ca:
        ca.upstream = Elsewhere()
        request = parse_csr(a_csr("device-1", extensions=((asked, False),)))
        with pytest.raises(NamesRefusedError) as refused:
            await ca.issue(request, OPERATOR, san=[x509.DNSName("granted.test")])
        assert "asked.test" in refused.value.explain_cause()
        assert await ca.latest() == []


async def test_a_name_that_was_lost_gets_no_certificate_until_it_is_let_go(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        await ca.issue(parse_csr(a_csr("pump")), OPERATOR)
        await ca.revocations.lose("PUMP", OPERATOR, RevocationReason.KEY_COMPROMISE)
        with pytest.raises(NameLostError):
            await ca.issue(parse_csr(a_csr("Pump")), USER)


async def test_what_was_only_replaced_is_no_revocation_of_the_name(tmp_path: Path) -> None:
    clock = FakeClock()
    async with an_authority(tmp_path, clock=clock) as ca:
        first, *_ = await ca.issue(parse_csr(a_csr("pump")), OPERATOR)
        clock.move(timedelta(hours=1))
        await ca.revocations.certificate(first.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
        assert not await ca.is_revoked_since("pump", NOON)
        second, *_ = await ca.issue(parse_csr(a_csr("pump")), OPERATOR)
        clock.move(timedelta(hours=1))
        await ca.revocations.certificate(second.thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
        assert await ca.is_revoked_since("PUMP", NOON)
        assert not await ca.is_revoked_since("pump", clock.now() + timedelta(seconds=1))


async def test_a_renewed_certificate_counts_as_used_when_its_device_registered_with_it(tmp_path: Path) -> None:
    clock = FakeClock()
    async with an_authority(tmp_path, clock=clock) as ca:
        first, *_ = await ca.issue(parse_csr(a_csr("pump")), of("pump"))
        clock.move(timedelta(hours=1))
        holder = Principal(PrincipalKind.DEVICE, "pump", "pump", first.thumbprint)
        second, *_ = await ca.issue(parse_csr(a_csr("pump")), holder)
        held = await ca.find(first.thumbprint)
        assert held is not None
        assert (await ca.newer(held, ()))[0] == [], "its answer may be lost"
        await ca.database.commit(ca.registration_changes(second, clock.now()))
        assert [one.certificate for one in (await ca.newer(held, ()))[0]] == [second]
