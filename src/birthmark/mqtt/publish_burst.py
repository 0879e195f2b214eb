"""The fast path: a run of plain PUBLISH packets out of one chunk (section 3.3).

Telemetry comes as QoS 0 or 1 messages, many in a chunk. This loop reads them without a call per field and stops before
anything unusual, so that every refusal is decided in one place: `codec`, and `terms` for MQTT 5. Properties are read
once for messages that come with the same.
"""

from birthmark.mqtt.errors import RemoteProtocolError
from birthmark.mqtt.negotiation import Terms
from birthmark.mqtt.packets import Publish
from birthmark.mqtt.properties import Properties, PropertyId, PropertyScope, get_property, read_properties
from birthmark.mqtt.topics import read_name

MAX_BURST = 64  # messages made at a time: bounds what one chunk may cost in memory, and in time before the next look
_PLAIN = frozenset({0x30, 0x31, 0x32, 0x33})  # QoS 0 and 1, retained or not, never a duplicate
_NOT_RETAINED = frozenset({0x30, 0x32})
_NONE: Properties = ()


def read_burst(  # noqa: C901, PLR0912 (one flat loop is the point: a call costs as much as the work)
    chunk: bytes, at: int, max_packet_bytes: int, max_topic_bytes: int, terms: Terms | None
) -> tuple[list[Publish], list[int], int]:
    """Return the plain PUBLISH packets that stand whole at `at`, their packet ids, and where the next packet begins.

    `terms` are those of a connection of MQTT 5, which learn its topic aliases.
    """
    out: list[Publish] = []
    ids: list[int] = []
    size = len(chunk)
    if at >= size or chunk[at] & 0xF0 != 0x30:
        return out, ids, at
    last_raw, last_topic = b"", ""
    plain = _PLAIN if terms is None or terms.ours.has_retain else _NOT_RETAINED
    while size - at > 4 and len(out) < MAX_BURST:
        first, length, topic_at = chunk[at], chunk[at + 1], at + 4
        if first not in plain:
            break
        if length & 0x80:
            high = chunk[at + 2]
            if high & 0x80 or not high:
                break
            length, topic_at = length & 0x7F | high << 7, at + 5
        end = topic_at - 2 + length
        if end > size or length < 3 or end - at > max_packet_bytes:
            break
        topic_size = chunk[topic_at - 2] << 8 | chunk[topic_at - 1]
        payload_at = topic_at + topic_size
        packet_id = None
        qos = first >> 1 & 1
        if qos:
            payload_at += 2
            if payload_at > end:
                break
            packet_id = chunk[payload_at - 2] << 8 | chunk[payload_at - 1]
        block_at = payload_at
        if terms is not None:
            payload_at += 1
        if payload_at > end or packet_id == 0 or topic_size > max_topic_bytes:
            break
        raw = chunk[topic_at : topic_at + topic_size]
        if raw != last_raw:
            known = read_name(raw) if raw else ""
            if known is None:
                break
            last_raw, last_topic = raw, known
        topic, properties = last_topic, _NONE
        if terms is not None and chunk[block_at]:
            if (found := _read_block(chunk, block_at, end, topic, terms)) is None:
                break
            topic, properties, payload_at = found
        if not topic:
            break
        out.append(Publish(topic, chunk[payload_at:end], qos, bool(first & 1), False, packet_id, properties))  # noqa: FBT003 (positional is faster)
        if packet_id is not None:
            ids.append(packet_id)
        at = _read_alike(chunk, at, payload_at, end, out, ids, chunk[block_at:payload_at]) if end < size else end
    return out, ids, at


def _read_block(chunk: bytes, at: int, end: int, topic: str, terms: Terms) -> tuple[str, Properties, int] | None:
    """Return topic, properties and where the payload begins; None for what `codec` has to judge."""
    try:
        properties, payload_at = read_properties(chunk, at, PropertyScope.PUBLISH)
        if payload_at > end or get_property(properties, PropertyId.PAYLOAD_FORMAT):
            return None
        topic, properties = terms.resolve(topic, properties)
    except RemoteProtocolError:
        return None
    return topic, properties, payload_at


def _read_alike(  # noqa: PLR0917 (the state of the loop above)
    chunk: bytes, at: int, payload_at: int, end: int, out: list[Publish], ids: list[int], block: bytes
) -> int:
    """Read on while packets differ from the last of `out`, which stands at `at`, only in packet id and payload.

    Return where the next packet begins. Flags, length, topic and the `block` of properties are the same bytes, so they
    are valid as well.
    """
    size, body_at = end - at, payload_at - at
    block_at = body_at - len(block)
    id_at = block_at - 2
    last = out[-1]
    qos, last_at = last.qos, len(chunk) - size
    head = chunk[at : at + (id_at if qos else body_at)]
    at = end
    if at > last_at or not chunk.startswith(head, at):
        return at
    topic, retain, properties = last.topic, last.retain, last.properties
    mark, rest = block[:1], block[1:]
    packet_id = None
    while at <= last_at and len(out) < MAX_BURST and chunk.startswith(head, at):
        if qos:
            packet_id = chunk[at + id_at] << 8 | chunk[at + id_at + 1]
            if not packet_id or (mark and chunk[at + block_at] != mark[0]):
                break
            if rest and not chunk.startswith(rest, at + block_at + 1):
                break
            ids.append(packet_id)
        out.append(Publish(topic, chunk[at + body_at : at + size], qos, retain, False, packet_id, properties))  # noqa: FBT003 (as above)
        at += size
    return at
