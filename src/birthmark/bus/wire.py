"""Wire format between workers over NATS: MessagePack of tagged arrays."""

import contextlib
from typing import Any, TypeVar

import msgspec

from birthmark.bus.ports import NoAnswerError, Reply
from birthmark.errors import BirthmarkError

_T = TypeVar("_T")


class EventFrame(msgspec.Struct, frozen=True, tag="told", array_like=True):
    """Events, each with type and body; a receiver acknowledges a `token` to the sending worker."""

    events: tuple[tuple[str, str], ...]
    by: str = ""
    token: int = 0


class EventAck(msgspec.Struct, frozen=True, tag="hears", array_like=True):
    """Acknowledgment of an event frame by its token."""

    token: int
    worker: str


class RequestFrame(msgspec.Struct, frozen=True, tag="asked", array_like=True):
    """A request; the receiver stops handling it after the sender's timeout."""

    kind: str
    body: bytes
    timeout_s: float


class Batch(msgspec.Struct, frozen=True, tag="batch", array_like=True):
    """A sequence of requests without replies."""

    requests: tuple[tuple[str, bytes], ...]


class ReplyFrame(msgspec.Struct, frozen=True, array_like=True):
    """A reply, or an error with code and facts, and with its text for receivers that do not know the code."""

    kind: str = ""
    body: bytes = b""
    code: str = ""
    facts: dict[str, Any] = {}
    behaves_as: str = ""
    """Code of the error's base class."""
    words: dict[str, str] = {}


Sent = EventFrame | EventAck | RequestFrame | Batch
read_sent = msgspec.msgpack.Decoder(Sent).decode
read_answer = msgspec.msgpack.Decoder(ReplyFrame).decode
encode = msgspec.msgpack.encode


_WORDS = {"code", "message", "cause", "fix"}


def refusal_of(error: BirthmarkError) -> ReplyFrame:
    """Return a refusal as a reply frame."""
    facts = {name: value for name, value in vars(error).items() if not name.startswith("_") and name not in _WORDS}
    plain = {name: value if isinstance(value, int | float) else str(value) for name, value in facts.items()}
    kind = next(one for one in BirthmarkError.__subclasses__() if isinstance(error, one))
    words = dict(zip(("message", "cause", "fix"), (str(error), *error.explain_for_display()), strict=True))
    return ReplyFrame(code=error.code, facts=plain, behaves_as=vars(kind)["code"], words=words)


def opened(answer: ReplyFrame, facts: dict[str, str]) -> Any:
    """Return the decoded reply.

    Raise its error, or `NoAnswerError` for a reply of an incompatible version.
    """
    if not answer.code:
        known = {str(one.__struct_config__.tag): one for one in _below(Reply)}.get(answer.kind)
        if known is None:
            raise NoAnswerError(reason=f"its response {answer.kind} is unknown here", **facts)
        return msgspec.msgpack.decode(answer.body, type=known)
    refusal = next((one for one in _below(BirthmarkError) if vars(one).get("code") == answer.code), None)
    if refusal is not None:
        with contextlib.suppress(TypeError):  # from another version of Birthmark
            raise refusal(**answer.facts)
    kind = next((one for one in BirthmarkError.__subclasses__() if vars(one).get("code") == answer.behaves_as), None)
    if kind is None:
        raise NoAnswerError(reason=f"it returned the refusal {answer.code}, which is unknown here", **facts)
    told = kind(**answer.facts)
    told.quote(code=answer.code, **answer.words)
    raise told


def _below(kind: type[_T]) -> list[type[_T]]:
    return [each for one in kind.__subclasses__() for each in (one, *_below(one))]
