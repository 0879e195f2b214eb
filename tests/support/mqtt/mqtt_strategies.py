"""Hypothesis strategies for MQTT packets of both levels."""

from typing import cast

from hypothesis import strategies as st

from birthmark.mqtt.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.mqtt.properties import _NEVER_ZERO, _TABLE, Properties, PropertyId, PropertyScope, _Type

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=24)
levels = st.one_of(st.just("+"), st.text("ab$ é", max_size=3))
filters = st.builds(
    lambda parts, rest: "/".join([*parts, *rest]),
    st.lists(levels, min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)
payloads = st.binary(max_size=40)
packet_ids = st.integers(1, 0xFFFF)

_VALUES = {
    _Type.FLAG: st.integers(0, 1),
    _Type.U16: st.integers(1, 0xFFFF),
    _Type.U32: st.integers(1, 0xFFFFFFFF),
    _Type.VARINT: st.integers(1, 268_435_455),
    _Type.UTF8: text,
    _Type.BINARY: payloads,
    _Type.PAIR: st.tuples(text, text),
}
assert all(_TABLE[key][0] is not _Type.FLAG for key in _NEVER_ZERO)


def properties(place: PropertyScope, level: int) -> st.SearchStrategy[Properties]:
    if level == 4:
        return st.just(())
    allowed = [key for key in PropertyId if place in _TABLE[key][1]]
    return st.lists(
        st.sampled_from(allowed).flatmap(
            lambda key: st.tuples(st.just(key), names if key is PropertyId.RESPONSE_TOPIC else _VALUES[_TABLE[key][0]])
        ),
        max_size=5,
        unique_by=lambda pair: pair if pair[0] is PropertyId.USER_PROPERTY else pair[0],
    ).map(lambda pairs: cast("Properties", tuple(pairs)))


def connects(level: int) -> st.SearchStrategy[Connect]:
    wills = st.builds(
        WillMessage, names, payloads, st.integers(0, 2), st.booleans(), properties(PropertyScope.WILL, level)
    )
    return st.builds(
        Connect,
        text.filter(bool),
        st.booleans(),
        st.integers(0, 0xFFFF),
        text,
        st.none() | payloads,
        st.none() | wills,
        st.just(level),
        properties(PropertyScope.CONNECT, level),
    )


def publishes(level: int) -> st.SearchStrategy[Publish]:
    block = properties(PropertyScope.PUBLISH, level)
    zero = st.builds(Publish, names, payloads, st.just(0), st.booleans(), st.just(False), st.none(), block)
    return zero | st.builds(
        Publish, names, payloads, st.integers(1, 2), st.booleans(), st.booleans(), packet_ids, block
    )


def packets(level: int) -> st.SearchStrategy[Packet]:
    is_5 = level == 5
    codes = st.sampled_from([0, 1, 2, 0x80, 0x87] if is_5 else [0, 1, 2, 0x80])
    code = st.integers(2, 255) if is_5 else st.just(0)
    ack = properties(PropertyScope.ACK, level)
    options = st.sampled_from([0, 1, 2, 0x04, 0x2D] if is_5 else [0, 1, 2])
    refusals = st.integers(2, 255) if is_5 else st.integers(1, 5)
    some = [
        connects(level),
        st.builds(ConnAck, st.booleans(), st.just(0), properties(PropertyScope.CONNACK, level)),
        st.builds(ConnAck, st.just(False), refusals, properties(PropertyScope.CONNACK, level)),
        publishes(level),
        *(st.builds(kind, packet_ids, code, ack) for kind in (PubAck, PubRec, PubRel, PubComp)),
        st.builds(
            Subscribe,
            packet_ids,
            st.lists(st.tuples(filters, options), min_size=1, max_size=4).map(tuple),
            properties(PropertyScope.SUBSCRIBE, level),
        ),
        st.builds(SubAck, packet_ids, st.lists(codes, min_size=1, max_size=4).map(tuple), ack),
        st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(filters, min_size=1, max_size=4).map(tuple),
            properties(PropertyScope.UNSUBSCRIBE, level),
        ),
        st.builds(
            UnsubAck, packet_ids, st.lists(codes, min_size=1, max_size=4).map(tuple) if is_5 else st.just(()), ack
        ),
        st.just(PingReq()),
        st.just(PingResp()),
        st.builds(Disconnect, code, properties(PropertyScope.DISCONNECT, level)),
    ]
    if is_5:
        some.append(st.builds(Auth, code, properties(PropertyScope.AUTH, level)))
    return st.one_of(*some)
