"""What workers send each other over NATS: MessagePack of tagged arrays."""

import contextlib
from typing import Any, TypeVar

import msgspec

from birthmark.bus.ports import NoAnswerError, Reply
from birthmark.errors import BirthmarkError

_T = TypeVar("_T")


class EventFrame(msgspec.Struct, frozen=True, tag="told", array_like=True):
    """Events: the kind and the body of each. Whoever hears a `token` says so to the worker that sent it."""

    events: tuple[tuple[str, str], ...]
    by: str = ""
    token: int = 0


class EventAck(msgspec.Struct, frozen=True, tag="hears", array_like=True):
    """A worker has handled what it was told under a token."""

    token: int
    worker: str


class RequestFrame(msgspec.Struct, frozen=True, tag="asked", array_like=True):
    """A request; it is not handled for longer than whoever asked waits."""

    kind: str
    body: bytes
    timeout_s: float


class Batch(msgspec.Struct, frozen=True, tag="batch", array_like=True):
    """Requests, one after the other, that nobody waits for."""

    requests: tuple[tuple[str, bytes], ...]


class ReplyFrame(msgspec.Struct, frozen=True, array_like=True):
    """A reply, or the refusal by its code and facts, and by its words for who does not know the code."""

    kind: str = ""
    body: bytes = b""
    code: str = ""
    facts: dict[str, Any] = {}
    behaves_as: str = ""
    """The code of the kind that it is of."""
    words: dict[str, str] = {}


Sent = EventFrame | EventAck | RequestFrame | Batch
read_sent = msgspec.msgpack.Decoder(Sent).decode
read_answer = msgspec.msgpack.Decoder(ReplyFrame).decode
encode = msgspec.msgpack.encode


_WORDS = {"code", "message", "cause", "fix"}


def refusal_of(error: BirthmarkError) -> ReplyFrame:
    """Return a refusal as it travels."""
    facts = {name: value for name, value in vars(error).items() if not name.startswith("_") and name not in _WORDS}
    plain = {name: value if isinstance(value, int | float) else str(value) for name, value in facts.items()}
    kind = next(one for one in BirthmarkError.__subclasses__() if isinstance(error, one))
    words = dict(zip(("message", "cause", "fix"), (str(error), *error.explain_apart()), strict=True))
    return ReplyFrame(code=error.code, facts=plain, behaves_as=vars(kind)["code"], words=words)


def opened(answer: ReplyFrame, facts: dict[str, str]) -> Any:
    """Return the reply. Raise the refusal, or `NoAnswerError` where it is of another version of this program."""
    if not answer.code:
        known = {str(one.__struct_config__.tag): one for one in _below(Reply)}.get(answer.kind)
        if known is None:
            raise NoAnswerError(reason=f"its response {answer.kind} is unknown here", **facts)
        return msgspec.msgpack.decode(answer.body, type=known)
    refusal = next((one for one in _below(BirthmarkError) if vars(one).get("code") == answer.code), None)
    if refusal is not None:
        with contextlib.suppress(TypeError):  # of another version of this program
            raise refusal(**answer.facts)
    kind = next((one for one in BirthmarkError.__subclasses__() if vars(one).get("code") == answer.behaves_as), None)
    if kind is None:
        raise NoAnswerError(reason=f"it returned the refusal {answer.code}, which is unknown here", **facts)
    told = kind(**answer.facts)
    told.quote(code=answer.code, **answer.words)
    raise told


def _below(kind: type[_T]) -> list[type[_T]]:
    return [each for one in kind.__subclasses__() for each in (one, *_below(one))]
