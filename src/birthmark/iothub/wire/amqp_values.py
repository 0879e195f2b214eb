"""Texts and bodies of AMQP messages that devices and services send; `refused` makes the caller's error of a detail."""

from collections.abc import Callable
from typing import Any

from birthmark.amqp.message import AmqpMessage, DataBody, ValueBody
from birthmark.errors import BirthmarkError

Refused = Callable[[str], BirthmarkError]


def body_of(message: AmqpMessage, refused: Refused) -> bytes:
    """Return the bytes of a data section, or of a text or binary value."""
    match message.body:
        case DataBody() as data:
            return data.payload
        case ValueBody(value=str(text)):
            return text.encode()
        case ValueBody(value=bytes(payload)):
            return payload
        case None:
            return b""
        case _:
            raise refused("the body is neither data nor a text or binary value")


def text_of(name: str, value: Any, refused: Refused) -> str:
    """Return the text of a property; numbers and truth values as JSON has them."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise refused(f"{name[:50]!r} is not UTF-8") from error
    if isinstance(value, list | dict):
        raise refused(f"{name[:50]!r} has a list or a map as its value")
    return "" if value is None else str(value)
