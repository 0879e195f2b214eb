"""Issuing and revoking, on a database in a file: what counts is what is on record."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.ca.revocation import AlreadyRevokedError, CertificateUnknownError
from birthmark.ca.rules.issuance import KeyTakenError
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.chains import build_chain
from birthmark.pki.crl import RevocationReason
from birthmark.pki.csr import parse_csr
from ca_world import OPERATOR, an_authority
from fakes import NOON, FakeClock
from pki_builders import a_csr, a_key


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
