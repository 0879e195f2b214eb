"""What a door may ask for and give beyond the usual: tokens, approval, authorities, keys made here, comebacks."""

import asyncio
import base64
import email
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from email.message import Message
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, ObjectIdentifier

from birthmark.audit.chain_verification import ROWS
from birthmark.ca.revocation import DeviceNotAliveError
from birthmark.est import wire
from birthmark.est.model import EstLabel, EstSettings, LateRenewalRule
from birthmark.est.service import EstCredentials, RegistrationAuthorities, TokenIssuer, approvals
from birthmark.pki.certificate_profiles import DEVICE, EDGE_CA, LDEVID
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.store import pagination
from birthmark.store.database_lock import MAIN
from support.fakes import SeededEntropy
from support.pki.est_server import OPERATOR, EstServer, an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key
from support.server.asgi import Answer
from support.store.between import before_the_next_commit

DAY = timedelta(days=1)
CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")


@pytest.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EstServer]:
    """A fresh server, with the settings that `est` gave the test."""
    async with an_est_server(tmp_path, getattr(request, "param", None)) as running:
        yield running


def est(settings: EstSettings) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [settings], ids=[""], indirect=True)


async def enroll(
    server: EstServer, csr: bytes, *certificates: Certificate, basic: str | None = None, **more: object
) -> Answer:
    headers = {} if basic is None else {"Authorization": basic}
    peer = {"peer": shown(*certificates)} if certificates else {}
    return await server.post("simpleenroll", csr, headers=headers, **peer)


async def a_token(server: EstServer, device: str = "device-1", lifetime: timedelta = DAY) -> str:
    tokens = TokenIssuer(server.ca.database, server.clock, SeededEntropy())
    user, password = await tokens.add(device, lifetime, actor="operator:test")
    return wire.render_basic(user.name, password)


async def test_a_token_gets_its_device_one_certificate(server: EstServer) -> None:
    token = await a_token(server)
    assert (await enroll(server, a_csr("device-1"), basic=token)).status == 200
    assert (await enroll(server, a_csr("device-1"), basic=token)).status == 403


async def test_a_clock_that_is_ahead_for_a_moment_forgets_no_token(server: EstServer) -> None:
    tokens = TokenIssuer(server.ca.database, server.clock, SeededEntropy())
    user, password = await tokens.add("device-1", DAY, actor="operator:test")
    server.clock.jump(40 * DAY)
    await tokens.add("device-2", DAY, actor="operator:test")
    server.clock.jump(-40 * DAY)
    token = wire.render_basic(user.name, password)
    assert (await enroll(server, a_csr("device-1"), basic=token)).status == 200


async def test_a_token_gives_the_same_key_another_when_the_first_answer_was_lost(server: EstServer) -> None:
    token, key = await a_token(server), a_key()
    assert [(await enroll(server, a_csr("device-1", key=key), basic=token)).status for _ in range(2)] == [200, 200]


async def test_a_token_is_for_its_device_alone(server: EstServer) -> None:
    assert (await enroll(server, a_csr("device-2"), basic=await a_token(server))).status == 403


async def test_a_token_ends(server: EstServer) -> None:
    token = await a_token(server, lifetime=timedelta(hours=1))
    server.clock.move(timedelta(hours=2))
    answer = await enroll(server, a_csr("device-1"), basic=token)
    assert (answer.status, answer.text.splitlines()[0]) == (401, "User name or password is wrong.")


async def test_two_that_use_a_token_at_once_get_one_certificate(server: EstServer) -> None:
    token = await a_token(server)
    answers = await asyncio.gather(*(enroll(server, a_csr("device-1"), basic=token) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 403, 403, 403]


async def test_a_token_that_was_removed_is_worth_nothing(server: EstServer) -> None:
    token = await a_token(server)
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    for user in await credentials.users("", 10):
        if user.is_one_time:
            await credentials.remove_user(user.name, actor="operator:test")
    assert (await enroll(server, a_csr("device-1"), basic=token)).status == 401


APPROVED = est(EstSettings(EstLabel(approval=True)))


@APPROVED
async def test_a_request_waits_with_202_until_an_operator_approves(server: EstServer) -> None:
    key = a_key()
    answer = await server.post("simpleenroll", a_csr("device-1", key=key))
    assert (answer.status, int(answer.headers["retry-after"]) > 0) == (202, True)
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    # Another request for the same name, key and profile: clients make theirs anew.
    assert (await server.issued(a_csr("device-1", key=key))).public_key() == key.public_key()
    assert await server.service.approvals.page("", 10) == []


@APPROVED
async def test_an_approval_is_for_the_key_that_was_looked_at(server: EstServer) -> None:
    await server.post("simpleenroll", a_csr("device-1"))
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    assert (await server.post("simpleenroll", a_csr("device-1"))).status == 202


async def approve(server: EstServer) -> str:
    """Approve the one request that waits, and return its id."""
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    return waiting.id


@APPROVED
async def test_an_approved_request_whose_answer_was_lost_is_answered_again_for_its_key_alone(server: EstServer) -> None:
    key = a_key()
    await server.post("simpleenroll", a_csr("device-1", key=key))
    await approve(server)
    statuses = [(await server.post("simpleenroll", a_csr("device-1", key=key))).status for _ in range(3)]
    assert statuses == [200, 200, 200]
    assert (await server.post("simpleenroll", a_csr("device-1"))).status == 202


@APPROVED
async def test_a_day_after_it_was_fetched_an_approved_request_waits_again(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    await approve(server)
    server.clock.move(2 * DAY)  # until it is fetched it has its time
    assert (await server.post("simpleenroll", csr)).status == 200
    server.clock.move(DAY - timedelta(minutes=1))
    assert (await server.post("simpleenroll", csr)).status == 200
    server.clock.move(timedelta(minutes=2))
    assert (await server.post("simpleenroll", csr)).status == 202
    await approve(server)
    assert (await server.post("simpleenroll", csr)).status == 200


@APPROVED
async def test_a_request_that_is_rejected_after_it_was_fetched_is_answered_no_more(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    wanted = await approve(server)
    assert (await server.post("simpleenroll", csr)).status == 200
    assert [one.id for one in await server.service.approvals.of_name("device-1")] == [
        wanted
    ]  # `device revoke` finds it
    rejected = await server.service.approvals.decide(wanted, is_approved=False, actor="operator:test")
    assert rejected.fetched_at == server.clock.now()  # so that who rejects hears of the certificate that lives
    assert (await server.post("simpleenroll", csr)).status == 403


@APPROVED
async def test_what_was_fetched_takes_no_place_of_what_waits(server: EstServer) -> None:
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    await credentials.add_user("own", "secret", device_id="device-1", actor="operator:test")
    own = {"Authorization": wire.render_basic("own", "secret")}
    for _ in range(9):
        csr = a_csr("device-1")
        assert (await server.post("simpleenroll", csr, headers=own)).status == 202
        await approve(server)
        assert (await server.post("simpleenroll", csr, headers=own)).status == 200
    assert len(await server.service.approvals.of_name("device-1")) == 8


@APPROVED
@pytest.mark.parametrize("days_between", [1, 31], ids=["asked each day", "asked once"])
async def test_an_approval_waits_30_days_from_when_it_was_given(server: EstServer, days_between: int) -> None:
    csr = a_csr("device-1")
    for _ in range(31 // days_between):
        assert (await server.post("simpleenroll", csr)).status == 202
        server.clock.move(days_between * DAY)
    await approve(server)
    server.clock.move(29 * DAY)
    await server.post("simpleenroll", a_csr("device-2"))  # makes room of what is over
    assert (await server.post("simpleenroll", csr)).status == 200


@APPROVED
@pytest.mark.parametrize("is_approved", [True, False])
async def test_a_decision_that_nobody_heard_is_forgotten_after_30_days(server: EstServer, *, is_approved: bool) -> None:
    await server.post("simpleenroll", a_csr("device-1"))
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=is_approved, actor="operator:test")
    server.clock.move(31 * DAY)
    await server.post("simpleenroll", a_csr("device-2"))
    assert await server.service.approvals.of_name("device-1") == []


@APPROVED
async def test_a_request_that_nobody_decides_stays_as_long_as_it_is_asked(server: EstServer) -> None:
    csr = a_csr("device-1")
    for _ in range(40):
        await server.post("simpleenroll", csr)
        server.clock.move(DAY)
    await server.post("simpleenroll", a_csr("device-2"))
    assert len(await server.service.approvals.of_name("device-1")) == 1
    server.clock.move(31 * DAY)
    await server.post("simpleenroll", a_csr("device-3"))
    assert await server.service.approvals.of_name("device-1") == []


@APPROVED
async def test_a_request_that_is_asked_again_is_written_once_a_day(server: EstServer) -> None:
    csr, asked = a_csr("device-1"), set()
    for _ in range(49):
        await server.post("simpleenroll", csr)
        (waiting,) = await server.service.approvals.of_name("device-1")
        asked.add(waiting.asked_at)
        server.clock.move(timedelta(hours=1))
    assert len(asked) == 3


@APPROVED
async def test_a_clock_that_is_ahead_for_a_moment_forgets_no_approval(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    await approve(server)
    server.clock.jump(40 * DAY)
    assert (await server.post("simpleenroll", a_csr("device-2"))).status == 202
    server.clock.jump(-40 * DAY)
    assert (await server.post("simpleenroll", csr)).status == 200


@APPROVED
async def test_a_rejected_request_is_forbidden(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=False, actor="operator:test")
    assert (await server.post("simpleenroll", csr)).status == 403


@APPROVED
async def test_a_renewal_waits_for_nobody(server: EstServer) -> None:
    key = a_key()
    await server.post("simpleenroll", a_csr("device-1", key=key))
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    first = await server.issued(a_csr("device-1", key=key))
    assert (await enroll(server, a_csr("device-1"), first)).status == 200


TWO_DOORS = EstSettings(
    labels={
        "long": EstLabel(LDEVID, approval=True),
        "edge-ca": EstLabel(EDGE_CA, approval=True),
    },
    late_renewal={"device": LateRenewalRule(30 * DAY), "ldevid": LateRenewalRule(DAY)},
)


@est(TWO_DOORS)
@pytest.mark.parametrize("label", ["long", "edge-ca"])
async def test_the_certificate_of_a_lax_door_opens_no_strict_one(server: EstServer, label: str) -> None:
    first = await server.issued(a_csr("device-1"))
    asked = a_csr("device-1")
    answer = await server.post(f"{label}/simpleenroll", asked, headers={}, peer=shown(first))
    assert answer.status == 202
    answer = await server.post(f"{label}/simplereenroll", asked, headers={}, peer=shown(first))
    assert answer.status == 202
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    assert (await server.post(f"{label}/simpleenroll", asked, headers={}, peer=shown(first))).status == 200
    again = await server.post(f"{label}/simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))
    assert again.status == 200, "who was let in asks again by the same kind of identity"


@est(TWO_DOORS)
async def test_what_one_way_was_let_in_does_not_open_the_door_for_another(server: EstServer) -> None:
    first, key = await server.issued(a_csr("device-1")), a_key()
    token = await a_token(server)
    asked = a_csr("device-1", key=key)
    assert (await server.post("long/simpleenroll", asked, headers={"Authorization": token})).status == 202
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    given = await server.post("long/simpleenroll", asked, headers={"Authorization": token})
    (long_lived,) = wire.parse_certs_only(given.body)
    assert (await server.post("long/simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))).status == 202
    renewed = await server.post("long/simplereenroll", asked, headers={}, peer=shown(long_lived))
    assert renewed.status == 200, "what the door gave itself renews there, and waits for nobody"


@est(TWO_DOORS)
async def test_an_expired_certificate_comes_back_by_the_rule_of_the_door_too(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(first.not_after - server.clock.now() + 2 * DAY)
    for label in ("long", "edge-ca"):  # two days are too long for the one, and the other takes none that ended
        answer = await server.post(f"{label}/simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))
        assert answer.status in {401, 403}
    assert (await enroll(server, a_csr("device-1"), first)).status == 200


@APPROVED
async def test_one_name_makes_a_handful_of_requests_wait_and_no_more(server: EstServer) -> None:
    statuses = [(await server.post("simpleenroll", a_csr("device-1"))).status for _ in range(9)]
    assert statuses == [202] * 8 + [429]


@APPROVED
async def test_what_an_operator_decided_takes_no_place_of_what_comes(server: EstServer) -> None:
    for _ in range(8):
        await server.post("simpleenroll", a_csr("device-1"))
    for one in await server.service.approvals.page("", 10):
        await server.service.approvals.decide(one.id, is_approved=False, actor="operator:test")
    statuses = [(await server.post("simpleenroll", a_csr("device-1"))).status for _ in range(9)]
    assert statuses == [202] * 8 + [429]


@APPROVED
async def test_who_may_ask_for_any_name_takes_no_place_of_the_names_own_device(server: EstServer) -> None:
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    await credentials.add_user("own", "secret", device_id="device-1", actor="operator:test")
    for _ in range(9):
        await server.post("simpleenroll", a_csr("device-1"))
    own = {"Authorization": wire.render_basic("own", "secret")}
    assert (await server.post("simpleenroll", a_csr("device-1"), headers=own)).status == 202


@APPROVED
async def test_who_asks_for_many_names_leaves_room_for_others(
    server: EstServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "MAX_WAITING_OF_ONE", 3)
    credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy())
    await credentials.add_user("own", "secret", device_id="device-1", actor="operator:test")
    statuses = [(await server.post("simpleenroll", a_csr(f"other-{n}"))).status for n in range(4)]
    assert statuses == [202, 202, 202, 429]
    own = {"Authorization": wire.render_basic("own", "secret")}
    assert (await server.post("simpleenroll", a_csr("device-1"), headers=own)).status == 202


@est(EstSettings(EstLabel(approval=True, key_generation=True)))
async def test_an_operator_is_asked_anew_when_what_was_approved_is_revoked(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("serverkeygen", csr)
    await approve(server)
    assert (await server.post("serverkeygen", csr)).status == 200
    server.clock.move(timedelta(seconds=1))
    await server.ca.revocations.device("device-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert (await server.post("serverkeygen", csr)).status == 202


@APPROVED
async def test_an_approval_that_was_not_fetched_ends_with_a_revocation_too(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    await approve(server)
    assert (await server.post("simpleenroll", csr)).status == 200
    another = a_csr("device-1")
    await server.post("simpleenroll", another)
    await approve(server)
    server.clock.move(timedelta(seconds=1))
    await server.ca.revocations.device("device-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert (await server.post("simpleenroll", another)).status == 202


@APPROVED
async def test_what_was_approved_keeps_its_place_until_it_is_fetched(server: EstServer) -> None:
    csr = a_csr("device-1")
    await server.post("simpleenroll", csr)
    await approve(server)
    statuses = [(await server.post("simpleenroll", a_csr("device-1"))).status for _ in range(8)]
    assert statuses == [202] * 7 + [429]
    assert (await server.post("simpleenroll", csr)).status == 200


@APPROVED
async def test_an_approval_given_while_room_is_made_is_not_what_goes(server: EstServer) -> None:
    wanted, queue = a_csr("device-1"), server.service.approvals
    await server.post("simpleenroll", wanted)
    (first,) = await queue.page("", 10)
    for _ in range(7):
        await server.post("simpleenroll", a_csr("device-1"))
    await queue.decide(first.id, is_approved=False, actor="operator:test")
    server.clock.move(timedelta(seconds=1))

    async def approve_after_all() -> None:
        await queue.decide(first.id, is_approved=True, actor="operator:test")

    before_the_next_commit(server.ca.database, approve_after_all)
    await server.post("simpleenroll", a_csr("device-1"))
    assert (await server.post("simpleenroll", wanted)).status == 200


async def test_each_of_very_many_authorities_is_listed(server: EstServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "EACH", 2)
    known = RegistrationAuthorities(server.ca.database, server.clock)
    certificates = [an_authority() for _ in range(5)]
    for one in certificates:
        await known.add(one, "*", actor="operator:test")
        server.clock.move(timedelta(seconds=1))
    assert [one.certificate for one in await known.all()] == certificates


def an_authority(*usages: ObjectIdentifier) -> Certificate:
    purposes = usages or (ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA)
    return a_device(a_ca("Elsewhere"), "ra-1", profile=replace(DEVICE, extended_key_usage=purposes)).certificate


async def listed(server: EstServer, certificate: Certificate, names: str = "*") -> Certificate:
    await RegistrationAuthorities(server.ca.database, server.clock).add(certificate, names, actor="operator:test")
    return certificate


async def test_a_listed_authority_asks_for_devices_and_its_binding_is_another_connections(server: EstServer) -> None:
    authority = await listed(server, an_authority())
    bound = ((AttributeOID.CHALLENGE_PASSWORD, base64.b64encode(b"elsewhere")),)
    assert (await enroll(server, a_csr("device-1", attributes=bound), authority)).status == 200
    assert (await enroll(server, a_csr("device-1"), authority)).status == 200  # it says that this is the same device


async def test_an_authority_asks_for_the_names_it_is_listed_for(server: EstServer) -> None:
    authority = await listed(server, an_authority(), "line7-*")
    assert (await enroll(server, a_csr("line7-1"), authority)).status == 200
    assert (await enroll(server, a_csr("line8-1"), authority)).status == 403


async def test_an_authority_that_nobody_listed_is_a_stranger(server: EstServer) -> None:
    assert (await enroll(server, a_csr("device-1"), an_authority())).status == 401


async def test_an_authority_that_was_revoked_asks_for_nobody(server: EstServer) -> None:
    authority = await listed(server, an_authority())
    await server.ca.revocations.key(authority, OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert (await enroll(server, a_csr("device-1"), authority)).status == 403


@est(EstSettings(EstLabel(key_generation=True)))
async def test_rfc7030_4_4_a_key_made_here_comes_as_pkcs8_with_its_certificate(server: EstServer) -> None:
    answer = await server.post("serverkeygen", a_csr("device-1"))
    assert answer.status == 200
    key_part, certificate_part = parts(answer)
    assert key_part.get_content_type() == "application/pkcs8"
    assert key_part["content-transfer-encoding"] == "base64"
    key = load_der_private_key(key_part.get_payload(decode=True), None)  # type: ignore[arg-type]  # bytes
    (certificate,) = wire.parse_certs_only(str(certificate_part.get_payload()).encode())
    assert certificate.public_key() == key.public_key()
    assert certificate_part["content-type"] == "application/pkcs7-mime; smime-type=certs-only"


@est(EstSettings(EstLabel(key_generation=True)))
async def test_rfc7030_4_4_1_1_a_key_that_shall_be_encrypted_is_refused_and_not_sent_in_clear(
    server: EstServer,
) -> None:
    wanted = ((ObjectIdentifier("1.2.840.113549.1.9.16.2.37"), b"\x04\x01\x01"),)
    assert (await server.post("serverkeygen", a_csr("device-1", attributes=wanted))).status == 400


@est(EstSettings(EstLabel(approval=True, key_generation=True)))
async def test_a_key_is_made_here_once_an_operator_approved(server: EstServer) -> None:
    token, csr = {"Authorization": await a_token(server)}, a_csr("device-1")
    assert [(await server.post("serverkeygen", csr, headers=token)).status for _ in range(2)] == [202, 202]
    await approve(server)
    answers = [(await server.post("serverkeygen", csr, headers=token)).status for _ in range(2)]
    assert answers == [200, 200], "who asked and lost the first answer gets another"


@est(EstSettings(EstLabel(key_generation=True)))
async def test_a_token_gives_another_made_key_to_who_lost_the_first_and_to_nobody_else(server: EstServer) -> None:
    token, csr = {"Authorization": await a_token(server)}, a_csr("device-1")
    assert [(await server.post("serverkeygen", csr, headers=token)).status for _ in range(2)] == [200, 200]
    assert (await server.post("serverkeygen", a_csr("device-1"), headers=token)).status == 403


async def test_no_key_is_made_here_unless_the_operator_says_so(server: EstServer) -> None:
    assert (await server.post("serverkeygen", a_csr("device-1"))).status == 403


async def test_rfc7030_4_3_full_cmc_is_answered_that_it_is_not_served(server: EstServer) -> None:
    answer = await server.post("fullcmc", b"\x30\x00")
    assert (answer.status, "fullcmc" in answer.text.lower() or "CMC" in answer.text) == (501, True)


def parts(answer: Answer) -> list[Message]:
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    made = email.message_from_bytes(head + answer.body)
    assert made.is_multipart()
    return list(made.walk())[1:]


@est(EstSettings(labels={"edge": EstLabel(EDGE_CA)}))
async def test_a_device_gets_a_ca_of_its_own_where_a_label_says_so(server: EstServer) -> None:
    first = await server.issued(a_csr("edge-1"))
    wanted = ((x509.BasicConstraints(ca=True, path_length=0), True),)
    answer = await server.post(
        "edge/simpleenroll", a_csr("aziot-edge CA", extensions=wanted), headers={}, peer=shown(first)
    )
    assert answer.status == 200, answer.text
    (made,) = wire.parse_certs_only(answer.body)
    assert (made.is_ca, made.subject_cn) == (True, "edge-1 Edge CA")


@est(EstSettings(labels={"edge": EstLabel(EDGE_CA)}))
async def test_who_may_ask_for_any_name_gets_no_ca(server: EstServer) -> None:
    assert (await server.post("edge/simpleenroll", a_csr("anything"))).status == 403


@est(EstSettings(labels={"edge": EstLabel(EDGE_CA)}))
async def test_a_device_has_one_share_of_requests_whatever_it_calls_its_ca(server: EstServer) -> None:
    first, key = await server.issued(a_csr("edge-1")), a_key()
    share = server.service.requests.burst
    asked = [a_csr(f"CA {number}", key=key) for number in range(share + 1)]
    answers = [await server.post("edge/simpleenroll", csr, headers={}, peer=shown(first)) for csr in asked]
    assert [answer.status for answer in answers] == [200] * share + [429]


BACK = est(EstSettings(late_renewal={"device": LateRenewalRule(30 * DAY)}))


@BACK
async def test_a_device_that_was_off_comes_back_and_the_audit_chain_has_it(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(20 * DAY)
    assert (await enroll(server, a_csr("device-1"), first)).status == 200
    rows = await server.ca.database.all(ROWS, chain=MAIN, after=0, limit=100)
    assert [row["subject"] for row in rows if row["action"] == "certificate.comeback"] == ["device-1"]


@BACK
async def test_a_device_comes_back_by_simplereenroll_too(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(20 * DAY)
    answer = await server.post("simplereenroll", a_csr("device-1"), headers={}, peer=shown(first))
    assert answer.status == 200


@BACK
async def test_a_device_that_was_off_for_longer_does_not(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(40 * DAY)
    assert (await enroll(server, a_csr("device-1"), first)).status == 403


@BACK
async def test_a_revoked_device_does_not_come_back(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    await server.ca.revocations.certificate(first.thumbprint, OPERATOR)
    server.clock.move(2 * DAY)
    assert (await enroll(server, a_csr("device-1"), first)).status == 403


@BACK
async def test_a_copy_of_an_old_key_does_not_come_back(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    second = await server.issued(a_csr("device-1"), headers={}, peer=shown(first))
    await server.issued(a_csr("device-1"), headers={}, peer=shown(second))
    server.clock.move(2 * DAY)
    answer = await enroll(server, a_csr("device-1"), first)
    assert (answer.status, answer.text.splitlines()[0]) == (403, "The certificate has been replaced")


@BACK
async def test_a_copy_of_an_old_key_does_not_come_back_after_however_many_renewals(server: EstServer) -> None:
    key = a_key()
    first = last = await server.issued(a_csr("device-1", key=key))
    for _ in range(104):
        server.clock.move(timedelta(hours=4))
        last = await server.issued(a_csr("device-1", key=key), headers={}, peer=shown(last))
    assert (await enroll(server, a_csr("device-1"), first)).text.startswith("The certificate has been replaced")


@BACK
async def test_no_certificate_comes_back_of_a_device_that_was_revoked_since(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(DAY / 2)
    await server.issued(a_csr("device-1"), headers={}, peer=shown(first))
    server.clock.move(DAY)
    await server.ca.revocations.device("device-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert (await enroll(server, a_csr("device-1"), first)).status == 403
    # By a credential of its own it is another one from then on.
    again = await server.issued(a_csr("device-1"), headers={"Authorization": await a_token(server)})
    server.clock.move(2 * DAY)
    assert (await enroll(server, a_csr("device-1"), again)).status == 200


@BACK
async def test_a_device_that_is_off_can_be_revoked(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(2 * DAY)
    await server.ca.revocations.device("device-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert (await enroll(server, a_csr("device-1"), first)).status == 403
    with pytest.raises(DeviceNotAliveError):
        await server.ca.revocations.device("device-1", OPERATOR, RevocationReason.KEY_COMPROMISE)


async def test_an_expired_certificate_that_nothing_lets_come_back_is_refused_without_a_look(server: EstServer) -> None:
    first, looked = await server.issued(a_csr("device-1")), list[str]()

    async def look(name: str) -> set[Thumbprint]:
        looked.append(name)
        return set()

    server.service.callers.presented_by = look
    server.clock.move(2 * DAY)
    assert (await enroll(server, a_csr("device-1"), first)).status == 401
    assert not looked


@BACK
async def test_an_expired_certificate_has_its_share_of_looks_also_where_it_is_refused(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(2 * DAY)
    share = server.service.callers.late_renewals.burst
    answers = [await enroll(server, a_csr("device-2"), first) for _ in range(share + 1)]
    assert [answer.status for answer in answers] == [403] * share + [429]


@BACK
async def test_a_comeback_is_for_the_devices_own_name(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(2 * DAY)
    assert (await enroll(server, a_csr("device-2"), first)).status == 403


@est(EstSettings(late_renewal={"device": LateRenewalRule(30 * DAY, approval=True)}))
async def test_a_comeback_may_wait_for_an_operator(server: EstServer) -> None:
    first, key = await server.issued(a_csr("device-1")), a_key()
    server.clock.move(2 * DAY)
    assert (await enroll(server, a_csr("device-1", key=key), first)).status == 202
    (waiting,) = await server.service.approvals.page("", 10)
    await server.service.approvals.decide(waiting.id, is_approved=True, actor="operator:test")
    assert (await enroll(server, a_csr("device-1", key=key), first)).status == 200


@est(
    EstSettings(labels={"lax": EstLabel(replace(DEVICE, name="lax"))}, late_renewal={"lax": LateRenewalRule(30 * DAY)})
)
async def test_a_device_does_not_come_back_by_the_label_of_a_laxer_profile(server: EstServer) -> None:
    first = await server.issued(a_csr("device-1"))
    server.clock.move(2 * DAY)
    answer = await server.post("lax/simpleenroll", a_csr("device-1"), headers={}, peer=shown(first))
    assert answer.status == 401


@est(EstSettings(max_live=2))
async def test_a_name_has_so_many_certificates_at_a_time_and_no_more(server: EstServer) -> None:
    holder = await server.issued(a_csr("device-1"))
    server.clock.move(DAY / 2)
    answers = [await enroll(server, a_csr("device-1"), holder) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 403]
    assert (await server.post("simpleenroll", a_csr("device-2"))).status == 200
    (renewed,) = wire.parse_certs_only(answers[0].body)
    server.clock.move(DAY * 0.6)
    assert (await enroll(server, a_csr("device-1"), renewed)).status == 200, "the first has ended"


async def test_an_answer_says_when_to_renew(server: EstServer) -> None:
    answer = await server.post("simpleenroll", a_csr("device-1"))
    window = wire.parse_window(answer.headers["renewal-window"])
    (leaf,) = wire.parse_certs_only(answer.body)
    lifetime = leaf.not_after - leaf.not_before
    assert window is not None
    assert [(one - leaf.not_before) / lifetime for one in window] == [
        pytest.approx(0.6, abs=0.01),
        pytest.approx(0.8, abs=0.01),
    ]


@est(EstSettings(renewals_per_s=1.0))
async def test_a_herd_is_given_turns_and_each_is_let_through_at_its_turn(server: EstServer) -> None:
    answers = [await server.post("simpleenroll", a_csr(f"device-{n}")) for n in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 503, 503, 503]
    server.clock.move(timedelta(seconds=int(answers[-1].headers["retry-after"])))
    assert (await server.post("simpleenroll", a_csr("device-5"))).status == 200
