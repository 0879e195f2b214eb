"""A session: windows, handles, unsettled deliveries, coalesced dispositions (part 2 sections 2.5 and 2.6.12).

Between the peer's ATTACH and the decision on it, the session holds the peer's frames back. Errors end the smallest
scope. Because uamqp does not notice an END with an error, a session that fails detaches each of its links first.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

from birthmark.amqp.control_allowance import ControlAllowance
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import (
    AmqpEvent,
    CreditChanged,
    DeliveryReceived,
    DeliverySettled,
    LinkDetached,
    LinkRequested,
    SessionEnded,
)
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.link import HALF, WRAP, Link, difference
from birthmark.amqp.performatives import (
    OUTCOMES,
    RECEIVER,
    Attach,
    Begin,
    Detach,
    Disposition,
    End,
    Flow,
    Outcome,
    Performative,
    Transfer,
    encode_performative,
    error_info_of,
    error_of,
    without_description,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import DescribedValue

_DELIVERY_ALLOWANCE = 2  # control frames for each delivery: FLOW and DISPOSITION
_HELD_FRAME_BYTES = 256  # memory of a held frame besides its content
_ATTACH_FACTOR = 16  # memory of a decoded ATTACH, by its size


class SessionConnection(Protocol):
    """Operations of a connection that its sessions use."""

    limits: AmqpLimits
    out: bytearray
    max_frame_bytes: int
    allowance: ControlAllowance
    held_bytes: int
    incomplete_bytes: int
    queued_bytes: int
    link_count: int
    sessions_to_flush: "set[Session]"
    """Sessions that have dispositions, credit or a window to send."""
    sessions_with_held_frames: "set[Session]"

    def write_frame(self, channel: int, body: bytes) -> None:
        """Write a frame."""
        ...

    def emit(self, event: AmqpEvent) -> None:
        """Report an event."""
        ...

    def forget_session(self, channel: int) -> None:
        """Forget a session that has ended."""
        ...


class _SentDelivery(NamedTuple):
    link: SenderLink
    tag: bytes
    is_decided: bool  # whether the peer's outcome was reported


class _Settlement(NamedTuple):
    role: bool
    first: int
    last: int
    outcome: Outcome


class Session:
    """One session that the peer began; its frames use the peer's channel number in both directions.

    A client's session, without the peer's BEGIN, is a `ClientSession`.
    """

    __slots__ = (
        "_ended_handles",
        "_held",
        "_incoming_window",
        "_is_ended",
        "_next_incoming_id",
        "_next_outgoing_id",
        "_renewals",
        "_settlement",
        "_unsettled",
        "_waiting",
        "_window",
        "channel",
        "connection",
        "limits",
        "links",
        "next_delivery_id",
        "out",
        "pending",
        "session_id",
    )

    def __init__(self, connection: SessionConnection, session_id: int, channel: int, begin: Begin | None) -> None:
        self.connection = connection
        self.limits = connection.limits
        self.session_id = session_id
        self.channel = channel
        self.out = connection.out
        self.next_delivery_id = 0
        self.pending: Link | None = None
        self.links: dict[int, ReceiverLink | SenderLink] = {}
        self._ended_handles: set[int] | None = None  # their late frames are ignored; bounded by `max_handle`
        self._held: deque[tuple[Performative, bytes, int]] | None = None  # frames that wait for a decision
        self._unsettled: dict[int, _SentDelivery] = {}
        self._settlement: _Settlement | None = None
        self._renewals: dict[int, ReceiverLink] = {}
        self._waiting: dict[int, SenderLink] = {}
        self._next_outgoing_id = 0
        self._next_incoming_id = 0 if begin is None else begin.next_outgoing_id
        self._incoming_window = self.limits.incoming_window
        self._window = 0 if begin is None else min(begin.incoming_window, HALF)
        self._is_ended = False
        self.write(
            Begin(
                None if begin is None else channel,
                self._next_outgoing_id,
                self._incoming_window,
                self.limits.incoming_window,
                self.limits.max_handle,
            )
        )

    # ---- for links

    @property
    def max_frame_bytes(self) -> int:
        return self.connection.max_frame_bytes

    @property
    def outgoing_window(self) -> int:
        return max(0, self._window)

    @property
    def unsettled_capacity(self) -> int:
        return max(0, self.limits.max_unsettled - len(self._unsettled))

    def write(self, performative: Performative) -> None:
        if self._is_ended:
            return
        body = self._encode(performative)
        self.flush_dispositions()
        self.connection.write_frame(self.channel, body)

    def _encode(self, performative: Performative) -> bytes:
        body = encode_performative(performative)
        if len(body) + 8 > self.max_frame_bytes:
            return encode_performative(without_description(performative))
        return body

    def write_flow(self, link: Link | None) -> None:
        self.write(
            Flow(
                self._next_incoming_id,
                self._incoming_window,
                self._next_outgoing_id,
                self.limits.incoming_window,
                handle=None if link is None else link.handle,
                delivery_count=None if link is None else link.delivery_count,
                link_credit=None if link is None else link.credit,
                available=0 if isinstance(link, SenderLink) else None,
                drain=link is not None and link.is_drain,
            )
        )

    def flush_dispositions(self) -> None:
        if (found := self._settlement) is not None:
            self._settlement = None
            body = self._encode(Disposition(found.role, found.first, found.last, settled=True, state=found.outcome))
            self.connection.write_frame(self.channel, body)

    def flush(self) -> None:
        """Write collected dispositions, and renew credit and the window."""
        self.flush_dispositions()
        if self._renewals:
            links, self._renewals = self._renewals, {}
            for link in links.values():
                if link.is_credit_low:
                    link.grant_credit()
        if self._incoming_window * 2 <= self.limits.incoming_window:
            self._incoming_window = self.limits.incoming_window
            self.write_flow(None)

    def link_decided(self, link: Link) -> None:
        if self.pending is link:
            self.pending = None

    def link_detached(self, link: Link) -> None:
        self._forget_link(link)
        if self._ended_handles is None:
            self._ended_handles = set()
        self._ended_handles.add(link.handle)
        self._forget_deliveries(link)

    def count_incomplete(self, size: int) -> None:
        connection = self.connection
        connection.incomplete_bytes += size
        if size > 0 and connection.incomplete_bytes > self.limits.max_incomplete_bytes:
            told = f"incomplete deliveries have more than {self.limits.max_incomplete_bytes} bytes"
            raise _link_error(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)

    def count_queued(self, size: int) -> None:
        total = self.connection.queued_bytes + size
        if size > 0 and total > self.limits.max_queued_bytes:
            told = f"more than {self.limits.max_queued_bytes} bytes wait for credit"
            raise _link_error(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)
        self.connection.queued_bytes = total

    def _forget_link(self, link: Link) -> None:
        if self.links.pop(link.handle, None) is not None:
            self.connection.link_count -= 1

    def record_transfers(self, link: Link, delivery_id: int, tag: bytes, *, transfers: int, settled: bool) -> None:
        self._next_outgoing_id = self._next_outgoing_id + transfers & WRAP
        self._window -= transfers
        self.connection.allowance.refill(_DELIVERY_ALLOWANCE * transfers)
        if not settled and isinstance(link, SenderLink):
            self._unsettled[delivery_id] = _SentDelivery(link, tag, is_decided=False)

    def wait_for_window(self, link: Link) -> None:
        if isinstance(link, SenderLink):
            self._waiting[link.handle] = link

    def add_disposition(self, *, role: bool, delivery_id: int, outcome: Outcome) -> None:
        if role is not RECEIVER and self._unsettled.pop(delivery_id, None) is None:
            return
        if (found := self._settlement) is not None:
            follows = delivery_id == found.last + 1 & WRAP and role is found.role and outcome == found.outcome
            if follows:
                self._settlement = _Settlement(role, found.first, delivery_id, outcome)
                return
            self.flush_dispositions()
        self._settlement = _Settlement(role, delivery_id, delivery_id, outcome)
        self.connection.sessions_to_flush.add(self)

    def renew_credit(self, link: Link) -> None:
        if isinstance(link, ReceiverLink):
            self._renewals[link.handle] = link
            self.connection.sessions_to_flush.add(self)

    # ---- frames of the peer

    def receive(self, performative: Performative, payload: bytes, size: int) -> None:
        """Process a frame, or hold it back. Raise `AmqpError` of scope connection."""
        if self.pending is None and not self._held:
            self._process(performative, payload)
            return
        size = _HELD_FRAME_BYTES + (size * _ATTACH_FACTOR if isinstance(performative, Attach) else size)
        if self._held is None:
            self._held = deque()
            self.connection.sessions_with_held_frames.add(self)
        self._held.append((performative, payload, size))
        self.connection.held_bytes += size

    def resume(self) -> None:
        """Process frames that were held back, until the next decision. Raise `AmqpError` of scope connection."""
        while self._held and self.pending is None and not self._is_ended:
            performative, payload, size = self._held.popleft()
            self.connection.held_bytes -= size
            if not self._held:
                self._forget_held()
            self._process(performative, payload)

    def _forget_held(self) -> None:
        self._held = None
        self.connection.sessions_with_held_frames.discard(self)

    def _process(self, performative: Performative, payload: bytes) -> None:
        handler = self.HANDLERS.get(type(performative))
        if handler is None:
            name = type(performative).__name__
            raise AmqpError(AmqpCondition.NOT_ALLOWED, f"{name} was received on the channel of a session")
        try:
            handler(self, performative, payload)
        except AmqpError as error:
            if error.scope is not AmqpErrorScope.SESSION:
                raise
            self._fail(error)

    def _receive_attach(self, attach: Attach, _payload: bytes) -> None:
        limits, handle = self.limits, attach.handle
        if handle > limits.max_handle:  # section 2.7.2
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"handle {handle} is above {limits.max_handle}")
        if handle in self.links:
            raise _session_error(AmqpCondition.HANDLE_IN_USE, f"handle {handle} is in use")
        kind = SenderLink if attach.role is RECEIVER else ReceiverLink
        link = kind(self, self.session_id, attach)
        error = self._check_attach(link)
        if self._ended_handles is not None:
            self._ended_handles.discard(handle)
        self.links[handle] = link
        self.connection.link_count += 1
        self.pending = link
        if error is not None:
            link.refuse(error)
        else:
            self.connection.emit(LinkRequested(link, self.session_id))

    def _check_attach(self, link: Link) -> AmqpError | None:
        limits = self.limits
        addresses = (link.source_address or "", link.target_address or "")
        for is_exceeded, description in (
            (len(self.links) >= limits.max_links, f"a session has {limits.max_links} links"),
            (
                self.connection.link_count >= limits.max_links_in_all,
                f"a connection has {limits.max_links_in_all} links",
            ),
            (len(link.name) > limits.max_name_chars, "the link name is too long"),
            (max(map(len, addresses)) > limits.max_address_chars, "the address is too long"),
            (any(_text_size(one) > limits.max_filter_chars for one in link.filter.values()), "the filter is too long"),
        ):
            if is_exceeded:
                return _link_error(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, description)
        if not link.has_text_addresses:
            return _link_error(AmqpCondition.INVALID_FIELD, "an address is not text")
        if link.is_coordinator:
            return _link_error(AmqpCondition.NOT_IMPLEMENTED, "transactions are not supported")
        if link.is_dynamic:
            return _link_error(AmqpCondition.NOT_IMPLEMENTED, "dynamic addresses are not supported")
        return None

    def _find_link(self, handle: int) -> ReceiverLink | SenderLink | None:
        """Return the link of a handle, or None for an ended one, whose frames count as control frames."""
        if (link := self.links.get(handle)) is not None:
            return link
        if self._ended_handles is not None and handle in self._ended_handles:
            self._spend()
            return None
        raise _session_error(AmqpCondition.UNATTACHED_HANDLE, f"handle {handle} is not attached")

    def _receive_detach(self, detach: Detach, _payload: bytes) -> None:
        link = self._find_link(detach.handle)
        if link is None:
            return
        error = None if detach.error is None else error_of(detach.error, AmqpErrorScope.LINK)
        self.write(Detach(detach.handle, closed=detach.closed))
        self._end_link(link, error, by_peer=True)

    def _receive_transfer(self, transfer: Transfer, payload: bytes) -> None:
        self._next_incoming_id = self._next_incoming_id + 1 & WRAP
        self._incoming_window -= 1
        self.connection.sessions_to_flush.add(self)
        if self._incoming_window < 0:
            raise _session_error(AmqpCondition.WINDOW_VIOLATION, "more transfers were sent than the window allows")
        link = self._find_link(transfer.handle)
        if link is None:
            return
        if not isinstance(link, ReceiverLink):
            raise _session_error(AmqpCondition.NOT_ALLOWED, "a transfer was sent to a sender")
        if transfer.aborted:
            self._spend()
        try:
            delivery = link.receive_transfer(transfer, payload)
        except AmqpError as error:
            self._detach(link, error)
            return
        if delivery is not None:
            self.connection.allowance.refill(_DELIVERY_ALLOWANCE)
            self.connection.emit(
                DeliveryReceived(
                    link,
                    delivery.delivery_id,
                    delivery.tag,
                    delivery.message_format,
                    delivery.payload,
                    delivery.settled,
                )
            )

    def _receive_flow(self, flow: Flow, _payload: bytes) -> None:
        was_blocked = not self.outgoing_window
        in_flight = difference(self._next_outgoing_id, flow.next_incoming_id or 0)
        self._window = min(flow.incoming_window, HALF) - in_flight
        link = None if flow.handle is None else self._find_link(flow.handle)
        if self.outgoing_window:
            self._resume_links()
        if isinstance(link, SenderLink):
            link.receive_flow(flow)
            self.connection.emit(CreditChanged(link, link.credit, link.is_drain))
        if was_blocked and self.outgoing_window:
            for other in self.links.values():
                if isinstance(other, SenderLink) and other is not link and other.capacity:
                    self.connection.emit(CreditChanged(other, other.credit, other.is_drain))
        if flow.echo and (flow.handle is None or link is not None):
            self.write_flow(link)

    def _resume_links(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for link in waiting.values():
            link.resume()

    def _receive_disposition(self, disposition: Disposition, _payload: bytes) -> None:
        first = disposition.first
        width = ((first if disposition.last is None else disposition.last) - first) & WRAP
        if width > HALF:
            raise _session_error(AmqpCondition.INVALID_FIELD, "the last delivery of a disposition precedes the first")
        if disposition.role is not RECEIVER:
            if disposition.settled:
                for link in self.links.values():
                    if isinstance(link, ReceiverLink):
                        link.settle_by_peer(first, width)
            return
        outcome = disposition.state if isinstance(disposition.state, OUTCOMES) else None
        if outcome is not None or disposition.settled:
            self._settle_sent(self._unsettled_range(first, width), outcome, settled=disposition.settled)

    def _unsettled_range(self, first: int, width: int) -> list[int]:
        """Return our unsettled deliveries in a range, which may name two billion."""
        if width < len(self._unsettled):
            ids = (first + offset & WRAP for offset in range(width + 1))
            return [one for one in ids if one in self._unsettled]
        return [one for one in self._unsettled if (one - first) & WRAP <= width]

    def _settle_sent(self, delivery_ids: list[int], outcome: Outcome | None, *, settled: bool) -> None:
        found: dict[SenderLink, tuple[list[int], list[bytes]]] = {}
        for delivery_id in delivery_ids:
            delivery = self._unsettled[delivery_id]
            if settled:
                del self._unsettled[delivery_id]
            else:
                self._unsettled[delivery_id] = delivery._replace(is_decided=True)
            if not delivery.is_decided:
                ids, tags = found.setdefault(delivery.link, ([], []))
                ids.append(delivery_id)
                tags.append(delivery.tag)
        for link, (ids, tags) in found.items():
            self.connection.emit(DeliverySettled(link, tuple(ids), tuple(tags), outcome, settled))
        if settled and self._waiting:
            self._resume_links()

    def _receive_end(self, end: End, _payload: bytes) -> None:
        error = None if end.error is None else error_of(end.error, AmqpErrorScope.SESSION)
        self.write(End())
        self._end(error, by_peer=True)

    HANDLERS: ClassVar[dict[type, Callable[[Any, Any, bytes], None]]] = {
        Attach: _receive_attach,
        Detach: _receive_detach,
        Transfer: _receive_transfer,
        Flow: _receive_flow,
        Disposition: _receive_disposition,
        End: _receive_end,
    }

    # ---- ends

    def _spend(self) -> None:
        if not self.connection.allowance.spend():
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "control frames are too frequent")

    def _detach(self, link: ReceiverLink | SenderLink, error: AmqpError) -> None:
        tags = self._tags_of(link)
        link.detach(error)
        self.connection.emit(LinkDetached(link, error, by_peer=False, unsettled_tags=tags))

    def _end_link(self, link: ReceiverLink | SenderLink, error: AmqpError | None, *, by_peer: bool) -> None:
        tags = self._tags_of(link)
        self.link_detached(link)
        link.end()
        self.connection.emit(LinkDetached(link, error, by_peer, tags))

    def _tags_of(self, link: Link) -> tuple[bytes, ...]:
        return tuple(one.tag for one in self._unsettled.values() if one.link is link and not one.is_decided)

    def _forget_deliveries(self, link: Link) -> None:
        self._renewals.pop(link.handle, None)
        self._waiting.pop(link.handle, None)
        if isinstance(link, SenderLink):
            self._unsettled = {key: one for key, one in self._unsettled.items() if one.link is not link}

    def _fail(self, error: AmqpError) -> None:
        for link in [*self.links.values()]:
            self.write(Detach(link.handle, closed=True, error=error_info_of(error)))
        self.write(End(error_info_of(error)))
        self._end(error, by_peer=False)

    def _end(self, error: AmqpError | None, *, by_peer: bool) -> None:
        for link in [*self.links.values()]:
            self._end_link(link, error, by_peer=by_peer)
        self.close()
        self.connection.forget_session(self.channel)
        self.connection.emit(SessionEnded(self.session_id, error, by_peer))

    def close(self) -> None:
        """End all links without frames, because the session or the connection is over."""
        self._is_ended = True
        self.pending = None
        for link in [*self.links.values()]:
            link.end()
            self._forget_link(link)
        self._renewals.clear()
        self._waiting.clear()
        self.connection.held_bytes -= sum(size for _, _, size in self._held or ())
        self._forget_held()
        self.connection.sessions_to_flush.discard(self)
        self._settlement = None
        self._unsettled.clear()


def _session_error(condition: AmqpCondition, description: str) -> AmqpError:
    return AmqpError(condition, description, scope=AmqpErrorScope.SESSION)


def _link_error(condition: AmqpCondition, description: str) -> AmqpError:
    return AmqpError(condition, description, scope=AmqpErrorScope.LINK)


def _text_size(value: object) -> int:
    """Return the length of a filter's text."""
    while isinstance(value, DescribedValue):
        value = value.value
    return len(value) if isinstance(value, str | bytes) else 0
