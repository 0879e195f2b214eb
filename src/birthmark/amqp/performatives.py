"""Performatives of part 2 section 2.7 and the values in them: errors, outcomes, sources and targets (part 3).

A frame's body is a performative and, for TRANSFER, a payload. Null fields have the standard's defaults.
"""

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from birthmark.amqp.composite import (
    Anything,
    Binary,
    Boolean,
    Fields,
    String,
    Symbols,
    SymbolText,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    composite,
    decode_composite,
    encode_composite,
    nested,
)
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, printable

SENDER: Final = False
RECEIVER: Final = True
"""Roles of a link's end (part 2 section 2.8.1)."""

SETTLED_MODE: Final = 1
MIXED_MODE: Final = 2
"""Sender settle modes besides 0, unsettled (part 2 section 2.8.2)."""

MAX_CHANNEL: Final = 0xFFFF
MAX_U32: Final = 0xFFFFFFFF


@composite(0x1D, "amqp:error:list")
class ErrorInfo(msgspec.Struct, frozen=True):
    """Error of a DETACH, an END, a CLOSE or a rejected outcome (part 2 section 2.8.14)."""

    condition: SymbolText
    description: String | None = None
    info: Fields | None = None


ErrorField = Annotated[ErrorInfo, nested("error", 0x1D)]
State = Annotated[Any, nested("delivery state", 0x23, 0x24, 0x25, 0x26, 0x27, is_open=True)]


@composite(0x23, "amqp:received:list")
class ReceivedState(msgspec.Struct, frozen=True):
    """Progress of a delivery that is resumed; not an outcome (part 3 section 3.4.1)."""

    section_number: UInt32
    section_offset: UInt64


@composite(0x24, "amqp:accepted:list")
class AcceptedOutcome(msgspec.Struct, frozen=True):
    """The receiver has processed the message (part 3 section 3.4.2)."""


@composite(0x25, "amqp:rejected:list")
class RejectedOutcome(msgspec.Struct, frozen=True):
    """The message is invalid and cannot be processed (part 3 section 3.4.3)."""

    error: ErrorField | None = None


@composite(0x26, "amqp:released:list")
class ReleasedOutcome(msgspec.Struct, frozen=True):
    """The receiver did not process the message, and does not intend to (part 3 section 3.4.4)."""


@composite(0x27, "amqp:modified:list")
class ModifiedOutcome(msgspec.Struct, frozen=True):
    """Released, with changes to the message (part 3 section 3.4.5)."""

    delivery_failed: Boolean = False
    undeliverable_here: Boolean = False
    message_annotations: Fields | None = None


Outcome: TypeAlias = AcceptedOutcome | RejectedOutcome | ReleasedOutcome | ModifiedOutcome
OUTCOMES = (AcceptedOutcome, RejectedOutcome, ReleasedOutcome, ModifiedOutcome)
ACCEPTED: Final = AcceptedOutcome()
RELEASED: Final = ReleasedOutcome()


@composite(0x28, "amqp:source:list")
class Source(msgspec.Struct, frozen=True):
    """Where messages of a link come from (part 3 section 3.5.3)."""

    address: Anything = None
    durable: UInt32 | None = None
    expiry_policy: SymbolText | None = None
    timeout: UInt32 | None = None
    dynamic: Boolean | None = None
    dynamic_node_properties: Fields | None = None
    distribution_mode: SymbolText | None = None
    filter: Fields | None = None
    default_outcome: State = None
    outcomes: Symbols | None = None
    capabilities: Symbols | None = None


@composite(0x29, "amqp:target:list")
class Target(msgspec.Struct, frozen=True):
    """Where messages of a link go to (part 3 section 3.5.4)."""

    address: Anything = None
    durable: UInt32 | None = None
    expiry_policy: SymbolText | None = None
    timeout: UInt32 | None = None
    dynamic: Boolean | None = None
    dynamic_node_properties: Fields | None = None
    capabilities: Symbols | None = None


SourceField = Annotated[Source, nested("source", 0x28)]
TargetField = Annotated[Any, nested("target", 0x29, is_open=True)]
"""A coordinator of transactions is a target, too: a `DescribedValue`."""


@composite(0x10, "amqp:open:list")
class Open(msgspec.Struct, frozen=True):
    """Section 2.7.1."""

    container_id: String
    hostname: String | None = None
    max_frame_size: UInt32 = MAX_U32
    channel_max: UInt16 = MAX_CHANNEL
    idle_time_out: UInt32 | None = None
    outgoing_locales: Symbols | None = None
    incoming_locales: Symbols | None = None
    offered_capabilities: Symbols | None = None
    desired_capabilities: Symbols | None = None
    properties: Fields | None = None


@composite(0x11, "amqp:begin:list")
class Begin(msgspec.Struct, frozen=True):
    """Section 2.7.2."""

    remote_channel: UInt16 | None
    next_outgoing_id: UInt32
    incoming_window: UInt32
    outgoing_window: UInt32
    handle_max: UInt32 = MAX_U32
    offered_capabilities: Symbols | None = None
    desired_capabilities: Symbols | None = None
    properties: Fields | None = None


@composite(0x12, "amqp:attach:list")
class Attach(msgspec.Struct, frozen=True):
    """Section 2.7.3. `role` is that of the end that sends it; `unsettled` is ignored, as no link is resumed."""

    name: String
    handle: UInt32
    role: Boolean
    snd_settle_mode: UInt8 = MIXED_MODE
    rcv_settle_mode: UInt8 = 0
    source: SourceField | None = None
    target: TargetField = None
    unsettled: Fields | None = None
    incomplete_unsettled: Boolean = False
    initial_delivery_count: UInt32 | None = None
    max_message_size: UInt64 | None = None
    offered_capabilities: Symbols | None = None
    desired_capabilities: Symbols | None = None
    properties: Fields | None = None


@composite(0x13, "amqp:flow:list")
class Flow(msgspec.Struct, frozen=True):
    """Section 2.7.4."""

    next_incoming_id: UInt32 | None
    incoming_window: UInt32
    next_outgoing_id: UInt32
    outgoing_window: UInt32
    handle: UInt32 | None = None
    delivery_count: UInt32 | None = None
    link_credit: UInt32 | None = None
    available: UInt32 | None = None
    drain: Boolean = False
    echo: Boolean = False
    properties: Fields | None = None


@composite(0x14, "amqp:transfer:list")
class Transfer(msgspec.Struct, frozen=True):
    """Section 2.7.5. `SenderLink` writes it without this struct."""

    handle: UInt32
    delivery_id: UInt32 | None = None
    delivery_tag: Binary | None = None
    message_format: UInt32 | None = None
    settled: Boolean | None = None
    more: Boolean = False
    rcv_settle_mode: UInt8 | None = None
    state: State = None
    resume: Boolean = False
    aborted: Boolean = False
    batchable: Boolean = False


@composite(0x15, "amqp:disposition:list")
class Disposition(msgspec.Struct, frozen=True):
    """Section 2.7.6. `role` is that of the end that sends it."""

    role: Boolean
    first: UInt32
    last: UInt32 | None = None
    settled: Boolean = False
    state: State = None
    batchable: Boolean = False


@composite(0x16, "amqp:detach:list")
class Detach(msgspec.Struct, frozen=True):
    """Section 2.7.7."""

    handle: UInt32
    closed: Boolean = False
    error: ErrorField | None = None


@composite(0x17, "amqp:end:list")
class End(msgspec.Struct, frozen=True):
    """Section 2.7.8."""

    error: ErrorField | None = None


@composite(0x18, "amqp:close:list")
class Close(msgspec.Struct, frozen=True):
    """Section 2.7.9."""

    error: ErrorField | None = None


Performative: TypeAlias = Open | Begin | Attach | Flow | Transfer | Disposition | Detach | End | Close
_PERFORMATIVES = (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)


def decode_performative(body: bytes) -> tuple[Performative, int]:
    """Return a frame's performative and the position of its payload. Raise `AmqpError`."""
    value, end = decode_composite(body)
    if not isinstance(value, _PERFORMATIVES):
        raise AmqpError(AmqpCondition.NOT_ALLOWED, "a frame does not begin with a performative")
    return value, end


def encode_performative(performative: Performative) -> bytes:
    """Return the performative with all its fields. Raise `LocalProtocolError`."""
    return encode_composite(performative)


def without_description(performative: Performative) -> Performative:
    """Return an error in its shortest form, for a peer with small frames."""
    match performative:
        case Detach(error=ErrorInfo() as info) | End(error=ErrorInfo() as info) | Close(error=ErrorInfo() as info):
            return msgspec.structs.replace(performative, error=ErrorInfo(info.condition))
        case Disposition(state=RejectedOutcome(error=ErrorInfo() as info)):
            return msgspec.structs.replace(performative, state=RejectedOutcome(ErrorInfo(info.condition)))
        case _:
            return performative


def error_info_of(error: AmqpError) -> ErrorInfo:
    """Return an error as the peer reads it."""
    return ErrorInfo(error.condition, printable(error.description, 1024), error.info)


def error_of(info: ErrorInfo, scope: AmqpErrorScope) -> AmqpError:
    """Return the peer's error, with its texts shortened for logs."""
    return AmqpError(printable(info.condition), printable(info.description or ""), scope=scope, info=info.info)
