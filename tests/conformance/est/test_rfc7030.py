"""RFC 7030 statement by statement, as clarified by RFC 8951, on the routes without a socket."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import AttributeOID

from birthmark.est import wire
from birthmark.est.model import EstLabel, EstSettings
from birthmark.est.service import EstCredentials
from birthmark.est.wire import CsrAttribute
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CHANGE_SUBJECT_NAME
from birthmark.pki.path_validation import build_chain
from birthmark.refusals import refusals_about
from birthmark.store import pagination
from support.fakes import NOON, SeededEntropy
from support.pki.est_server import BASIC, OPERATOR, PKCS10, EstServer, an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key, an_rsa_key
from support.server.asgi import FakePeer, request

P256 = CsrAttribute("1.2.840.10045.2.1", (bytes.fromhex("06082a8648ce3d030107"),))


@pytest.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EstServer]:
    """A fresh server, with the settings that `est` gave the test."""
    async with an_est_server(tmp_path, getattr(request, "param", None)) as running:
        yield running


def est(settings: EstSettings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [settings], ids=[""], indirect=True)


async def test_rfc7030_4_1_2_cacerts_needs_no_authentication_and_leads_to_the_root(server: EstServer) -> None:
    answer = await server.get("cacerts")
    assert answer.status == 200
    assert set(wire.parse_certs_only(answer.body)) == set(server.ca.hierarchy.certificates)


async def test_rfc7030_4_1_3_cacerts_is_certs_only_in_the_form_azure_compares(server: EstServer) -> None:
    answer = await server.get("cacerts")
    assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["content-transfer-encoding"] == "base64"
    assert int(answer.headers["content-length"]) == len(answer.body)


async def test_rfc7030_4_2_1_a_password_earns_a_certificate_that_leads_to_the_root(server: EstServer) -> None:
    key = a_key()
    leaf = await server.issued(a_csr("device-1", key=key))
    assert leaf.public_key() == key.public_key()
    assert leaf.not_after == NOON + timedelta(days=1)
    assert build_chain(leaf, server.service.cacerts(), server.ca.hierarchy.anchors, NOON)[-1].is_self_signed


async def test_rfc7030_4_2_1_rsa_keys_are_certified_too(server: EstServer) -> None:
    assert (await server.issued(a_csr("device-1", key=an_rsa_key()))).subject_cn == "device-1"


async def test_rfc7030_4_2_3_the_answer_holds_only_the_issued_certificate(server: EstServer) -> None:
    answer = await server.post("simpleenroll", a_csr())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert [one.subject_cn for one in wire.parse_certs_only(answer.body)] == ["device-1"]


async def test_rfc7030_3_2_3_a_request_without_credentials_is_challenged(server: EstServer) -> None:
    answer = await server.post("simpleenroll", a_csr(), headers={})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="birthmark"'
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(("user", "password"), [("factory", "wrong"), ("nobody", "secret"), ("factory", "")])
async def test_rfc7030_3_2_3_wrong_credentials_are_refused_alike(server: EstServer, user: str, password: str) -> None:
    answer = await server.post("simpleenroll", a_csr(), headers={"Authorization": wire.render_basic(user, password)})
    assert answer.status == 401
    assert answer.text.startswith("User name or password is wrong.\nReference: ")
    assert "www-authenticate" in answer.headers


async def test_rfc7030_3_2_3_guessing_passwords_is_slowed_down(server: EstServer) -> None:
    wrong = {"Authorization": wire.render_basic("factory", "wrong")}
    statuses = [(await server.post("simpleenroll", a_csr(), headers=wrong)).status for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    answer = await server.post("simpleenroll", a_csr(), headers=wrong)
    assert 0 < int(answer.headers["retry-after"]) <= 6
    csr = a_csr()
    assert (await server.post("simpleenroll", csr, address="192.0.2.2")).status == 200
    server.clock._monotonic += 7
    assert (await server.post("simpleenroll", csr)).status == 200


async def test_guessing_from_every_address_of_an_ipv6_network_is_slowed_down_too(server: EstServer) -> None:
    wrong = {"Authorization": wire.render_basic("factory", "wrong")}
    answers = [
        await server.post("simpleenroll", a_csr(), headers=wrong, address=f"2001:db8::{number:x}")
        for number in range(11)
    ]
    assert [answer.status for answer in answers] == [401] * 10 + [429]


async def test_a_guesser_behind_the_same_address_does_not_lock_out_who_knew_the_password_before(
    server: EstServer,
) -> None:
    assert (await server.post("simpleenroll", a_csr("good-1"))).status == 200
    wrong = {"Authorization": wire.render_basic("factory", "wrong")}
    for _ in range(11):
        await server.post("simpleenroll", a_csr(), headers=wrong)
    assert (await server.post("simpleenroll", a_csr(), headers=wrong)).status == 429
    assert (await server.post("simpleenroll", a_csr("good-2"))).status == 200


async def test_a_guesser_keeps_no_other_user_of_its_address_out(server: EstServer) -> None:
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    await credentials.add_user("pump-1", "chosen by somebody", device_id="pump-1", actor="operator:test")
    _, made = await credentials.ensure_user("pump-2", seed=b"seed", actor="operator:test")
    wrong = [("factory", "wrong"), ("pump-2", "wrong"), ("nobody", "wrong")]
    for user, password in wrong * 12:
        await server.post("simpleenroll", a_csr(), headers={"Authorization": wire.render_basic(user, password)})
    again = {"Authorization": wire.render_basic("pump-2", "wrong")}
    assert (await server.post("simpleenroll", a_csr(), headers=again)).status == 429
    # None of these was right before, as after a restart.
    for user, password in (("pump-1", "chosen by somebody"), ("pump-2", made)):
        right = {"Authorization": wire.render_basic(user, password)}
        assert (await server.post("simpleenroll", a_csr(user), headers=right)).status == 200


async def test_rfc7030_3_2_3_guesses_sent_all_at_once_are_slowed_down_too(server: EstServer) -> None:
    wrong = {"Authorization": wire.render_basic("factory", "wrong")}
    answers = await asyncio.gather(*(server.post("simpleenroll", a_csr(), headers=wrong) for _ in range(30)))
    assert [answer.status for answer in answers].count(401) == 10
    assert [answer.status for answer in answers].count(429) == 20


async def test_a_line_of_devices_that_start_together_is_not_taken_for_guessing(server: EstServer) -> None:
    answers = await asyncio.gather(*(server.post("simpleenroll", a_csr(f"line-{n}")) for n in range(30)))
    assert {answer.status for answer in answers} == {200}


async def test_a_refusal_can_be_looked_up_by_its_reference(server: EstServer) -> None:
    answer = await server.post("simpleenroll", a_csr(), headers={})
    await server.ledger.wait_until_written()
    (refusal,) = await refusals_about(server.ca.database, answer.headers["birthmark-reference"])
    assert (refusal.code, answer.body) == ("est.credentials_missing", b"")
    assert "cert_issuance.est.auth" in refusal.fix


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/pkcs10", 200),
        ("Application/PKCS10; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_rfc7030_4_2_1_the_media_type_is_pkcs10(server: EstServer, content_type: str, status: int) -> None:
    answer = await server.post("simpleenroll", a_csr(), headers={**BASIC, "Content-Type": content_type})
    assert answer.status == status
    assert status == 200 or "application/pkcs10" in answer.text


async def test_rfc8951_3_1_the_transfer_encoding_header_is_ignored(server: EstServer) -> None:
    binary = {**BASIC, "Content-Transfer-Encoding": "binary"}
    assert (await server.post("simpleenroll", a_csr(), headers=binary)).status == 200


@pytest.mark.parametrize("body", [b"", b"garbage!", base64.b64encode(b"\x30\x03\x02\x01\x01"), b"0" * 100])
async def test_rfc7030_4_2_3_a_bad_request_is_400_with_a_text(server: EstServer, body: bytes) -> None:
    headers = {**PKCS10, **BASIC}
    answer = await request(server.app, "POST", "/.well-known/est/simpleenroll", headers=headers, body=body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text


async def test_an_oversized_body_is_413(server: EstServer) -> None:
    answer = await request(
        server.app, "POST", "/.well-known/est/simpleenroll", headers={**PKCS10, **BASIC}, body=b"A" * 70000
    )
    assert answer.status == 413


async def test_rfc7030_4_2_1_a_request_that_its_key_did_not_sign_is_refused(server: EstServer) -> None:
    csr = a_csr()
    answer = await server.post("simpleenroll", csr[:-1] + bytes([csr[-1] ^ 1]))
    assert answer.status == 400
    assert "signature" in answer.text


async def test_rfc7030_3_2_2_wrong_methods_and_unknown_operations(server: EstServer) -> None:
    answer = await server.get("simpleenroll")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await server.post("cacerts", a_csr())).status == 405
    answer = await server.get("serverkeygen")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await server.get("unknown-label/cacerts")).status == 404


@est(EstSettings(labels={"short": EstLabel(certificate_profiles.DEVICE)}))
async def test_rfc7030_3_2_2_a_label_chooses_the_profile(server: EstServer) -> None:
    assert (await server.get("short/cacerts")).status == 200
    assert (await server.post("short/simpleenroll", a_csr())).status == 200
    assert (await server.post("other/simpleenroll", a_csr())).status == 404


async def test_rfc7030_4_2_1_a_current_certificate_renews_by_simpleenroll_as_azure_does(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    second = await server.issued(a_csr("device-1"), headers={}, peer=shown(first, *server.service.cacerts()))
    assert second.subject_cn == "device-1"
    assert second.thumbprint != first.thumbprint


async def test_rfc7030_4_2_1_a_current_certificate_earns_none_for_another_device(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    answer = await server.post("simpleenroll", a_csr("device-2"), headers={}, peer=shown(first))
    assert answer.status == 403


async def test_a_certificate_and_a_password_together_may_do_what_either_may(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    assert (await server.post("simpleenroll", a_csr("device-2"), peer=shown(first))).status == 200
    assert (await server.post("simpleenroll", a_csr("device-3"), peer=shown(a_device().certificate))).status == 200


async def test_an_expired_certificate_is_refused_and_a_password_brings_the_device_back(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(timedelta(days=2))
    answer = await server.post("simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))
    assert (answer.status, answer.headers["birthmark-reason"]) == (401, "The certificate has expired.")
    assert (await server.post("simpleenroll", a_csr("device-1"), peer=shown(first))).status == 200


async def test_a_revoked_certificate_is_forbidden(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    await server.ca.revocations.certificate(first.thumbprint, OPERATOR)
    answer = await server.post("simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))
    assert answer.status == 403


async def bootstrapped(server: EstServer, *, any_name: bool) -> Certificate:
    maker = a_ca("Maker Root")
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    await credentials.accept_ca(maker.certificate, any_name=any_name, actor="operator")
    return a_device(maker, "chip-1").certificate


async def test_rfc7030_3_3_2_a_makers_certificate_introduces_its_device(server: EstServer) -> None:
    idevid = await bootstrapped(server, any_name=False)
    assert (await server.issued(a_csr("chip-1"), headers={}, peer=shown(idevid))).subject_cn == "chip-1"
    assert (await server.post("simpleenroll", a_csr("other"), headers={}, peer=shown(idevid))).status == 403


async def test_rfc7030_3_3_2_a_makers_certificate_may_take_any_name_where_that_is_allowed(server: EstServer) -> None:
    idevid = await bootstrapped(server, any_name=True)
    assert (await server.issued(a_csr("gateway"), headers={}, peer=shown(idevid))).subject_cn == "gateway"


async def test_a_makers_chip_has_one_share_whatever_names_it_asks_for(server: EstServer) -> None:
    chip = shown(await bootstrapped(server, any_name=True))
    asked = [
        await server.post("simpleenroll", a_csr(f"gateway-{n}", key=a_key()), headers={}, peer=chip) for n in range(25)
    ]
    assert sorted({answer.status for answer in asked}) == [200, 429]
    assert (await server.issued(a_csr("another"))).subject_cn == "another"


async def test_each_of_very_many_makers_is_listed_and_introduces_its_devices(
    server: EstServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "EACH", 2)
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    makers = [a_ca(f"Maker {number}") for number in range(5)]
    for maker in makers:
        await credentials.accept_ca(maker.certificate, any_name=False, actor="operator")
        server.clock.move(timedelta(seconds=1))
    assert [one.certificate for one in await credentials.bootstrap_cas()] == [one.certificate for one in makers]
    for number, maker in enumerate(makers):
        idevid = a_device(maker, f"chip-{number}").certificate
        await server.issued(a_csr(f"chip-{number}"), headers={}, peer=shown(idevid))


async def test_rfc7030_3_3_2_a_strangers_certificate_is_not_enough(server: EstServer) -> None:
    answer = await server.post("simpleenroll", a_csr(), headers={}, peer=shown(a_device(a_ca("X")).certificate))
    assert answer.status == 401


async def test_rfc7030_4_2_2_renewal_keeps_the_name_and_may_change_the_key(server: EstServer) -> None:
    key = a_key()
    first = await server.issued(a_csr("device-1", key=key))
    for new_key in (key, a_key()):
        answer = await server.post("simplereenroll", a_csr("device-1", key=new_key), headers={}, peer=shown(first))
        assert answer.status == 200
        (second,) = wire.parse_certs_only(answer.body)
        assert second.subject.public_bytes() == first.subject.public_bytes()
        assert second.public_key() == new_key.public_key()


async def test_rfc7030_4_2_2_renewal_needs_the_certificate(server: EstServer) -> None:
    assert (await server.post("simplereenroll", a_csr())).status == 403
    assert (await server.post("simplereenroll", a_csr(), headers={})).status == 401


async def test_rfc7030_4_2_2_renewal_under_another_name_is_refused(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    names = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    for csr in (
        a_csr("device-2"),
        a_csr("device-1", extensions=((names, False),)),
        a_csr("device-1", attributes=((CHANGE_SUBJECT_NAME, b"\x30\x00"),)),
    ):
        answer = await server.post("simplereenroll", csr, headers={}, peer=shown(first))
        assert answer.status == 403
        assert "cannot change" in answer.text


BINDING = b"finished message"


@pytest.mark.parametrize(
    ("peer", "password", "status"),
    [
        (FakePeer(tls_unique=BINDING), base64.b64encode(BINDING), 200),
        (FakePeer(exporter=BINDING), base64.b64encode(BINDING), 200),
        (FakePeer(tls_unique=BINDING), base64.b64encode(b"another"), 401),
        (FakePeer(), base64.b64encode(BINDING), 401),
        (FakePeer(tls_unique=BINDING), b"", 401),
    ],
)
async def test_rfc7030_3_5_a_channel_binding_is_checked_when_it_is_there(
    server: EstServer, peer: FakePeer, password: bytes, status: int
) -> None:
    csr = a_csr(attributes=((AttributeOID.CHALLENGE_PASSWORD, password),))
    assert (await server.post("simpleenroll", csr, peer=peer)).status == status


async def test_rfc7030_4_5_2_no_csr_attributes_is_204(server: EstServer) -> None:
    assert (await server.get("csrattrs")).status == 204


@est(EstSettings(EstLabel(csr_attributes=wire.render_csr_attributes([P256]))))
async def test_rfc7030_4_5_2_csr_attributes_are_base64_of_der(server: EstServer) -> None:
    answer = await server.get("csrattrs")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/csrattrs")
    assert wire.parse_csr_attributes(answer.body) == (P256,)


async def test_a_device_that_asks_without_end_is_slowed_down(server: EstServer) -> None:
    csr = a_csr()
    statuses = [(await server.post("simpleenroll", csr)).status for _ in range(21)]
    assert statuses == [200] * 20 + [429]


async def test_nothing_is_kept_of_a_refused_request(server: EstServer) -> None:
    await server.post("simpleenroll", a_csr(), headers={})
    assert await server.ca.latest() == []


async def test_who_may_ask_for_any_name_cannot_use_up_the_share_of_its_holder(server: EstServer) -> None:
    leaf = await server.issued(a_csr("victim"))
    statuses = [(await server.post("simpleenroll", a_csr("victim", key=a_key()))).status for _ in range(26)]
    assert statuses[-1] == 429
    renewal = await server.post("simpleenroll", a_csr("victim", key=a_key()), headers={}, peer=shown(leaf))
    assert renewal.status == 200
