"""The SASL layer by client: ANONYMOUS, PLAIN, MSSBCBS, EXTERNAL, and none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.composite import decode_composite
from birthmark.amqp.connection_engine import AmqpState
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened, SaslStarted
from birthmark.amqp.framer import AMQP_HEADER, SASL_HEADER, TLS_HEADER
from birthmark.amqp.performatives import Open
from birthmark.amqp.sasl import (
    SaslIdentity,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    decode_init,
    encode_mechanisms,
    parse_plain,
)
from support.amqp.amqp_peer import AmqpPeer, only


def a_sasl_peer() -> AmqpPeer:
    peer = AmqpPeer(AmqpEngine())
    peer.send_bytes(SASL_HEADER)
    assert peer.header() == SASL_HEADER
    (offer,) = peer.sasl_frames()
    assert offer == SaslMechanisms(("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"))
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
