"""A session that a client begins, with the links that it attaches.

Each end numbers channels and handles by itself: we write our own numbers and read the peer's. A number is free again
when both ends have ended what it stood for.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, ClassVar, Protocol

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.events import LinkAttached, LinkDetached, SessionBegan, SessionEnded
from birthmark.amqp.link import HALF, LinkState
from birthmark.amqp.performatives import (
    MIXED_MODE,
    RECEIVER,
    SENDER,
    SETTLED_MODE,
    Attach,
    Begin,
    Detach,
    End,
    Performative,
    Source,
    Target,
    Transfer,
    error_info_of,
    error_of,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.session import Session, SessionConnection


class ClientSessionConnection(SessionConnection, Protocol):
    """Operations of a client's connection that its sessions use."""

    def release_channel(self, session: "ClientSession") -> None:
        """Allow other sessions to use the channel."""
        ...


class ClientSession(Session):
    """Attach links at any time after the connection is open; the peer's answers are events."""

    __slots__ = ("_client", "_is_answer_event", "_max_handle", "_peer_links", "_requested", "peer_channel")

    def __init__(self, connection: ClientSessionConnection, session_id: int, channel: int) -> None:
        super().__init__(connection, session_id, channel, None)
        self._client = connection
        self.peer_channel: int | None = None
        self._max_handle = self.limits.max_handle
        self._requested: dict[tuple[str, bool], ReceiverLink | SenderLink] = {}  # by name and the peer's role
        self._peer_links: dict[int, ReceiverLink | SenderLink | None] = {}  # None: ended, its end is reported
        self._is_answer_event = False

    # ---- calls

    def attach_sender(
        self,
        name: str,
        address: str,
        *,
        source_address: str = "",
        settled: bool | None = None,
        rcv_settle_mode: int = 0,
        properties: Mapping[Any, Any] | None = None,
        desired_capabilities: tuple[str, ...] | None = None,
    ) -> SenderLink:
        """Attach a link on which we send; with None for `settled`, each delivery may decide.

        Raise `LocalProtocolError`. `LinkAttached` or `LinkDetached` follows.
        """
        mode = MIXED_MODE if settled is None else SETTLED_MODE if settled else 0
        attach = Attach(
            name,
            self._free_handle(name, peer_role=RECEIVER),
            SENDER,
            mode,
            rcv_settle_mode,
            Source(source_address),
            Target(address),
            initial_delivery_count=0,
            desired_capabilities=desired_capabilities,
            properties=properties,
        )
        link = SenderLink(self, self.session_id, _mirrored(attach))
        link.is_settled = bool(settled)
        self._request(link, attach)
        return link

    def attach_receiver(
        self,
        name: str,
        address: str,
        *,
        target_address: str = "",
        credit: int | None = None,
        snd_settle_mode: int = MIXED_MODE,
        rcv_settle_mode: int = 0,
        source_filter: Mapping[Any, Any] | None = None,
        properties: Mapping[Any, Any] | None = None,
        desired_capabilities: tuple[str, ...] | None = None,
        max_message_bytes: int | None = None,
    ) -> ReceiverLink:
        """Attach a link on which we receive; credit is granted with the answer and renewed at half.

        Raise `LocalProtocolError`. `LinkAttached` or `LinkDetached` follows.
        """
        limits = self.limits
        attach = Attach(
            name,
            self._free_handle(name, peer_role=SENDER),
            RECEIVER,
            snd_settle_mode,
            rcv_settle_mode,
            Source(address, filter=source_filter),
            Target(target_address),
            max_message_size=limits.max_message_bytes if max_message_bytes is None else max_message_bytes,
            desired_capabilities=desired_capabilities,
            properties=properties,
        )
        link = ReceiverLink(self, self.session_id, _mirrored(attach))
        link.max_credit = limits.link_credit if credit is None else credit
        link.max_message_bytes = attach.max_message_size or limits.max_message_bytes
        self._request(link, attach)
        return link

    def end(self, error: AmqpError | None = None) -> None:
        """End the session and its links; `SessionEnded` is the peer's answer. Does nothing on an ended session."""
        if not self._is_ended:
            self.write(End(None if error is None else error_info_of(error)))
            self._is_answer_event = True
            self.close()

    # ---- frames of the peer

    def receive_begin(self, channel: int, begin: Begin) -> None:
        """Process the answer to our BEGIN."""
        self.peer_channel = channel
        self._next_incoming_id = begin.next_outgoing_id
        self._window = min(begin.incoming_window, HALF)
        self._max_handle = min(self._max_handle, begin.handle_max)
        if not self._is_ended:
            self.connection.emit(SessionBegan(self.session_id))

    def receive(self, performative: Performative, payload: bytes, size: int) -> None:
        if not self._is_ended:
            super().receive(performative, payload, size)
        elif isinstance(performative, End):
            self._client.release_channel(self)
            if self._is_answer_event:
                error = None if performative.error is None else error_of(performative.error, AmqpErrorScope.SESSION)
                self.connection.emit(SessionEnded(self.session_id, error, by_peer=False))
        elif isinstance(performative, Transfer):  # all others are counted as control frames already
            self._spend()

    def _receive_attach(self, attach: Attach, _payload: bytes) -> None:
        if attach.handle > self.limits.max_handle:
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"handle {attach.handle} is above {self.limits.max_handle}")
        if attach.handle in self._peer_links:
            raise _session_error(AmqpCondition.HANDLE_IN_USE, f"handle {attach.handle} is in use")
        link = self._requested.pop((attach.name, attach.role), None)
        if link is None:
            raise _session_error(AmqpCondition.NOT_ALLOWED, "a client's links are attached by the client")
        self._peer_links[attach.handle] = link
        # Section 2.6.3: without the peer's terminus the link is refused, and DETACH follows with the error.
        if (attach.source if attach.role is SENDER else attach.target) is not None:
            link.receive_answer(attach)
            self.connection.emit(LinkAttached(link, attach.properties or {}))

    def _find_link(self, handle: int) -> ReceiverLink | SenderLink | None:
        if handle not in self._peer_links:
            raise _session_error(AmqpCondition.UNATTACHED_HANDLE, f"handle {handle} is not attached")
        link = self._peer_links[handle]
        if link is None or link.state is LinkState.DETACHED:
            self._spend()
            return None
        if link.state is LinkState.PENDING:
            raise _session_error(AmqpCondition.NOT_ALLOWED, f"handle {handle} was refused")
        return link

    def _receive_detach(self, detach: Detach, _payload: bytes) -> None:
        handle = detach.handle
        if handle not in self._peer_links:
            raise _session_error(AmqpCondition.UNATTACHED_HANDLE, f"handle {handle} is not attached")
        link = self._peer_links.pop(handle)
        error = None if detach.error is None else error_of(detach.error, AmqpErrorScope.LINK)
        if link is None:
            return
        if link.state is LinkState.DETACHED:
            self.connection.emit(LinkDetached(link, error, by_peer=False, unsettled_tags=()))
            return
        self.write(Detach(link.handle, closed=detach.closed))
        self._end_link(link, error, by_peer=True)

    def _receive_end(self, end: End, payload: bytes) -> None:
        super()._receive_end(end, payload)
        self._client.release_channel(self)

    HANDLERS: ClassVar[dict[type, Callable[[Any, Any, bytes], None]]] = {
        **Session.HANDLERS,
        Attach: _receive_attach,
        Detach: _receive_detach,
        End: _receive_end,
    }

    # ---- inside

    def _free_handle(self, name: str, *, peer_role: bool) -> int:
        if self._is_ended:
            raise LocalProtocolError("the session has ended")
        if (name, peer_role) in self._requested or any(
            one.name == name and one.attach.role is peer_role for one in self.links.values()
        ):
            raise LocalProtocolError(f"the session has a link {name!r} in this direction")
        closing = {one.handle for one in self._peer_links.values() if one is not None}
        handle = next(one for one in count() if one not in self.links and one not in closing)
        if handle > self._max_handle:
            raise LocalProtocolError(f"a session has {handle} links")
        return handle

    def _request(self, link: ReceiverLink | SenderLink, attach: Attach) -> None:
        self.links[link.handle] = self._requested[link.name, link.attach.role] = link
        self.connection.link_count += 1
        self.write(attach)

    def _detach(self, link: ReceiverLink | SenderLink, error: AmqpError) -> None:
        super()._detach(link, error)
        for handle, other in self._peer_links.items():
            if other is link:
                self._peer_links[handle] = None
                break

    def close(self) -> None:
        super().close()
        self._requested.clear()
        self._peer_links.clear()


def _mirrored(attach: Attach) -> Attach:
    """Return a request as if the peer had sent it."""
    return Attach(
        attach.name,
        attach.handle,
        not attach.role,
        attach.snd_settle_mode,
        attach.rcv_settle_mode,
        attach.source,
        attach.target,
    )


def _session_error(condition: AmqpCondition, description: str) -> AmqpError:
    return AmqpError(condition, description, scope=AmqpErrorScope.SESSION)
