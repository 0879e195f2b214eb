"""Performatives as clients send them, and as pyamqp has to read them: with all trailing nulls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.composite import encode_composite
from birthmark.amqp.errors import AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    SENDER,
    AcceptedOutcome,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    ErrorInfo,
    Flow,
    Open,
    Performative,
    RejectedOutcome,
    Source,
    Target,
    Transfer,
    decode_performative,
    encode_performative,
    error_of,
    without_description,
)
from birthmark.amqp.values import DescribedValue, Symbol, ULong
from support.amqp.amqp_strategies import performatives

# Bodies of frames, recorded from unmodified clients on 2026-11-30.
PYAMQP = {  # azure-eventhub 5.15.1
    "005310c0280aa1026331a10168700010000060ffff4040404040c11102a30770726f64756374a005617a73646b": Open(
        "c1", "h", 1_048_576, 65_535, properties={Symbol("product"): b"azsdk"}
    ),
    "005311c0150840437000010000700001000070ffffffff404040": Begin(None, 0, 65_536, 65_536),
    "005312c0a80ea1016c43560150005000005328c0420ba1286875622f436f6e73756d657247726f7570732f2444656661756c742f5061"
    "72746974696f6e732f3043a30b73657373696f6e2d656e64435600404040404040005329c01707a1017443a30b73657373696f6e2d65"
    "6e6443560040404040404440e03201b30000002c636f6d2e6d6963726f736f66743a656e61626c652d72656365697665722d72756e74"
    "696d652d6d657472696340": Attach(
        "l",
        0,
        RECEIVER,
        0,
        0,
        Source("hub/ConsumerGroups/$Default/Partitions/0", 0, "session-end", 0, dynamic=False),
        Target("t", 0, "session-end", 0, dynamic=False),
        max_message_size=0,
        desired_capabilities=("com.microsoft:enable-receiver-runtime-metric",),
    ),
    "005313c0180b4370000100004370000100004343700000012c40404040": Flow(0, 65_536, 0, 65_536, 0, 0, 300),
    "005314c0130b4343a0040000000043560056004040404040": Transfer(0, 0, b"\0\0\0\0", 0, settled=False),
    "005315c00c065601434356010053244540": Disposition(RECEIVER, 0, 0, settled=True, state=ACCEPTED),
    "005316c0050343560140": Detach(0, closed=True),
    "005317c0020140": End(),
    "005318c0020140": Close(),
}
RHEA = {  # 3.0.5
    "005310d00000000800000001a1026331": Open("c1"),
    "005311d000000010000000044043700000080070ffffffff": Begin(None, 0, 2048, 0xFFFFFFFF),
    "005312d00000002d00000007a1017243414040005328d00000001600000001a1"
    "102f646576696365732f64312f7477696e00532945": Attach(
        "r", 0, RECEIVER, source=Source("/devices/d1/twin"), target=Target()
    ),
    "005312d0000000250000000aa10173520142404000532845005329d00000000a00000001a10424636273404043": Attach(
        "s", 1, SENDER, source=Source(), target=Target("$cbs"), initial_delivery_count=0
    ),
}
UAMQP = {  # 1.6.11, which omits trailing nulls
    "005310c03a04a12434636333343431302d383639612d343632362d623965382d663963626565623130333338a1096c6f63616c686f7374700001"
    "000060ffff": Open("4cc34410-869a-4626-b9e8-f9cbeeb10338", "localhost", 65_536),
    "005311c0120540437000010000700001000070ffffffff": Begin(None, 0, 65_536, 65_536),
    "005312c0900ba13272656365697665722d6c696e6b2d39396439666163612d376237362d343631612d383837362d366339623438383238323439"
    "434150005001005328c01801a115616d7170733a2f2f6c6f63616c686f73742f702f30005329c02701a12434636333343431302d383639612d34"
    "3632362d623965382d663963626565623130333338404040800000000000100000": Attach(
        "receiver-link-99d9faca-7b76-461a-8876-6c9b48828249",
        0,
        RECEIVER,
        0,
        1,
        Source("amqps://localhost/p/0"),
        Target("4cc34410-869a-4626-b9e8-f9cbeeb10338"),
        max_message_size=1_048_576,
    ),
    "005313c014074370000100004370000100004343700000012c": Flow(0, 65_536, 0, 65_536, 0, 0, 300),
    "005315c00b0541520152014100532445": Disposition(RECEIVER, 1, 1, settled=True, state=ACCEPTED),
}
OURS: dict[str, Performative] = {
    "005310c0130aa101634070ffffffff60ffff404040404040": Open("c"),
    "005311c00f0840435201520270ffffffff404040": Begin(None, 0, 1, 2),
    "005312c0330ea1016e434150025000005328c00e0ba101614040404040404040"
    "4040005329c00a07a1016240404040404040424040404040": Attach(
        "n", 0, RECEIVER, source=Source("a"), target=Target("b")
    ),
    "005313c00f0b4052015202520340404040424240": Flow(None, 1, 2, 3),
    "005314c0100b52015202a001744040424040424242": Transfer(1, 2, b"t"),
    "005315c00d064152014042005324c0010042": Disposition(RECEIVER, 1, state=ACCEPTED),
    "005316c0110352014100531dc00803a303613a624040": Detach(1, closed=True, error=ErrorInfo("a:b")),
    "005317c0020140": End(),
    "005318c0020140": Close(),
}
FIELDS = {Open: 10, Begin: 8, Attach: 14, Flow: 11, Transfer: 11, Disposition: 6, Detach: 3, End: 1, Close: 1}


@pytest.mark.parametrize(("body", "performative"), [*PYAMQP.items(), *RHEA.items(), *UAMQP.items()])
def test_performatives_of_clients_are_read(body: str, performative: Performative) -> None:
    data = bytes.fromhex(body)
    assert decode_performative(data + b"payload") == (performative, len(data))


@pytest.mark.parametrize(("body", "performative"), OURS.items())
def test_our_performatives_have_every_field(body: str, performative: Performative) -> None:
    assert encode_performative(performative).hex() == body


@given(performatives)
def test_a_performative_comes_back_as_it_was(performative: Performative) -> None:
    data = encode_performative(performative)
    assert decode_performative(data) == (performative, len(data))


@given(performatives)
def test_all_fields_are_written_behind_a_small_descriptor(performative: Performative) -> None:
    data = encode_performative(performative)
    assert data[:2] == b"\x00\x53"
    assert data[3] in {0xC0, 0xD0}
    count = data[5] if data[3] == 0xC0 else int.from_bytes(data[8:12])
    assert count == FIELDS[type(performative)]


def test_an_error_has_three_fields() -> None:
    assert encode_composite(ErrorInfo("a:b")) == bytes.fromhex("00531dc00803a303613a624040")


@given(st.binary(max_size=60))
def test_any_body_is_a_performative_or_an_amqp_error(body: bytes) -> None:
    for data in (body, b"\x00\x53\x14" + body, b"\x00\x53\x12\xc0" + body):
        try:
            performative, _ = decode_performative(data)
        except AmqpError:
            continue
        encode_performative(performative)


@pytest.mark.parametrize(
    ("body", "condition", "reason"),
    [
        ("005310 c0020140", "amqp:invalid-field", "container_id is missing"),
        ("005310 45", "amqp:invalid-field", "container_id is missing"),
        ("005310 c0020143", "amqp:invalid-field", "container_id is not of type string"),
        ("005317 c003024040", "amqp:invalid-field", "has 2 fields"),
        ("005314 c0020141", "amqp:invalid-field", "handle is not of type uint"),
        ("005316 c00703 43 42 005324 45", "amqp:invalid-field", "not of type error"),
        ("005316 c00803 43 42 00a3016c45", "amqp:invalid-field", "not of type error"),
        ("005312 c00705 a10161 43 41 40 40", "amqp:decode-error", "the size"),
        ("005310 a10161", "amqp:decode-error", "not a list"),
        ("40", "amqp:decode-error", "described type"),
        ("00531d c00603 a30161 4040", "amqp:not-allowed", "performative"),
        ("005324 45", "amqp:not-allowed", "performative"),
        ("005399 45", "amqp:not-allowed", "performative"),
        ("00", "amqp:decode-error", "too early"),
    ],
)
def test_malformed_performatives_are_refused(body: str, condition: str, reason: str) -> None:
    with pytest.raises(AmqpError, match=reason) as refused:
        decode_performative(bytes.fromhex(body))
    assert refused.value.condition == condition


@pytest.mark.parametrize(("array", "capabilities"), [("a30161", ("a",)), ("e00200a1", ())])
def test_capabilities_may_be_one_symbol_or_an_empty_array(array: str, capabilities: tuple[str, ...]) -> None:
    fields = bytes.fromhex("a10163 40404040404040" + array)
    performative, _ = decode_performative(bytes.fromhex("005310c0") + bytes((len(fields) + 1, 9)) + fields)
    assert performative == Open("c", desired_capabilities=capabilities)


def test_capabilities_that_are_strings_are_refused() -> None:
    fields = bytes.fromhex("a10163 40404040404040 e00401a10161")
    with pytest.raises(AmqpError, match="elements of type str"):
        decode_performative(bytes.fromhex("005310c0") + bytes((len(fields) + 1, 9)) + fields)


@pytest.mark.parametrize("descriptor", ["a3 0d 616d71703a656e643a6c697374", "80 0000000000000017"])
def test_descriptors_in_other_encodings_are_read(descriptor: str) -> None:
    assert decode_performative(bytes.fromhex("00" + descriptor + "45"))[0] == End()


def test_a_coordinator_is_a_target_that_is_described() -> None:
    attach, _ = decode_performative(bytes.fromhex("005312 c01207 a1016e 43 42 40 40 005328 45 005330 c00100"))
    assert isinstance(attach, Attach)
    assert attach.target == DescribedValue(ULong(0x30), [])


def test_a_value_outside_its_type_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError, match="Detach"):
        encode_performative(Detach(2**32))


@pytest.mark.parametrize(
    "performative",
    [Detach(0, error=ErrorInfo("a:b", "text")), End(ErrorInfo("a:b", "text")), Close(ErrorInfo("a:b", "text"))],
)
def test_an_error_can_be_sent_without_its_description(performative: Any) -> None:
    shortest: Any = without_description(performative)
    assert shortest.error == ErrorInfo("a:b")


def test_a_rejection_can_be_sent_without_its_description() -> None:
    disposition = Disposition(RECEIVER, 0, state=RejectedOutcome(ErrorInfo("a:b", "text")))
    assert without_description(disposition) == Disposition(RECEIVER, 0, state=RejectedOutcome(ErrorInfo("a:b")))
    assert without_description(End()) == End()


def test_the_texts_of_a_peers_error_are_shortened_for_logs() -> None:
    error = error_of(ErrorInfo("a:b", "x\n" * 500), AmqpErrorScope.LINK)
    assert error.description == "x?" * 100
    assert str(error).startswith("a:b: x?")


def test_outcomes_without_fields_are_equal() -> None:
    assert AcceptedOutcome() == ACCEPTED
