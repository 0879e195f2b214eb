"""OCSP: what is said of what is on record, kept while it holds, and how often a stranger makes us sign."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from birthmark.ca import ocsp_responder as answers_module
from birthmark.ca.ocsp_responder import LIFETIME, OcspResponder
from birthmark.ca.server_certificates import issue_server
from birthmark.errors import UnavailableError
from birthmark.pki.certificate_profiles import EST_IDENTITY, SERVER
from birthmark.pki.certificates import Certificate, is_signed_by, parse_der
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import parse_csr
from birthmark.pki.ocsp import (
    CertId,
    OcspMalformedError,
    OcspRequest,
    OcspResponse,
    UnsignedStatus,
    ids_of,
    parse_request,
)
from support.fakes import FakeClock
from support.pki.ca_world import OPERATOR, an_authority, of
from support.pki.ocsp_requests import a_request, together
from support.pki.pki_builders import a_ca, a_csr, a_key
from support.store.between import leave_the_next_commit_open

NOBODY = "192.0.2.1"


@contextlib.asynccontextmanager
async def responders(path: Path, may_sign: Callable[[str], bool] = lambda _: True) -> AsyncIterator[OcspResponder]:
    async with an_authority(path, clock=FakeClock()) as ca:
        yield OcspResponder(ca, may_sign)


async def issued(answers: OcspResponder, name: str = "device-1") -> Certificate:
    return (await answers.ca.issue(parse_csr(a_csr(name)), OPERATOR))[0]


async def said(answers: OcspResponder, der: bytes, address: str = NOBODY) -> ocsp.OCSPResponse:
    answer = await answers.answer(der, address)
    assert isinstance(answer, OcspResponse)
    return ocsp.load_der_ocsp_response(answer.der)


def about(answers: OcspResponder, certificate: Certificate | int, **options: object) -> bytes:
    return a_request(certificate, answers.ca.hierarchy.issuing.certificate, **options)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])
async def test_what_was_issued_is_good_by_a_responder_of_its_own_ca(tmp_path: Path, algorithm: hashes.SHA1) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers)
        response = await said(answers, about(answers, leaf, algorithm=algorithm))
        assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert (response.serial_number, response.hash_algorithm.name) == (leaf.serial, algorithm.name)
        responder = parse_der(response.certificates[0].public_bytes(Encoding.DER))
        assert is_signed_by(responder, answers.ca.hierarchy.issuing.certificate)
        assert x509.OCSPNoCheck in [type(one.value) for one in responder.parsed.extensions]
        assert response.responder_key_hash == responder.extensions.subject_key_id
        key = responder.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
        assert await answers.ca.find(responder.thumbprint) is not None


async def test_a_revocation_is_said_at_once_with_its_time_and_reason(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers)
        assert (await said(answers, about(answers, leaf))).certificate_status is ocsp.OCSPCertStatus.GOOD
        await answers.ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
        response = await said(answers, about(answers, leaf))
        assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
        assert response.revocation_reason is x509.ReasonFlags.key_compromise
        assert response.revocation_time_utc == answers.ca.clock.now()


async def test_what_was_never_issued_is_unknown_and_never_kept(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        for serial in range(1, 20):
            response = await said(answers, about(answers, serial))
            assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
        assert len(answers) == 0


async def test_of_cas_that_are_not_ours_nothing_is_said(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        other = a_ca("Somebody else")
        assert await answers.answer(a_request(5, other.certificate), NOBODY) is UnsignedStatus.UNAUTHORIZED
        mixed = together([a_request(5, other.certificate), about(answers, 5)])
        assert await answers.answer(mixed, NOBODY) is UnsignedStatus.UNAUTHORIZED


async def test_each_ca_has_its_responder_and_the_root_speaks_for_the_cas(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf, above, root = await answers.ca.issue(parse_csr(a_csr("est-1")), OPERATOR, EST_IDENTITY)
        for certificate, issuer in ((leaf, above), (above, root), (answers.ca.hierarchy.issuing.certificate, root)):
            if issuer is root:
                await answers.ca.note_issuers()
            response = await said(answers, a_request(certificate, issuer))
            assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
            responder = parse_der(response.certificates[0].public_bytes(Encoding.DER))
            assert is_signed_by(responder, issuer)


async def test_a_ca_of_ours_that_was_taken_back_is_revoked_at_its_root(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        ca = answers.ca
        await ca.note_issuers()
        issuing, root = ca.hierarchy.issuing.certificate, ca.hierarchy.root
        await ca.revocations.key(issuing, OPERATOR, RevocationReason.CA_COMPROMISE)
        response = await said(answers, a_request(issuing, root.certificate))
        assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
        listed = x509.load_der_x509_crl(await ca.crl(root))
        assert listed.get_revoked_certificate_by_serial_number(issuing.serial) is not None


async def test_our_own_server_is_known(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        root = answers.ca.hierarchy.root
        leaf = issue_server(root, ["localhost"], a_key().public_key(), serial=7, now=answers.ca.clock.now())
        for _ in range(2):
            await answers.ca.note(SERVER, leaf)
        assert (await said(answers, a_request(leaf, root.certificate))).certificate_status is ocsp.OCSPCertStatus.GOOD
        assert await answers.ca.latest() == []


async def test_an_answer_is_kept_until_a_quarter_of_its_life_is_left(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        request = about(answers, await issued(answers))
        first = await answers.answer(request, NOBODY)
        assert isinstance(answers.ca.clock, FakeClock)
        answers.ca.clock.move(LIFETIME * 3 / 4 - timedelta(seconds=2))
        assert await answers.answer(request, NOBODY) is first
        answers.ca.clock.move(timedelta(seconds=2))
        assert await answers.answer(request, NOBODY) != first


async def test_what_a_clock_that_was_ahead_had_signed_is_signed_anew(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        request, clock = about(answers, await issued(answers)), answers.ca.clock
        assert isinstance(clock, FakeClock)
        clock.move(timedelta(days=30))
        await said(answers, request)
        clock.move(-timedelta(days=30))
        for one in (answers, OcspResponder(answers.ca, lambda _: True)):  # and after a restart
            response = await said(one, request)
            assert response.this_update_utc == clock.now()
            assert response.certificates[0].not_valid_before_utc <= clock.now()


async def test_below_a_ca_that_begins_in_the_future_a_responder_is_made_once(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        request, clock = about(answers, await issued(answers), nonce=b"n" * 16), answers.ca.clock
        assert isinstance(clock, FakeClock)
        clock.move(-timedelta(days=30))
        first, second = await said(answers, request), await said(answers, request)
        assert first.certificates == second.certificates


async def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MAX_KEPT", 3)
    async with responders(tmp_path) as answers:
        leaves = [await issued(answers, f"device-{number}") for number in range(5)]
        for leaf in leaves:
            await said(answers, about(answers, leaf))
        assert len(answers) == len(answers._named) == 3


async def test_a_nonce_comes_back_and_is_not_kept(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers)
        for nonce in (b"n", b"n" * 128):
            response = await said(answers, about(answers, leaf, nonce=nonce))
            assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
        assert len(answers) == 0


@pytest.mark.parametrize("nonce", [b"", b"n" * 129])
async def test_a_nonce_of_no_or_too_many_octets_is_malformed(tmp_path: Path, nonce: bytes) -> None:
    async with responders(tmp_path) as answers:
        with pytest.raises(OcspMalformedError):
            await answers.answer(about(answers, 5, nonce=nonce), NOBODY)


async def test_who_made_us_sign_too_often_gets_what_is_kept_or_comes_later(tmp_path: Path) -> None:
    left = [2]

    def may_sign(_address: str) -> bool:
        left[0] -= 1
        return left[0] >= 0

    async with responders(tmp_path, may_sign) as answers:
        leaf = await issued(answers)
        plain, with_nonce = about(answers, leaf), about(answers, leaf, nonce=b"n" * 16)
        first = await answers.answer(plain, NOBODY)
        assert len((await said(answers, with_nonce)).extensions) == 1
        assert await answers.answer(with_nonce, NOBODY) is first
        assert await answers.answer(plain, NOBODY) is first
        assert await answers.answer(about(answers, 5), NOBODY) is UnsignedStatus.TRY_LATER
        assert answers.signed == 2


async def test_several_are_answered_together(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaves = [await issued(answers, f"device-{number}") for number in range(3)]
        await answers.ca.revocations.certificate(leaves[1].thumbprint, OPERATOR)
        asked = together([*(about(answers, leaf, nonce=b"n" * 8) for leaf in leaves), about(answers, 5)])
        answer = await answers.answer(asked, NOBODY)
        assert isinstance(answer, OcspResponse)
        response = ocsp.load_der_ocsp_response(answer.der)
        statuses = [one.certificate_status.name for one in response.responses]
        assert statuses == ["GOOD", "REVOKED", "GOOD", "UNKNOWN"]
        key = response.certificates[0].public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))


async def test_more_than_sixteen_at_once_are_malformed(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        with pytest.raises(OcspMalformedError):
            await answers.answer(together([about(answers, number) for number in range(1, 18)]), NOBODY)


async def test_a_responder_is_renewed_in_time_and_read_again_after_a_restart(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers)
        certificates = []
        for days in (0, 10, 6):
            assert isinstance(answers.ca.clock, FakeClock)
            answers.ca.clock.move(timedelta(days=days))
            again = OcspResponder(answers.ca, lambda _: True)
            certificates.append((await said(again, about(again, leaf))).certificates[0])
        assert certificates[0] == certificates[1] != certificates[2]
        (file,) = (tmp_path / "ca").glob("ocsp-*.pem")
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED PRIVATE KEY" in file.read_bytes()


async def test_a_responder_that_could_not_be_put_on_record_is_put_there_later(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers)
        leave_the_next_commit_open(answers.ca.database)
        with pytest.raises(UnavailableError):
            await said(answers, about(answers, leaf))
        response = await said(answers, about(answers, leaf))
        responder = parse_der(response.certificates[0].public_bytes(Encoding.DER))
        assert await answers.ca.find(responder.thumbprint) is not None


async def test_what_was_read_before_a_revocation_is_not_kept_after_it(tmp_path: Path) -> None:
    async with responders(tmp_path) as answers:
        leaf = await issued(answers, "racing")
        reads = answers.ca.database.one

        async def slow(*arguments: object, **named: object) -> object:
            row = await reads(*arguments, **named)  # type: ignore[arg-type]  # handed through
            if "serial" in named:
                await answers.ca.revocations.certificate(leaf.thumbprint, OPERATOR)
            return row

        answers.ca.database.one = slow  # type: ignore[method-assign]  # a read that a revocation overtakes
        await answers.answer(about(answers, leaf), NOBODY)
        answers.ca.database.one = reads  # type: ignore[method-assign]  # as it was
        response = await said(answers, about(answers, leaf))
        assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_request_or_is_malformed(data: bytes) -> None:
    with contextlib.suppress(OcspMalformedError):
        parse_request(data)


@pytest.mark.parametrize("serial", [0, 2**159 - 1, 2**400])
async def test_odd_serial_numbers_are_only_unknown(tmp_path: Path, serial: int) -> None:
    async with responders(tmp_path) as answers:
        asked = CertId("sha1", *ids_of(answers.ca.hierarchy.issuing.certificate)[0][1:], serial)
        made = await answers._signed(OcspRequest((asked,)), answers.ca.hierarchy.issuing, answers.ca.clock.now())
        assert ocsp.load_der_ocsp_response(made.der).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_what_is_too_large_is_not_read() -> None:
    with pytest.raises(OcspMalformedError, match="more than"):
        parse_request(b"0" * 5000)


async def test_lists_of_two_processes_have_numbers_that_only_grow(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaves = [(await ca.issue(parse_csr(a_csr(f"d-{number}")), of(f"d-{number}")))[0] for number in range(4)]
        seen = []
        for leaf in leaves:
            await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
            made = await asyncio.gather(*(ca.lists.of(ca.hierarchy.issuing) for _ in range(4)))
            assert len({one.der for one in made}) == 1
            seen.append(made[0].number)
        assert seen == sorted(set(seen))


async def test_what_is_revoked_while_a_list_is_made_is_on_the_next(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(parse_csr(a_csr()), OPERATOR)
        await ca.crl()
        other, *_ = await ca.issue(parse_csr(a_csr("device-2")), OPERATOR)
        await ca.revocations.certificate(other.thumbprint, OPERATOR)
        reads = ca.database.all

        async def overtaken(*arguments: object, **named: object) -> object:
            rows = await reads(*arguments, **named)  # type: ignore[arg-type]  # handed through
            ca.database.all = reads  # type: ignore[method-assign]  # only once
            await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
            return rows

        ca.database.all = overtaken  # type: ignore[method-assign, assignment]  # the rows, and then the revocation
        await ca.crl()
        listed = x509.load_der_x509_crl(await ca.crl())
        assert listed.get_revoked_certificate_by_serial_number(leaf.serial) is not None


def test_a_request_may_name_a_ca_by_any_of_four_digests() -> None:
    assert [name for name, _, _ in ids_of(a_ca().certificate)] == ["sha1", "sha256", "sha384", "sha512"]
