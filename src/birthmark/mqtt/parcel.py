"""One message on its way to any number of receivers: what is the same for all of them is encoded once."""

from functools import lru_cache

from birthmark.mqtt import primitives as p
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import LEVEL_3_1_1
from birthmark.mqtt.properties import Place, Properties, PropertyId, get_property, write_properties
from birthmark.mqtt.topics import is_valid_name

_FIRST = tuple(bytes((0x30 | flags,)) for flags in range(4))  # by QoS and retain
_CACHED_CHARS = 256  # longer topics are not kept
_ALIASED = b"\0\0"  # the topic of a message whose alias the receiver knows


class Parcel:
    """Topic, payload and properties, and their encoded forms: by level, QoS and alias. Packet ids stand in between."""

    __slots__ = ("_forms", "payload", "properties", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, properties: Properties = (), *, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.properties = properties
        self.retain = retain
        self._forms: dict[int, tuple[bytes, bytes, int]] = {}

    def form(self, level: int, qos: int, alias: int = 0, *, is_new: bool = False) -> tuple[bytes, bytes, int]:
        """Return what stands before the packet id, what stands between it and the payload, and the packet's size.

        Raise `LocalProtocolError` for what may not be sent.
        """
        key = level | qos << 3 | is_new << 4 | alias << 5
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = self._encoded(level, qos, alias, is_new=is_new)
        return form

    def _encoded(self, level: int, qos: int, alias: int, *, is_new: bool) -> tuple[bytes, bytes, int]:
        topic = topic_bytes(self.topic) if is_new or not alias else _ALIASED
        block = b"" if level == LEVEL_3_1_1 else self._block(alias)
        length = len(topic) + (qos << 1) + len(block) + len(self.payload)
        head = _FIRST[qos << 1 | self.retain] + p.write_varint(length)
        return head + topic, block, len(head) + length

    def _block(self, alias: int) -> bytes:
        if not self.properties:
            return b"\3\x23" + alias.to_bytes(2, "big") if alias else b"\0"
        if get_property(self.properties, PropertyId.TOPIC_ALIAS) is not None:
            raise LocalProtocolError("topic aliases are the engine's own")
        mine = ((PropertyId.TOPIC_ALIAS, alias), *self.properties) if alias else self.properties
        return write_properties(mine, Place.PUBLISH)


def topic_bytes(topic: str) -> bytes:
    """Return a topic name with its length. Raise `LocalProtocolError` for what is none."""
    return _short_topic(topic) if len(topic) <= _CACHED_CHARS else _written(topic)


def _written(topic: str) -> bytes:
    if not is_valid_name(topic):
        raise LocalProtocolError("a topic to publish to is not empty and has no wildcard")
    return p.write_utf8(topic)


_short_topic = lru_cache(maxsize=1024)(_written)
