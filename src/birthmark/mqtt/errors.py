"""The two ways a protocol breaks: the peer erred, or we did. The pump in `net` maps them to what users see."""

from birthmark.mqtt.reason_codes import ReasonCode


class ProtocolError(Exception):
    """A rule of MQTT was broken; `reason` is a sentence safe for logs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LocalProtocolError(ProtocolError):
    """Our side asked for something MQTT forbids; nothing was written and the connection is as it was."""


class QueueFullError(LocalProtocolError):
    """More messages wait for an acknowledgement than `Limits.max_queued` allows; try again after the next PUBACK."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule; close the connection after sending what `data_to_send` still holds.

    `return_code` is the CONNACK code the specification wants before the close, or None for a bare close.
    `reason_code` is what MQTT 5 calls it (5.0 section 2.4).
    """

    def __init__(
        self, reason: str, return_code: int | None = None, *, reason_code: int = ReasonCode.MALFORMED_PACKET
    ) -> None:
        super().__init__(reason)
        self.return_code = return_code
        self.reason_code = reason_code
