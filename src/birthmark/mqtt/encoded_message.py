"""A message for any number of receivers, whose shared parts are encoded once."""

from functools import lru_cache

from birthmark.mqtt import primitives as p
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.properties import Properties, PropertyId, PropertyScope, get_property, size_of, write_properties
from birthmark.mqtt.topics import CACHED, is_valid_name

_FIRST = tuple(bytes((0x30 | flags,)) for flags in range(4))  # by QoS and retain
_ALIASED = b"\0\0"  # topic of a message whose alias the receiver knows


class EncodedMessage:
    """Topic, payload and properties with their encoded forms by level, QoS and alias, without packet id."""

    __slots__ = ("_forms", "payload", "properties", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, properties: Properties = (), *, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.properties = properties
        self.retain = retain
        self._forms: dict[int, tuple[bytes, bytes, int]] | None = None

    @property
    def size(self) -> int:
        """Approximate size in bytes while queued, without its topic."""
        return len(self.payload) + (size_of(self.properties) if self.properties else 0)

    def head(self, qos: int) -> bytes:
        """Return the MQTT 3.1.1 bytes before the packet id; the payload follows the id directly.

        Raise `LocalProtocolError` for an invalid message.
        """
        topic = self.topic
        made = _usual_head if len(topic) <= CACHED else _head
        return made(topic, qos << 1 | self.retain, len(self.payload) + (qos << 1))

    def form(self, qos: int, alias: int = 0, *, is_new: bool = False) -> tuple[bytes, bytes, int]:
        """Return the MQTT 5 bytes before the packet id, those between it and the payload, and the packet size.

        Raise `LocalProtocolError` for an invalid message.
        """
        key = qos | is_new << 1 | alias << 2
        if self._forms is None:
            self._forms = {}
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = self._encoded(qos, alias, is_new=is_new)
        return form

    def _encoded(self, qos: int, alias: int, *, is_new: bool) -> tuple[bytes, bytes, int]:
        block = self._block(alias)
        length = (qos << 1) + len(block) + len(self.payload)
        if alias and not is_new:
            head = _FIRST[qos << 1 | self.retain] + p.write_varint(length + len(_ALIASED)) + _ALIASED
        else:
            made = _usual_head if len(self.topic) <= CACHED else _head
            head = made(self.topic, qos << 1 | self.retain, length)
        return head, block, len(head) + length

    def _block(self, alias: int) -> bytes:
        if not self.properties:
            return b"\3\x23" + alias.to_bytes(2, "big") if alias else b"\0"
        if get_property(self.properties, PropertyId.TOPIC_ALIAS) is not None:
            raise LocalProtocolError("topic aliases are the engine's own")
        mine = ((PropertyId.TOPIC_ALIAS, alias), *self.properties) if alias else self.properties
        return write_properties(mine, PropertyScope.PUBLISH)


def _head(topic: str, flags: int, rest: int) -> bytes:
    """Return a PUBLISH up to the end of its topic; `rest` bytes follow.

    Raise `LocalProtocolError` for an invalid topic.
    """
    if not is_valid_name(topic):
        raise LocalProtocolError("a topic to publish to is not empty and has no wildcard")
    name = p.write_utf8(topic)
    return _FIRST[flags] + p.write_varint(len(name) + rest) + name


_usual_head = lru_cache(maxsize=4096)(_head)
