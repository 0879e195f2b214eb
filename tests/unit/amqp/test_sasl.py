"""The SASL layer by client: ANONYMOUS, PLAIN, MSSBCBS, EXTERNAL, TPM with its challenges, and none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.composite import decode_composite, encode_composite
from birthmark.amqp.connection_engine import AmqpState
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened, SaslResponded, SaslStarted
from birthmark.amqp.framer import AMQP_HEADER, SASL_FRAME, SASL_HEADER, TLS_HEADER, encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import Open
from birthmark.amqp.sasl import (
    MAX_CHALLENGE_BYTES,
    SaslChallenge,
    SaslIdentity,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    decode_init,
    encode_challenge,
    encode_mechanisms,
    parse_plain,
)
from support.amqp.amqp_peer import AmqpPeer, only


def a_sasl_peer() -> AmqpPeer:
    peer = AmqpPeer(AmqpEngine())
    peer.send_bytes(SASL_HEADER)
    assert peer.header() == SASL_HEADER
    (offer,) = peer.sasl_frames()
    assert offer == SaslMechanisms(("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL", "TPM"))
    return peer


def test_mechanisms_have_golden_bytes() -> None:
    assert (
        encode_mechanisms(("PLAIN",)) == bytes.fromhex("0000001b 02010000 005340 c00e01 e00b01 b3 00000005") + b"PLAIN"
    )


def test_the_init_of_pyamqp_is_read() -> None:
    body = bytes.fromhex("005341c01103a309414e4f4e594d4f5553a000a10168")
    assert decode_init(body) == SaslInit("ANONYMOUS", b"", "h")


@pytest.mark.parametrize(
    ("init", "event"),
    [
        (SaslInit("ANONYMOUS", b"", "h"), SaslStarted("ANONYMOUS", "", "", "", "h")),
        (SaslInit("ANONYMOUS", b"policy"), SaslStarted("ANONYMOUS", "", "", "", None)),
        (SaslInit("MSSBCBS"), SaslStarted("MSSBCBS", "", "", "", None)),
        (SaslInit("EXTERNAL", b"d1"), SaslStarted("EXTERNAL", "", "", "d1", None)),
        (SaslInit("TPM", b"\0s\0id\0key", "s/x"), SaslStarted("TPM", "", "", "", "s/x", b"\0s\0id\0key")),
        (SaslInit("TPM"), SaslStarted("TPM", "", "", "", None)),
        (SaslInit("PLAIN", b"\0d1@sas.hub\0token"), SaslStarted("PLAIN", "d1@sas.hub", "token", "", None)),
    ],
)
def test_a_mechanism_gives_what_the_peer_presents(init: SaslInit, event: AmqpEvent) -> None:
    assert a_sasl_peer().send_init(init) == [event]


def test_an_accepted_peer_opens_its_connection() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("ANONYMOUS", b""))
    peer.engine.accept_sasl()
    assert peer.sasl_frames() == [SaslOutcome(0)]
    peer.send_bytes(AMQP_HEADER)
    assert peer.header() == AMQP_HEADER
    assert only(ConnectionOpened, peer.send(Open("c"))).used_sasl


def test_frames_before_the_outcome_wait_for_it() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("ANONYMOUS", b""))
    assert peer.send_bytes(AMQP_HEADER) == []
    peer.engine.accept_sasl()
    assert peer.engine.next_events() == []
    assert peer.engine.state is AmqpState.OPEN


def test_a_refused_peer_receives_the_outcome_and_the_connection_closes() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("PLAIN", b"\0u\0p"))
    peer.engine.refuse_sasl()
    assert peer.sasl_frames() == [SaslOutcome(1)]
    closed = only(ConnectionClosed, peer.engine.next_events())
    assert closed.error is not None
    assert closed.error.condition == "amqp:unauthorized-access"
    peer.engine.accept_sasl()  # too late: nothing happens
    assert peer.engine.data_to_send() == b""


@pytest.mark.parametrize(
    "init",
    [
        SaslInit("GSSAPI"),
        SaslInit("PLAIN"),
        SaslInit("PLAIN", b"\0user"),
        SaslInit("PLAIN", b"\0\0p"),
        SaslInit("PLAIN", b"\0\xff\0p"),
        SaslInit("EXTERNAL", b"\xff"),
    ],
)
def test_an_invalid_response_is_refused_without_a_decision(init: SaslInit) -> None:
    peer = a_sasl_peer()
    only(ConnectionClosed, peer.send_init(init))
    assert peer.sasl_frames() == [SaslOutcome(1)]


def test_a_second_sasl_layer_is_refused() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("MSSBCBS"))
    peer.engine.accept_sasl()
    only(ConnectionClosed, peer.send_bytes(SASL_HEADER))


def test_a_performative_in_the_sasl_layer_closes_the_connection() -> None:
    only(ConnectionClosed, a_sasl_peer().send(Open("c")))
    peer = a_sasl_peer()
    only(ConnectionClosed, peer.send_bytes(encode_mechanisms(("PLAIN",))))


def test_clients_without_sasl_are_served() -> None:
    peer = AmqpPeer(AmqpEngine())
    peer.send_bytes(AMQP_HEADER)
    assert peer.header() == AMQP_HEADER
    assert not only(ConnectionOpened, peer.send(Open("c"))).used_sasl


@pytest.mark.parametrize("header", [TLS_HEADER, b"AMQP\x00\x00\x09\x01", b"AMQP\x01\x01\x00\x00"])
def test_another_version_is_answered_with_ours(header: bytes) -> None:
    peer = AmqpPeer(AmqpEngine())
    only(ConnectionClosed, peer.send_bytes(header))
    assert peer.engine.data_to_send() == AMQP_HEADER


def test_a_server_without_mechanisms_has_no_sasl_layer() -> None:
    only(ConnectionClosed, AmqpPeer(AmqpEngine(mechanisms=())).send_bytes(SASL_HEADER))


@given(st.binary(max_size=40))
def test_any_plain_response_is_an_identity_or_an_amqp_error(response: bytes) -> None:
    try:
        identity = parse_plain(response)
    except AmqpError:
        return
    assert identity.authentication_id


def test_passwords_are_hidden() -> None:
    event = SaslStarted("PLAIN", "u", "secret", "", None)
    assert "secret" not in repr(SaslIdentity("u", "secret")) + repr(SaslInit("PLAIN", b"secret")) + repr(event)


def test_a_decision_without_a_question_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        AmqpEngine().accept_sasl()


def test_the_outcome_is_a_full_list() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("MSSBCBS"))
    peer.engine.accept_sasl()
    data = peer.engine.data_to_send()
    assert data == bytes.fromhex("00000011 02 01 0000 005344 c0 04 02 5000 40")
    assert decode_composite(data[8:])[0] == SaslOutcome(0)


# ---- challenges


def a_challenged_peer(challenge: bytes = b"\0") -> AmqpPeer:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("TPM", b"init"))
    peer.engine.challenge_sasl(challenge)
    assert peer.sasl_frames() == [SaslChallenge(challenge)]
    return peer


def respond(peer: AmqpPeer, response: bytes) -> list[AmqpEvent]:
    return peer.send_bytes(encode_frame(0, encode_composite(SaslResponse(response)), SASL_FRAME))


def test_a_challenge_has_golden_bytes() -> None:
    assert encode_challenge(b"\x80ab") == bytes.fromhex("00000013 02010000 005342 c00601 a003806162")


def test_challenges_alternate_with_responses_until_the_decision() -> None:
    peer = a_challenged_peer()
    assert respond(peer, b"\0root") == [SaslResponded(b"\0root")]
    peer.engine.challenge_sasl(b"\xc0sealed")
    assert peer.sasl_frames() == [SaslChallenge(b"\xc0sealed")]
    assert respond(peer, b"\0token") == [SaslResponded(b"\0token")]
    peer.engine.accept_sasl()
    assert peer.sasl_frames() == [SaslOutcome(0)]
    peer.send_bytes(AMQP_HEADER)
    assert peer.header() == AMQP_HEADER
    assert only(ConnectionOpened, peer.send(Open("c"))).used_sasl


def test_a_response_that_comes_too_early_waits_for_the_challenge() -> None:
    peer = a_sasl_peer()
    peer.send_init(SaslInit("TPM", b"init"))
    assert respond(peer, b"early") == []
    peer.engine.challenge_sasl(b"\0")
    assert peer.engine.next_events() == [SaslResponded(b"early")]


def test_a_challenged_peer_can_be_refused() -> None:
    peer = a_challenged_peer()
    respond(peer, b"wrong")
    peer.engine.refuse_sasl()
    assert peer.sasl_frames() == [SaslOutcome(1)]
    only(ConnectionClosed, peer.engine.next_events())
    peer.engine.challenge_sasl(b"\0")  # too late: nothing happens
    assert peer.engine.data_to_send() == b""


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(0, encode_composite(SaslInit("TPM", b"again")), SASL_FRAME),
        encode_frame(0, encode_composite(SaslChallenge(b"x")), SASL_FRAME),
        encode_frame(0, encode_composite(SaslOutcome(0)), SASL_FRAME),
        encode_frame(0, encode_composite(SaslResponse(b"x")) + b"\x40", SASL_FRAME),
        encode_frame(0, encode_composite(SaslResponse(b"x"))),
        encode_frame(0, b"", SASL_FRAME),
        encode_frame(0, bytes.fromhex("005343 c0 03 01 a1 01"), SASL_FRAME),
        AMQP_HEADER,
    ],
)
def test_any_other_frame_after_a_challenge_closes_the_connection(frame: bytes) -> None:
    peer = a_challenged_peer()
    only(ConnectionClosed, peer.send_bytes(frame))
    assert peer.engine.state is AmqpState.CLOSED


def test_a_response_without_a_challenge_closes_the_connection() -> None:
    only(ConnectionClosed, respond(a_sasl_peer(), b"x"))


def test_the_number_of_challenges_is_bounded() -> None:
    peer = AmqpPeer(AmqpEngine(AmqpLimits(max_sasl_challenges=2)))
    peer.send_bytes(SASL_HEADER)
    peer.header()
    peer.sasl_frames()
    peer.send_init(SaslInit("TPM"))
    for _ in range(2):
        peer.engine.challenge_sasl(b"\0")
        respond(peer, b"x")
    peer.sasl_frames()
    peer.engine.challenge_sasl(b"\0")
    assert peer.sasl_frames() == [SaslOutcome(1)]
    assert only(ConnectionClosed, peer.engine.next_events()).error is not None


def test_a_frame_of_the_sasl_layer_has_its_own_limit() -> None:
    limit = AmqpLimits().max_sasl_frame_bytes
    assert respond(a_challenged_peer(), b"x" * (limit - 32))
    only(ConnectionClosed, a_challenged_peer().send_bytes((limit + 1).to_bytes(4)))
    peer = a_sasl_peer()
    peer.send_init(SaslInit("MSSBCBS"))
    peer.engine.accept_sasl()
    peer.send_bytes(AMQP_HEADER)
    only(ConnectionClosed, peer.send_bytes((513).to_bytes(4)))


def test_the_largest_challenge_fits_in_a_frame_of_the_standard() -> None:
    assert len(encode_challenge(bytes(MAX_CHALLENGE_BYTES))) <= 512
    with pytest.raises(LocalProtocolError):
        encode_challenge(bytes(MAX_CHALLENGE_BYTES + 1))


def test_a_challenge_without_a_question_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        a_challenged_peer().engine.challenge_sasl(b"\0")


def test_a_silent_challenged_peer_is_closed() -> None:
    peer = a_challenged_peer()
    only(ConnectionClosed, peer.engine.check_deadlines(AmqpLimits().open_timeout_s + 1))


def test_responses_are_hidden() -> None:
    started = SaslStarted("TPM", "", "", "", None, b"secret")
    assert "secret" not in repr(started) + repr(SaslResponded(b"secret")) + repr(SaslResponse(b"secret"))
