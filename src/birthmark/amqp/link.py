"""Parts that both kinds of links share: terms of ATTACH, the answer to it, and DETACH (part 2 section 2.6).

At a server, the peer attaches every link. An end is asked to accept or refuse it, possibly after a database access;
until then its session holds all further frames back. At a client, `attach` mirrors our request until the peer answers.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    SENDER,
    Attach,
    Detach,
    Outcome,
    Performative,
    Source,
    Target,
    error_info_of,
)
from birthmark.amqp.values import DescribedValue

WRAP: Final = 0xFFFFFFFF
HALF: Final = 0x7FFFFFFF


def difference(later: int, earlier: int) -> int:
    """Return `later - earlier` of serial numbers, or 0 if `later` precedes (RFC 1982)."""
    distance = (later - earlier) & WRAP
    return 0 if distance > HALF else distance


class LinkRole(StrEnum):
    """Our own role on a link."""

    SENDER = "sender"
    RECEIVER = "receiver"


class LinkState(StrEnum):
    """A link's way from ATTACH to DETACH."""

    PENDING = "pending"
    ATTACHED = "attached"
    DETACHED = "detached"


class LinkSession(Protocol):
    """Operations of a session that its links use."""

    limits: AmqpLimits
    channel: int
    out: bytearray
    next_delivery_id: int

    @property
    def max_frame_bytes(self) -> int:
        """Largest frame that the peer takes."""
        ...

    @property
    def outgoing_window(self) -> int:
        """Number of transfers that the peer's window allows."""
        ...

    @property
    def unsettled_capacity(self) -> int:
        """Number of unsettled deliveries that may be sent."""
        ...

    def write(self, performative: Performative) -> None:
        """Write a frame after the dispositions that precede it."""
        ...

    def write_flow(self, link: "Link | None") -> None:
        """Write the state of the session and of a link."""
        ...

    def flush_dispositions(self) -> None:
        """Write collected dispositions."""
        ...

    def link_decided(self, link: "Link") -> None:
        """Resume the frames that waited for the decision on a link."""
        ...

    def link_detached(self, link: "Link") -> None:
        """Forget a link that this end detached."""
        ...

    def count_incomplete(self, size: int) -> None:
        """Add bytes to those of incomplete deliveries. Raise `AmqpError` of scope link if there are too many."""
        ...

    def count_queued(self, size: int) -> None:
        """Add bytes to those that wait for credit. Raise `AmqpError` of scope link if there are too many."""
        ...

    def record_transfers(self, link: "Link", delivery_id: int, tag: bytes, *, transfers: int, settled: bool) -> None:
        """Count transfers, and remember an unsettled delivery."""
        ...

    def wait_for_window(self, link: "Link") -> None:
        """Call `resume` of the link when the window or its credit opens."""
        ...

    def add_disposition(self, *, role: bool, delivery_id: int, outcome: Outcome) -> None:
        """Settle a delivery, coalesced with its neighbors."""
        ...

    def renew_credit(self, link: "Link") -> None:
        """Grant credit with the next dispositions."""
        ...


class Link:
    """One link, by the peer's ATTACH."""

    __slots__ = (
        "attach",
        "credit",
        "delivery_count",
        "handle",
        "is_drain",
        "max_message_bytes",
        "name",
        "role",
        "session",
        "session_id",
        "state",
    )

    def __init__(self, session: LinkSession, session_id: int, attach: Attach) -> None:
        self.session = session
        self.session_id = session_id
        self.attach = attach
        self.name = attach.name
        self.handle = attach.handle
        self.role = LinkRole.RECEIVER if attach.role is SENDER else LinkRole.SENDER
        self.state = LinkState.PENDING
        self.credit = 0
        self.delivery_count = 0
        self.is_drain = False
        self.max_message_bytes = session.limits.max_message_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, handle={self.handle}, state={self.state})"

    # ---- terms of the peer

    @property
    def source(self) -> Source | None:
        return self.attach.source

    @property
    def target(self) -> Target | None:
        """The peer's target; None also for a coordinator of transactions."""
        target = self.attach.target
        return target if isinstance(target, Target) else None

    @property
    def source_address(self) -> str | None:
        return _address_of(self.attach.source)

    @property
    def target_address(self) -> str | None:
        return _address_of(self.target)

    @property
    def own_address(self) -> str:
        """Address at this end: the source of what it sends, the target of what it receives."""
        return (self.source_address if self.role is LinkRole.SENDER else self.target_address) or ""

    @property
    def is_coordinator(self) -> bool:
        """Whether the peer requests transactions."""
        return isinstance(self.attach.target, DescribedValue)

    @property
    def is_dynamic(self) -> bool:
        """Whether the peer requests a temporary address."""
        end = self.source if self.role is LinkRole.SENDER else self.target
        return end is not None and bool(end.dynamic)

    @property
    def filter(self) -> Mapping[Any, Any]:
        source = self.attach.source
        return {} if source is None or source.filter is None else source.filter

    @property
    def properties(self) -> Mapping[Any, Any]:
        return self.attach.properties or {}

    @property
    def desired_capabilities(self) -> tuple[str, ...]:
        return self.attach.desired_capabilities or ()

    @property
    def snd_settle_mode(self) -> int:
        return self.attach.snd_settle_mode

    @property
    def rcv_settle_mode(self) -> int:
        return self.attach.rcv_settle_mode

    # ---- decisions of this end

    def refuse(self, error: AmqpError) -> None:
        """Refuse the link: an ATTACH without a terminus, then DETACH with the error (part 2 section 2.6.3).

        go-amqp takes it for a refusal only if both are missing; with one, azeventhubs retries for 40 s.
        """
        if self.state is LinkState.DETACHED:
            return  # the peer or the connection has gone in the time of the decision
        self._require(LinkState.PENDING)
        is_sender = self.role is LinkRole.SENDER
        self._answer(
            Attach(
                self.name,
                self.handle,
                role=not self.attach.role,
                snd_settle_mode=self.attach.snd_settle_mode,
                initial_delivery_count=0 if is_sender else None,
            )
        )
        self._detach(error)
        self.session.link_decided(self)

    def detach(self, error: AmqpError | None = None) -> None:
        """Close the link; the peer's later frames for it are ignored. Does nothing on a detached link."""
        if self.state is LinkState.DETACHED:
            return
        self._require(LinkState.ATTACHED)
        self._detach(error)

    def _detach(self, error: AmqpError | None) -> None:
        self.session.write(Detach(self.handle, closed=True, error=None if error is None else error_info_of(error)))
        self.session.link_detached(self)
        self.end()

    def _answer(self, attach: Attach) -> None:
        """Write the answer to an ATTACH, and keep only the addresses of the peer's."""
        self.session.write(attach)
        self._keep_addresses()

    def _keep_addresses(self) -> None:
        found = self.attach
        source, target = self._source(), self._target()
        self.attach = Attach(
            found.name,
            found.handle,
            found.role,
            found.snd_settle_mode,
            found.rcv_settle_mode,
            source=Source(source.address),
            target=Target(target.address),
            initial_delivery_count=found.initial_delivery_count,
        )

    @property
    def has_text_addresses(self) -> bool:
        """Whether each address is text or missing; the link keeps its addresses, and a list may be of any size."""
        return all(map(_has_text_address, (self.attach.source, self.attach.target)))

    def _source(self) -> Source:
        """Return the peer's source; clients detach if an answer has none."""
        return Source("") if self.attach.source is None else self.attach.source

    def _target(self) -> Target:
        target = self.attach.target
        return target if isinstance(target, Target) else Target("")

    def _require(self, state: LinkState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the link {self.name!r} is {self.state}")

    # ---- called by the session

    def receive_answer(self, attach: Attach) -> None:
        """Attach a client's link by the peer's ATTACH; it keeps its own handle."""
        self.attach = attach
        self._keep_addresses()
        self.state = LinkState.ATTACHED

    def end(self) -> None:
        """Mark the link as detached."""
        self.state = LinkState.DETACHED


def _has_text_address(terminus: object) -> bool:
    return not isinstance(terminus, Source | Target) or isinstance(terminus.address, str | None)


def _address_of(terminus: Source | Target | None) -> str | None:
    return terminus.address if terminus is not None and isinstance(terminus.address, str) else None
