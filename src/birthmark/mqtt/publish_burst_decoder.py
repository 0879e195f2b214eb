"""Fast path for a run of plain PUBLISH packets in one chunk (section 3.3).

Telemetry arrives as QoS 0 or 1 messages, many in a chunk. This loop reads them without a call per field and stops
before anything unusual. Every refusal is therefore decided in one module: `codec`, and `negotiation` for MQTT 5.
Properties are parsed once for consecutive messages with equal properties.
"""

from birthmark.mqtt.errors import RemoteProtocolError
from birthmark.mqtt.negotiated_limits_and_aliases import Terms
from birthmark.mqtt.packets import Publish
from birthmark.mqtt.properties import Properties, PropertyId, PropertyScope, get_property, read_properties
from birthmark.mqtt.topics import read_name

MAX_BURST = 64  # maximum messages per batch: bounds a chunk's memory, and the time until the next check
_PLAIN = frozenset({0x30, 0x31, 0x32, 0x33})  # QoS 0 and 1, retained or not, never a duplicate
_NOT_RETAINED = frozenset({0x30, 0x32})
_NONE: Properties = ()


def read_burst(  # noqa: C901, PLR0912 (one flat loop: a call costs as much as the work)
    chunk: bytes, offset: int, max_packet_bytes: int, max_topic_bytes: int, terms: Terms | None
) -> tuple[list[Publish], list[int], int]:
    """Return complete plain PUBLISH packets at `at`, their packet IDs, and the position of the next packet.

    `terms` belong to an MQTT 5 connection; its topic aliases are registered there.
    """
    out: list[Publish] = []
    ids: list[int] = []
    size = len(chunk)
    if offset >= size or chunk[offset] & 0xF0 != 0x30:
        return out, ids, offset
    last_raw, last_topic = b"", ""
    plain = _PLAIN if terms is None or terms.ours.has_retain else _NOT_RETAINED
    while size - offset > 4 and len(out) < MAX_BURST:
        first, length, topic_at = chunk[offset], chunk[offset + 1], offset + 4
        if first not in plain:
            break
        if length & 0x80:
            high = chunk[offset + 2]
            if high & 0x80 or not high:
                break
            length, topic_at = length & 0x7F | high << 7, offset + 5
        end = topic_at - 2 + length
        if end > size or length < 3 or end - offset > max_packet_bytes:
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
        offset = (
            _read_alike(chunk, offset, payload_at, end, out, ids, chunk[block_at:payload_at]) if end < size else end
        )
    return out, ids, offset


def _read_block(chunk: bytes, offset: int, end: int, topic: str, terms: Terms) -> tuple[str, Properties, int] | None:
    """Return topic, properties and payload position, or None if `codec` must handle the packet."""
    try:
        properties, payload_at = read_properties(chunk, offset, PropertyScope.PUBLISH)
        if payload_at > end or get_property(properties, PropertyId.PAYLOAD_FORMAT):
            return None
        topic, properties = terms.resolve(topic, properties)
    except RemoteProtocolError:
        return None
    return topic, properties, payload_at


def _read_alike(  # noqa: PLR0917 (state of the loop above)
    chunk: bytes, offset: int, payload_at: int, end: int, out: list[Publish], ids: list[int], block: bytes
) -> int:
    """Read packets that differ from the last of `out`, located at `at`, only in packet ID and payload.

    Return the position of the next packet. Flags, length, topic and the property `block` are identical bytes and
    therefore valid.
    """
    size, body_at = end - offset, payload_at - offset
    block_at = body_at - len(block)
    id_at = block_at - 2
    last = out[-1]
    qos, last_at = last.qos, len(chunk) - size
    head = chunk[offset : offset + (id_at if qos else body_at)]
    offset = end
    if offset > last_at or not chunk.startswith(head, offset):
        return offset
    topic, retain, properties = last.topic, last.retain, last.properties
    mark, rest = block[:1], block[1:]
    packet_id = None
    while offset <= last_at and len(out) < MAX_BURST and chunk.startswith(head, offset):
        if qos:
            packet_id = chunk[offset + id_at] << 8 | chunk[offset + id_at + 1]
            if not packet_id or (mark and chunk[offset + block_at] != mark[0]):
                break
            if rest and not chunk.startswith(rest, offset + block_at + 1):
                break
            ids.append(packet_id)
        out.append(Publish(topic, chunk[offset + body_at : offset + size], qos, retain, False, packet_id, properties))  # noqa: FBT003 (as above)
        offset += size
    return offset
