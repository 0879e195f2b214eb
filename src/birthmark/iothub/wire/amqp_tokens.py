"""Claims-based security of a client: the request that puts a token, and its answer (`$cbs` of Azure).

The client sends the request on a link to `$cbs`, and receives the answer on a link from `$cbs`.
"""

from typing import Final

import msgspec

from birthmark.amqp.message import AmqpMessage, MessageProperties, ValueBody, read_message, write_message

CBS_ADDRESS: Final = "$cbs"
SAS_TOKEN_TYPE: Final = "servicebus.windows.net:sastoken"  # noqa: S105 - a type, not a token
_OK, _ABOVE_OK = 200, 300


class PutTokenAnswer(msgspec.Struct, frozen=True):
    """Answer to a request, found by the request's message id."""

    correlation_id: str
    status: int
    description: str

    @property
    def is_ok(self) -> bool:
        return _OK <= self.status < _ABOVE_OK


def put_token_request(
    audience: str, token: str, message_id: str, *, reply_to: str, kind: str = SAS_TOKEN_TYPE
) -> bytes:
    """Return the message that puts a token; `reply_to` is the name or target of the link for the answer."""
    return write_message(
        AmqpMessage(
            ValueBody(token),
            MessageProperties(message_id=message_id, to=CBS_ADDRESS, reply_to=reply_to),
            {"operation": "put-token", "type": kind, "name": audience},
        )
    )


def read_put_token_answer(payload: bytes) -> PutTokenAnswer:
    """Return the answer; status 0 if it has none. Raise `AmqpError` of scope delivery."""
    message = read_message(payload)
    found = message.application_properties
    status, description = found.get("status-code"), found.get("status-description")
    return PutTokenAnswer(
        str(message.properties.correlation_id or ""),
        int(status) if isinstance(status, int) else 0,
        str(description) if isinstance(description, str) else "",
    )
