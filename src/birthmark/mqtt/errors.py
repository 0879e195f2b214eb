"""Protocol errors: of the peer, or of this side. The driver in `net` maps them to user errors."""

from birthmark.mqtt.reason_codes import ReasonCode


class ProtocolError(Exception):
    """A rule of MQTT was broken; `reason` is a sentence safe for logs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """A send that MQTT forbids; no bytes were written and the connection is unchanged."""


class QueueFullError(LocalProtocolError):
    """More unacknowledged messages than `Limits.max_queued` allows; retry after the next PUBACK."""


class RemoteProtocolError(ProtocolError):
    """A protocol violation of the peer; close the connection after sending the rest of `data_to_send`.

    `return_code` is the CONNACK code that the specification requires before the close, or None for a bare close.
    `reason_code` is that of MQTT 5 (5.0 section 2.4).
    """

    def __init__(
        self, reason: str, return_code: int | None = None, *, reason_code: int = ReasonCode.MALFORMED_PACKET
    ) -> None:
        super().__init__(reason)
        self.return_code = return_code
        self.reason_code = reason_code
