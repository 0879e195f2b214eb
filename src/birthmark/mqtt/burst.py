"""The fast path: a run of plain PUBLISH packets out of one chunk (section 3.3).

Telemetry comes as QoS 0 or 1 messages, many in a chunk. This loop reads them without a call per field and stops before
anything unusual, so that every refusal is decided in one place: `codec`.
"""

from birthmark.mqtt.packets import Publish
from birthmark.mqtt.topics import is_valid_name

MAX_BURST = 256  # messages made at a time: bounds what one chunk may cost in memory
_PLAIN = frozenset({0x30, 0x31, 0x32, 0x33})  # QoS 0 and 1, retained or not, never a duplicate


def read_burst(  # noqa: C901, PLR0912 (one flat loop is the point: a call costs as much as the work)
    chunk: bytes, at: int, max_packet_bytes: int, max_topic_bytes: int, *, is_level_5: bool
) -> tuple[list[Publish], int]:
    """Return the plain PUBLISH packets that stand whole at `at`, and where the next packet begins."""
    out: list[Publish] = []
    size = len(chunk)
    last_raw, last_topic = b"", ""
    while size - at > 4 and len(out) < MAX_BURST:
        first, length, topic_at = chunk[at], chunk[at + 1], at + 4
        if first not in _PLAIN:
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
        if is_level_5:
            payload_at += 1
        if payload_at > end or packet_id == 0 or topic_size > max_topic_bytes:
            break
        if is_level_5 and chunk[payload_at - 1]:
            break
        raw = chunk[topic_at : topic_at + topic_size]
        if raw != last_raw:
            try:
                last_topic = raw.decode()
            except UnicodeDecodeError:
                break
            if not is_valid_name(last_topic):
                break
            last_raw = raw
        elif not raw:
            break
        out.append(Publish(last_topic, chunk[payload_at:end], qos, bool(first & 1), False, packet_id))  # noqa: FBT003 (positional is faster)
        at = _read_alike(chunk, at, payload_at, end, out, is_level_5=is_level_5) if end < size else end
    return out, at


def _read_alike(chunk: bytes, at: int, payload_at: int, end: int, out: list[Publish], *, is_level_5: bool) -> int:
    """Read on while packets differ from the last of `out`, which stands at `at`, only in packet id and payload.

    Return where the next packet begins. Flags, length and topic are the same bytes, so they are valid as well.
    """
    last, size, body_at = out[-1], end - at, payload_at - at
    topic, qos, retain, packet_id = last.topic, last.qos, last.retain, last.packet_id
    id_at = body_at - is_level_5 - 2
    head = chunk[at : at + id_at + (0 if qos else 2)]
    at = end
    while at + size <= len(chunk) and len(out) < MAX_BURST and chunk.startswith(head, at):
        if qos:
            packet_id = chunk[at + id_at] << 8 | chunk[at + id_at + 1]
        if packet_id == 0 or (is_level_5 and chunk[at + body_at - 1]):
            break
        out.append(Publish(topic, chunk[at + body_at : at + size], qos, retain, False, packet_id))  # noqa: FBT003 (as above)
        at += size
    return at
