"""Who holds a name and a key, and what a revocation takes with it, on each real engine."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import bindparam

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import revocation, store
from birthmark.ca.revocation import CertificateRevokedError, DeviceNotAliveError, IssuerRevokedError, digest_of
from birthmark.ca.rules.issuance_eligibility import KeyRevokedError, KeyTakenError, NameHeldError, TooManyAliveError
from birthmark.ca.service import NameNotHeldError
from birthmark.pki.certificate_profiles import DEVICE, EDGE_CA
from birthmark.pki.certificates import Certificate
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import LeafIssuer, issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.path_validation import TooMuchWorkError
from birthmark.store import Changes
from birthmark.store.table_statements import find
from support.fakes import NOON, FakeClock
from support.pki.ca_world import OPERATOR, USER, an_authority, of
from support.pki.other_form import other_form
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key

pytestmark = pytest.mark.integration
KEY = a_key()


async def test_of_many_who_claim_a_name_by_password_at_once_exactly_one_gets_it(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        requests = [parse_csr(a_csr("gateway", key=a_key())) for _ in range(8)]
        outcomes = await asyncio.gather(*(ca.issue(r, USER) for r in requests), return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, NameHeldError) for outcome in outcomes) == 7


async def test_of_two_names_that_ask_with_one_key_at_once_exactly_one_gets_it(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        key = a_key()
        requests = [parse_csr(a_csr(name, key=key)) for name in ("left", "right")]
        outcomes = await asyncio.gather(*(ca.issue(r, USER) for r in requests), return_exceptions=True)
        assert [type(o) for o in outcomes if isinstance(o, BaseException)] == [KeyTakenError]
        assert len(await ca.latest()) == 1


async def test_of_many_who_ask_at_once_for_one_name_no_more_get_a_certificate_than_may_be_alive(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        asked = [ca.issue(parse_csr(a_csr("edge", key=KEY)), of("edge"), most_alive=2) for _ in range(4)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in outcomes if isinstance(one, Exception)] == [TooManyAliveError] * 2
        (first, *_) = await ca.of_name("edge")
        await ca.revocations.certificate(first.certificate.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
        assert await ca.issue(parse_csr(a_csr("edge", key=KEY)), of("edge"), most_alive=2)


async def test_a_name_in_other_letters_is_the_same_name(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        await ca.issue(parse_csr(a_csr("gateway-x")), USER)
        with pytest.raises(NameHeldError):
            await ca.issue(parse_csr(a_csr("GATEWAY-X", key=a_key())), USER)


async def test_a_name_is_free_again_when_its_certificate_has_ended(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        await ca.issue(parse_csr(a_csr("gateway")), USER)
        assert isinstance(ca.clock, FakeClock)
        ca.clock.move(timedelta(days=2))
        assert await ca.issue(parse_csr(a_csr("gateway", key=a_key())), USER)


async def test_a_released_name_is_held_again_by_who_takes_it(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        leaf, *_ = await ca.issue(parse_csr(a_csr("gateway")), USER)
        assert await ca.release("Gateway", OPERATOR) == [leaf.thumbprint.hex()]
        await ca.issue(parse_csr(a_csr("gateway", key=a_key())), USER)
        with pytest.raises(NameHeldError):
            await ca.issue(parse_csr(a_csr("gateway", key=a_key())), USER)
        with pytest.raises(NameNotHeldError):
            await ca.release("nobody", OPERATOR)


async def test_who_proves_the_name_may_hold_several_keys(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        leaf, *_ = await ca.issue(parse_csr(a_csr("edge")), USER)
        device = Principal(PrincipalKind.DEVICE, "edge", "edge", leaf.thumbprint)
        assert await ca.issue(parse_csr(a_csr("edge", key=a_key())), device)
        assert await ca.issue(parse_csr(a_csr("edge", key=a_key())), of("edge"))


async def test_a_revoked_key_stays_revoked_for_every_name_and_every_proof(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        key = a_key()
        leaf, *_ = await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))
        sibling, *_ = await ca.issue(parse_csr(a_csr("edge", key=a_key())), of("edge"))
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
        by_sibling = Principal(PrincipalKind.DEVICE, "edge", "edge", sibling.thumbprint)
        for principal, name in ((of("edge"), "edge"), (by_sibling, "edge"), (OPERATOR, "edge")):
            with pytest.raises(KeyRevokedError):
                await ca.issue(parse_csr(a_csr(name, key=key)), principal)


async def test_other_certificates_of_a_revoked_key_go_with_it(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        key = a_key()
        first, *_ = await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))
        second, *_ = await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))
        revoked = await ca.revocations.certificate(second.thumbprint, OPERATOR)
        assert {one.certificate.thumbprint for one in revoked} == {first.thumbprint, second.thumbprint}
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(first)


async def test_a_superseded_certificate_leaves_its_key_and_its_siblings_good(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        key = a_key()
        first, *_ = await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))
        second, *_ = await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))
        await ca.revocations.certificate(first.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
        await ca.revocations.check(second)
        assert await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge"))


async def test_revoking_a_device_takes_all_that_lives_of_it_in_any_spelling(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        leaves = [(await ca.issue(parse_csr(a_csr("edge", key=a_key())), of("edge")))[0] for _ in range(3)]
        revoked, _ = await ca.revocations.device("EDGE", OPERATOR, RevocationReason.UNSPECIFIED)
        assert {one.certificate for one in revoked} == set(leaves)
        with pytest.raises(DeviceNotAliveError):
            await ca.revocations.device("edge", OPERATOR, RevocationReason.UNSPECIFIED)


async def test_an_empty_name_is_no_ca_and_no_server(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        await ca.issue(parse_csr(a_csr("edge", key=a_key())), of("edge"))
        assert [*await ca.search(""), *await ca.of_name(""), *await ca.revocations.alive("")] == []
        with pytest.raises(DeviceNotAliveError):
            await ca.revocations.device("", OPERATOR, RevocationReason.UNSPECIFIED)


async def test_a_certificate_that_is_taken_back_while_it_renews_gets_no_successor(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        leaf, *_ = await ca.issue(parse_csr(a_csr("edge")), of("edge"))
        device = Principal(PrincipalKind.DEVICE, "edge", "edge", leaf.thumbprint)
        renewals = [ca.issue(parse_csr(a_csr("edge", key=a_key())), device) for _ in range(4)]
        revocation = ca.revocations.device("edge", OPERATOR, RevocationReason.UNSPECIFIED)
        outcomes = await asyncio.gather(*renewals[:2], revocation, *renewals[2:], return_exceptions=True)
        assert not isinstance(outcomes[2], BaseException)
        for outcome in (*outcomes[:2], *outcomes[3:]):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, CertificateRevokedError), outcome
            else:  # it was first: then the revocation took it too
                renewed = outcome[0]
                assert isinstance(renewed, Certificate)
                with pytest.raises(CertificateRevokedError):
                    await ca.revocations.check(renewed)


async def test_a_revoked_ca_takes_everything_below_it_also_when_it_was_not_sent(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        key, device_key = a_key(), a_key()
        asking = a_csr("edge-ca", key=key, extensions=((x509.BasicConstraints(ca=True, path_length=0), True),))
        below, *_ = await ca.issue(parse_csr(asking), OPERATOR, EDGE_CA)
        leaf = issue(
            DEVICE,
            name_of("module-1"),
            device_key.public_key(),
            issuer=LeafIssuer(below, key),
            serial=new_serial(ca.entropy),
            now=NOON,
        )
        await ca.revocations.check(leaf, (below,))
        await ca.revocations.certificate(below.thumbprint, OPERATOR)
        for bag in ((), (below,)):
            with pytest.raises(CertificateRevokedError) as refusal:
                await ca.revocations.check(leaf, bag)
        assert "edge-ca" in refusal.value.explain_cause()


async def test_the_key_of_a_foreign_certificate_can_be_taken_back(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        foreign = a_ca().certificate
        await ca.revocations.check(foreign)
        assert await ca.revocations.key(foreign, OPERATOR, RevocationReason.KEY_COMPROMISE) == ()
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(foreign)


async def test_a_foreign_ca_that_is_taken_back_takes_everything_below_it(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        root = a_ca("Maker root")
        below = a_ca("Maker line 1", parent=root)
        leaf, other = a_device(below).certificate, a_device(a_ca("Other")).certificate
        await ca.revocations.key(root.certificate, OPERATOR, RevocationReason.CA_COMPROMISE)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(leaf, (below.certificate,))
        await ca.revocations.check(other)

        async def on_record(subject: bytes) -> list[Certificate]:
            return [one.certificate for one in (below,) if one.certificate.subject_der == subject]

        ca.revocations.on_record = on_record
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(leaf)


async def test_a_decoy_of_a_ca_does_not_hide_the_revoked_ca_above_it(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        root = a_ca("Maker root")
        below = a_ca("Maker line 1", parent=root)
        decoy = a_ca("Maker line 1", parent=a_ca("Somebody else"), key=below.private_key)
        leaf = a_device(below).certificate
        await ca.revocations.key(root.certificate, OPERATOR, RevocationReason.CA_COMPROMISE)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(leaf, (decoy.certificate, below.certificate))


async def test_many_decoys_are_refused_before_they_cost_much(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        await ca.revocations.key(a_ca("Maker root").certificate, OPERATOR, RevocationReason.CA_COMPROMISE)
        decoys = tuple(a_ca("X").certificate for _ in range(32))
        with pytest.raises(TooMuchWorkError):
            await ca.revocations.check(a_device(a_ca("X")).certificate, decoys)


async def test_a_revoked_ca_key_is_known_under_another_name_too(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        maker = a_ca("Maker 2025")
        renamed = a_ca("Maker 2026", key=maker.private_key)
        leaf = a_device(renamed).certificate
        await ca.revocations.key(maker.certificate, OPERATOR, RevocationReason.CA_COMPROMISE)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(leaf, (renamed.certificate,))


async def test_a_superseded_ca_leaves_what_is_below_it_alone(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        maker = a_ca("Maker")
        await ca.revocations.key(maker.certificate, OPERATOR, RevocationReason.SUPERSEDED)
        await ca.revocations.check(a_device(maker).certificate)


@pytest.mark.parametrize("which", [0, 1], ids=["issuing", "root"])
async def test_a_server_whose_own_ca_is_taken_back_issues_nothing(
    database_url: str, tmp_path: Path, which: int
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        before, *_ = await ca.issue(parse_csr(a_csr("before", key=a_key())), USER)
        own = ca.hierarchy.certificates[which]
        await ca.revocations.key(own, OPERATOR, RevocationReason.CA_COMPROMISE)
        with pytest.raises(IssuerRevokedError):
            await ca.issue(parse_csr(a_csr("gateway", key=a_key())), USER)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(before)


async def test_what_a_device_of_another_ca_showed_is_taken_back_by_its_name(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        foreign, other = a_device(a_ca("Maker"), "pump-1").certificate, a_device(a_ca("Maker"), "pump-2").certificate
        shown = [foreign.thumbprint]
        revoked, others = await ca.revocations.device("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE, shown)
        assert (revoked, others) == ((), shown)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(foreign)
        await ca.revocations.check(other)
        with pytest.raises(DeviceNotAliveError):
            await ca.revocations.device("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE, shown)


async def test_more_cas_than_one_look_reads_are_all_taken_back(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        changes = Changes()
        for number in range(1000):
            row = store.revoked_ca_row(a_ca("Filler", key=KEY).certificate, number.to_bytes(32), 0)
            changes.run(store.ADD_REVOKED_CA, **row)
        await ca.database.commit(changes)
        maker = a_ca("Maker")
        await ca.revocations.key(maker.certificate, OPERATOR, RevocationReason.CA_COMPROMISE)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(a_device(maker).certificate)
        await ca.revocations.check(a_device(a_ca("Other")).certificate)


async def test_a_ca_that_an_earlier_version_took_back_stays_so(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        maker = a_ca("Maker")
        row = store.revoked_ca_row(maker.certificate, digest_of(maker.certificate), 0) | {"subject_digest": None}
        await ca.database.commit(Changes().run(store.ADD_REVOKED_CA, **row))
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(a_device(maker).certificate)


async def test_more_certificates_than_one_look_reads_are_all_revoked(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = (store.certificates.c.not_after > bindparam("after"), store.certificates.c.revoked_at.is_(None))
    for name, column in (("LIVE_OF_NAME", "name"), ("LIVE_OF_KEY", "key_digest")):
        monkeypatch.setattr(store, name, find(store.certificates, column, *live, limit=2))
    monkeypatch.setattr(revocation, "PAGE", 2)
    async with an_authority(tmp_path, database_url) as ca:
        keys = [a_key(), *[KEY] * 3, a_key()]
        leaves = [(await ca.issue(parse_csr(a_csr("edge", key=key)), of("edge")))[0] for key in keys]
        assert {one.certificate async for one in ca.revocations.each_alive("edge")} == set(leaves)
        revoked, _ = await ca.revocations.device("edge", OPERATOR, RevocationReason.UNSPECIFIED)
        assert {one.certificate for one in revoked} == set(leaves)


@pytest.mark.parametrize("reason", [RevocationReason.SUPERSEDED, RevocationReason.KEY_COMPROMISE])
async def test_a_revoked_certificate_is_known_in_the_other_form_of_its_signature(
    database_url: str, tmp_path: Path, reason: RevocationReason
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        issuer = ca.hierarchy.issuing
        leaf, *_ = await ca.issue(parse_csr(a_csr("edge")), of("edge"))
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR, reason)
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(other_form(leaf, issuer.private_key))
        issued, _ = await ca.presented(other_form(leaf, issuer.private_key)) or (None, None)
        assert issued is not None
        assert issued.is_revoked


async def test_a_foreign_certificate_that_was_taken_back_is_known_in_its_other_form(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        maker = a_ca("Maker")
        foreign = a_device(maker, "pump-1").certificate
        await ca.revocations.device("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE, [foreign.thumbprint])
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(other_form(foreign, maker.private_key))


async def test_a_devices_own_ca_is_known_whatever_its_thumbprint_and_what_is_on_record(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        asking = a_csr("gateway", extensions=((x509.BasicConstraints(ca=True, path_length=0), True),))
        own, signer, *_ = await ca.issue(parse_csr(asking), of("gateway"), EDGE_CA)
        issuer = next(one for one in ca.hierarchy.issuers.values() if one.certificate == signer)
        unrecorded = issue(
            EDGE_CA, name_of("x"), KEY.public_key(), issuer=issuer, serial=new_serial(ca.entropy), now=NOON
        )
        for one in (own, other_form(own, issuer.private_key), unrecorded):
            assert await ca.is_devices_own(one)
        for one in (*ca.hierarchy.certificates, a_ca("Maker").certificate):
            assert not await ca.is_devices_own(one)
