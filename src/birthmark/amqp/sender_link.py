"""A link on which this end sends: credit, transfers in batches, drain (part 2 sections 2.6.7 to 2.6.14).

A delivery costs one credit, and each of its transfers one of the session's window. A delivery that begins is completed
when the window opens again; until then the link sends no other.
"""

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.link import WRAP, Link, LinkSession, LinkState, difference
from birthmark.amqp.performatives import (
    ACCEPTED,
    SENDER,
    SETTLED_MODE,
    Attach,
    Flow,
    Outcome,
)

SETTLED_TAG: Final = b"\0"
"""Tag of all settled deliveries: pyamqp keeps every tag that it has received."""

MAX_TAG_BYTES: Final = 32
MAX_U64: Final = 0xFFFFFFFFFFFFFFFF
_TRANSFER_START: Final = b"\x00\x53\x14"
_LIST8_FIELDS: Final = 11
_NULLS: Final = b"\x40" * 5  # receiver settle mode, state, resume, aborted, batchable
_pack_u32 = struct.Struct(">I").pack


class _TransferLayout:
    """Bytes of a TRANSFER around its delivery id."""

    __slots__ = ("head_bytes", "last", "more", "pack", "prefix")

    def __init__(self, channel: int, handle: int, tag: bytes, message_format: int, *, settled: bool) -> None:
        form = b"\x43" if not message_format else b"\x70" + _pack_u32(message_format)
        flag = b"\x41" if settled else b"\x42"
        self.last = b"\xa0" + bytes((len(tag),)) + tag + form + flag + b"\x42" + _NULLS
        self.more = b"\xa0" + bytes((len(tag),)) + tag + form + flag + b"\x41" + _NULLS
        size = 1 + 5 + 5 + len(self.last)  # count, handle, delivery id, and the rest
        self.prefix = struct.pack(
            ">BBH3sBBBBIB", 2, 0, channel, _TRANSFER_START, 0xC0, size, _LIST8_FIELDS, 0x70, handle, 0x70
        )
        layout = struct.Struct(f">I{len(self.prefix)}sI{len(self.last)}s")
        self.pack = layout.pack
        self.head_bytes = layout.size


class SenderLink(Link):
    """The peer grants credit with FLOW; `capacity` is the number of deliveries that may be sent now."""

    __slots__ = ("_is_drained", "_layout", "_layout_key", "_queue", "_rest", "is_settled")

    def __init__(self, session: LinkSession, session_id: int, attach: Attach) -> None:
        super().__init__(session, session_id, attach)
        self.is_settled = False
        self._is_drained = False  # the caller has nothing more to send, but a delivery is not complete
        self._rest: tuple[_TransferLayout, int, bytes, int] | None = None  # of a delivery that has begun
        self._queue: deque[tuple[bytes, bytes | None, bool, int]] | None = None  # that waits for credit
        self._layout: _TransferLayout | None = None
        self._layout_key: tuple[bytes, int, bool] | None = None

    def accept(
        self,
        *,
        settled: bool | None = None,
        max_message_bytes: int | None = None,
        properties: Mapping[Any, Any] | None = None,
        offered_capabilities: tuple[str, ...] | None = None,
    ) -> None:
        """Attach the link. `settled` tells whether deliveries are sent settled; the default is the peer's wish.

        Draw events afterwards: credit that the peer granted with its ATTACH is reported then.
        """
        if self.state is LinkState.DETACHED:
            return
        self._require(LinkState.PENDING)
        mode = self.attach.snd_settle_mode
        self.is_settled = mode == SETTLED_MODE if settled is None else settled
        if max_message_bytes is not None:
            self.max_message_bytes = max_message_bytes
        self._answer(
            Attach(
                self.name,
                self.handle,
                SENDER,
                SETTLED_MODE if self.is_settled else mode if mode != SETTLED_MODE else 0,
                self.attach.rcv_settle_mode,  # .NET waits for the settlement after its outcome
                source=self._source(),
                target=self._target(),
                initial_delivery_count=0,
                max_message_size=self.max_message_bytes,
                offered_capabilities=offered_capabilities,
                properties=properties,
            )
        )
        self.state = LinkState.ATTACHED
        self.session.link_decided(self)

    # ---- sending

    @property
    def capacity(self) -> int:
        """Number of deliveries that may begin now; of unsettled ones it may be less."""
        if self.state is not LinkState.ATTACHED or self._rest or self._queue:
            return 0
        return min(self.credit, self.session.outgoing_window)

    @property
    def queued(self) -> int:
        """Number of messages that wait for credit."""
        return 0 if self._queue is None else len(self._queue)

    def send(
        self, payload: bytes, *, tag: bytes | None = None, settled: bool | None = None, message_format: int = 0
    ) -> int:
        """Send one message and return its delivery id. Raise `LocalProtocolError` without capacity."""
        settled = self.is_settled if settled is None else settled
        if self.capacity < 1 or not (settled or self.session.unsettled_capacity):
            raise LocalProtocolError(f"the link {self.name!r} has no credit, or the session no capacity")
        return self._send(payload, tag, settled=settled, message_format=message_format)

    def send_many(
        self, payloads: Sequence[bytes], *, tags: Sequence[bytes] | None = None, settled: bool | None = None
    ) -> int:
        """Send messages within `capacity`, and return how many were sent."""
        settled = self.is_settled if settled is None else settled
        count = 0
        if not tags and settled:
            while count < len(payloads) and self.capacity:
                count += self._send_settled(payloads[count:] if count else payloads)
            return count
        for payload in payloads:
            if self.capacity < 1 or not (settled or self.session.unsettled_capacity):
                break
            self._send(payload, tags[count] if tags else None, settled=settled, message_format=0)
            count += 1
        return count

    def _send_settled(self, payloads: Sequence[bytes]) -> int:
        """Render a batch of settled messages with the constant tag."""
        session = self.session
        session.flush_dispositions()
        layout = self._layout_of(SETTLED_TAG, 0, settled=True)
        pack, prefix, last, head_bytes = layout.pack, layout.prefix, layout.last, layout.head_bytes
        out, capacity, step = session.out, self.capacity, session.max_frame_bytes - layout.head_bytes
        delivery_id = first_id = session.next_delivery_id
        for payload in payloads[:capacity]:
            size = len(payload)
            if size > step:
                break
            out += pack(head_bytes + size, prefix, delivery_id, last)
            out += payload
            delivery_id = delivery_id + 1 & WRAP
        count = delivery_id - first_id & WRAP
        if count:
            session.next_delivery_id = delivery_id
            self.credit -= count
            self.delivery_count = self.delivery_count + count & WRAP
            session.record_transfers(self, first_id, SETTLED_TAG, transfers=count, settled=True)
        if count < len(payloads) and self.capacity:  # a message of several transfers
            self._send(payloads[count], None, settled=True, message_format=0)
            count += 1
        return count

    def enqueue(self, payload: bytes, *, tag: bytes | None = None, settled: bool | None = None) -> None:
        """Send a message now or once the peer grants credit, as responses need.

        uamqp sends requests before it grants credit for the response. Raise `AmqpError` of scope link if too many
        messages wait.
        """
        if self.state is LinkState.DETACHED:
            return
        settled = self.is_settled if settled is None else settled
        if self.capacity and (settled or self.session.unsettled_capacity):
            self._send(payload, tag, settled=settled, message_format=0)
            return
        if self._queue is None:
            self._queue = deque()
        limits = self.session.limits
        if len(self._queue) >= limits.max_queued_messages:
            told = f"more than {len(self._queue)} messages wait for credit"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told, scope=AmqpErrorScope.LINK)
        if self.queued and sum(len(one[0]) for one in self._queue) + len(payload) > limits.max_link_queued_bytes:
            told = f"more than {limits.max_link_queued_bytes} bytes wait for credit"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told, scope=AmqpErrorScope.LINK)
        self.session.count_queued(len(payload))
        self._queue.append((payload, tag, settled, 0))
        self.resume()

    def complete_drain(self) -> None:
        """Report to a peer that drains the link that no further message is available."""
        if not self.is_drain or self.state is not LinkState.ATTACHED:
            return
        if self._rest:
            self._is_drained = True
        else:
            self.delivery_count = self.delivery_count + self.credit & WRAP
            self.credit = 0
            self.session.write_flow(self)
            self.is_drain = False

    def confirm(self, delivery_ids: Sequence[int], outcome: Outcome = ACCEPTED) -> None:
        """Settle deliveries after an unsettled outcome of the peer (receiver settle mode second)."""
        if self.state is LinkState.ATTACHED:
            for delivery_id in delivery_ids:
                self.session.add_disposition(role=SENDER, delivery_id=delivery_id, outcome=outcome)

    def _send(self, payload: bytes, tag: bytes | None, *, settled: bool, message_format: int) -> int:
        session = self.session
        delivery_id = session.next_delivery_id
        if tag is None:
            tag = SETTLED_TAG if settled else _pack_u32(delivery_id)
        elif not 0 < len(tag) <= MAX_TAG_BYTES:
            raise LocalProtocolError(f"a delivery tag has {len(tag)} bytes")
        session.flush_dispositions()
        session.next_delivery_id = delivery_id + 1 & WRAP
        self.credit -= 1
        self.delivery_count = self.delivery_count + 1 & WRAP
        layout = self._layout_of(tag, message_format, settled=settled)
        head_bytes = layout.head_bytes
        if head_bytes + len(payload) <= session.max_frame_bytes:  # nearly always
            session.out += layout.pack(head_bytes + len(payload), layout.prefix, delivery_id, layout.last)
            session.out += payload
            session.record_transfers(self, delivery_id, tag, transfers=1, settled=settled)
        else:
            session.record_transfers(self, delivery_id, tag, transfers=0, settled=settled)
            self._rest = layout, delivery_id, payload, 0
            self._send_rest(self._rest)
        return delivery_id

    def _layout_of(self, tag: bytes, message_format: int, *, settled: bool) -> _TransferLayout:
        key = (tag, message_format, settled)
        if self._layout is None or self._layout_key != key:
            self._layout = _TransferLayout(self.session.channel, self.handle, tag, message_format, settled=settled)
            self._layout_key = key
        return self._layout

    def _send_rest(self, rest: tuple[_TransferLayout, int, bytes, int]) -> None:
        """Send transfers of the delivery that has begun, within the window."""
        session = self.session
        layout, delivery_id, payload, offset = rest
        self._rest = None
        step = session.max_frame_bytes - layout.head_bytes
        transfers = 0
        while offset < len(payload) and transfers < session.outgoing_window:
            part = payload[offset : offset + step]
            offset += len(part)
            tail = layout.last if offset == len(payload) else layout.more
            session.out += layout.pack(layout.head_bytes + len(part), layout.prefix, delivery_id, tail)
            session.out += part
            transfers += 1
        session.record_transfers(self, delivery_id, b"", transfers=transfers, settled=True)
        if offset < len(payload):
            self._rest = layout, delivery_id, payload, offset
            session.wait_for_window(self)
        elif self._is_drained:
            self._is_drained = False
            self.complete_drain()

    # ---- called by the session

    def receive_answer(self, attach: Attach) -> None:
        super().receive_answer(attach)
        self.max_message_bytes = attach.max_message_size or MAX_U64  # section 2.7.3: 0 sets no limit
        self.resume()

    def resume(self) -> None:
        """Send what waits for the window or for credit."""
        if self.state is not LinkState.ATTACHED:
            return
        if self._rest is not None and self.session.outgoing_window:
            self._send_rest(self._rest)
        while self._queue and not self._rest and self.credit > 0 and self.session.outgoing_window:
            payload, tag, settled, message_format = self._queue[0]
            if not (settled or self.session.unsettled_capacity):
                break
            self._queue.popleft()
            self.session.count_queued(-len(payload))
            self._send(payload, tag, settled=settled, message_format=message_format)
        if self._queue:
            self.session.wait_for_window(self)
        else:
            self._queue = None

    def receive_flow(self, flow: Flow) -> None:
        """Update the credit; a missing delivery count means that the peer has not received our ATTACH."""
        in_flight = difference(self.delivery_count, flow.delivery_count or 0)
        self.credit = max(0, (flow.link_credit or 0) - in_flight)
        self.is_drain = flow.drain
        self._is_drained = False
        self.resume()

    def end(self) -> None:
        super().end()
        self._rest = None
        self.session.count_queued(-sum(len(payload) for payload, *_ in self._queue or ()))
        self._queue = None
