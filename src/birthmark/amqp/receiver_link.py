"""A link on which this end receives: reassembly of deliveries, credit, settlement (part 2 sections 2.6.7 to 2.6.14)."""

from collections.abc import Mapping
from typing import Any

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.link import WRAP, Link, LinkSession, LinkState
from birthmark.amqp.performatives import (
    ACCEPTED,
    MAX_U32,
    RECEIVER,
    Attach,
    Outcome,
    RejectedOutcome,
    Transfer,
    error_info_of,
)


class CompleteDelivery:
    """A delivery whose transfers have all arrived."""

    __slots__ = ("delivery_id", "message_format", "payload", "settled", "tag")

    def __init__(self, first: Transfer, payload: bytes, *, settled: bool) -> None:
        self.delivery_id = first.delivery_id or 0
        self.tag = first.delivery_tag or b""
        self.message_format = first.message_format or 0
        self.payload = payload
        self.settled = settled


class ReceiverLink(Link):
    """Credit and deliveries to settle never exceed `max_credit` together, so a slow commit holds the peer back."""

    __slots__ = ("_counted", "_first", "_is_settled", "_owed", "_parts", "_size", "max_credit")

    def __init__(self, session: LinkSession, session_id: int, attach: Attach) -> None:
        super().__init__(session, session_id, attach)
        self.max_credit = 0
        self._owed: dict[int, bool] = {}  # deliveries to settle; whether the peer has settled them
        self._first: Transfer | None = None
        self._is_settled = False
        self._parts: list[bytes] = []
        self._size = self._counted = 0

    def accept(
        self,
        *,
        credit: int | None = None,
        max_message_bytes: int | None = None,
        properties: Mapping[Any, Any] | None = None,
        offered_capabilities: tuple[str, ...] | None = None,
    ) -> None:
        """Attach the link and grant credit; the limits' values are the defaults."""
        if self.state is LinkState.DETACHED:
            return
        self._require(LinkState.PENDING)
        limits = self.session.limits
        self.max_credit = limits.link_credit if credit is None else credit
        self.max_message_bytes = limits.max_message_bytes if max_message_bytes is None else max_message_bytes
        self.delivery_count = self.attach.initial_delivery_count or 0
        self._answer(
            Attach(
                self.name,
                self.handle,
                RECEIVER,
                self.attach.snd_settle_mode,
                source=self._source(),
                target=self._target(),
                max_message_size=self.max_message_bytes,
                offered_capabilities=offered_capabilities,
                properties=properties,
            )
        )
        self.state = LinkState.ATTACHED
        self.grant_credit()
        self.session.link_decided(self)

    @property
    def unsettled_ids(self) -> tuple[int, ...]:
        """Deliveries that wait for `settle`."""
        return tuple(self._owed)

    def settle(self, delivery_id: int, outcome: Outcome = ACCEPTED) -> None:
        """Settle a delivery and renew credit; also required for a delivery that the peer sent settled.

        Does nothing for an unknown delivery or on a detached link.
        """
        is_settled = self._owed.pop(delivery_id, None)
        if is_settled is None or self.state is not LinkState.ATTACHED:
            return
        if not is_settled:
            self.session.add_disposition(role=RECEIVER, delivery_id=delivery_id, outcome=outcome)
        self.session.renew_credit(self)

    def reject(self, delivery_id: int, error: AmqpError) -> None:
        """Settle a delivery as rejected, with the reason."""
        self.settle(delivery_id, RejectedOutcome(error_info_of(error)))

    def grant_credit(self) -> None:
        """Grant all credit that `max_credit` allows."""
        credit = self.max_credit - len(self._owed) - (self._first is not None)
        if self.state is LinkState.ATTACHED and credit > self.credit:
            self.credit = credit
            self.session.write_flow(self)

    @property
    def _max_parts(self) -> int:
        """Largest number of transfers for one delivery, also if some are empty."""
        return 2 + self.max_message_bytes // 256

    @property
    def is_credit_low(self) -> bool:
        return self.credit * 2 <= self.max_credit

    # ---- called by the session

    def receive_answer(self, attach: Attach) -> None:
        super().receive_answer(attach)
        self.delivery_count = attach.initial_delivery_count or 0
        self.grant_credit()

    def receive_transfer(self, transfer: Transfer, payload: bytes) -> CompleteDelivery | None:
        """Add a transfer; return the delivery once it is complete. Raise `AmqpError` of scope link."""
        first = self._first
        if first is None:
            first = self._begin_delivery(transfer)
        elif transfer.delivery_id is not None and transfer.delivery_id != first.delivery_id:
            raise self._error(AmqpCondition.NOT_ALLOWED, "a delivery begins before the previous one is complete")
        if transfer.aborted:
            self._reset()
            self.session.renew_credit(self)
            return None
        self._is_settled = self._is_settled or bool(transfer.settled)
        self._size += len(payload)
        self._parts.append(payload)
        if self._size > self.max_message_bytes or len(self._parts) > self._max_parts:
            told = f"a message is larger than {self.max_message_bytes} bytes"
            raise self._error(AmqpCondition.MESSAGE_SIZE_EXCEEDED, told)
        if transfer.more:
            self._counted += len(payload)
            self.session.count_incomplete(len(payload))
            return None
        whole = payload if len(self._parts) == 1 else b"".join(self._parts)
        delivery = CompleteDelivery(first, whole, settled=self._is_settled)
        self._reset()
        self._owed[delivery.delivery_id] = delivery.settled
        return delivery

    def settle_by_peer(self, first: int, width: int) -> None:
        """Record that the peer, as the sender, has settled a range of deliveries."""
        for delivery_id in self._owed:
            if (delivery_id - first) & WRAP <= width:
                self._owed[delivery_id] = True

    def end(self) -> None:
        super().end()
        self._owed.clear()
        self._reset()

    def _begin_delivery(self, transfer: Transfer) -> Transfer:
        if transfer.delivery_id is None:
            raise self._error(AmqpCondition.INVALID_FIELD, "the first transfer of a delivery has no delivery id")
        if transfer.delivery_id in self._owed:
            raise self._error(AmqpCondition.NOT_ALLOWED, "a delivery id is in use")
        if self.credit <= 0:
            raise self._error(AmqpCondition.TRANSFER_LIMIT_EXCEEDED, "the link has no credit")
        if transfer.resume:
            raise self._error(AmqpCondition.NOT_IMPLEMENTED, "deliveries are not resumed")
        self.credit -= 1
        self.delivery_count = self.delivery_count + 1 & MAX_U32
        self._first = transfer
        return transfer

    def _reset(self) -> None:
        self._first = None
        self._is_settled = False
        self._parts = []
        self._size = 0
        if self._counted:
            self.session.count_incomplete(-self._counted)
            self._counted = 0

    def _error(self, condition: AmqpCondition, description: str) -> AmqpError:
        return AmqpError(condition, description, scope=AmqpErrorScope.LINK)
