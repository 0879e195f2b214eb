"""Idempotent requests and stored responses (draft-ietf-httpapi-idempotency-key-header)."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, bindparam, func, select

from birthmark.store import insert, statement
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request with its user and the idempotency key that the client chose."""

    who: str
    by: str
    """ID of the token or session; a narrower token of the same user cannot read the response of a wider one."""
    key: str
    method: str
    path: str
    body: bytes

    @property
    def digest(self) -> str:
        """Return the digest that identifies this key of this client."""
        return _digest(*(one.encode("utf-8", "surrogatepass") for one in (self.who, self.by, self.key)))

    @property
    def asked(self) -> str:
        """Return the digest that distinguishes this request from others with the same key."""
        return _digest(self.method.encode(), self.path.encode("utf-8", "surrogatepass"), self.body)


@dataclass(frozen=True, slots=True)
class IdempotentResponse:
    """A request with an idempotency key and its response; `status` is none until there is one."""

    digest: str
    who: str
    asked: str
    began_at: datetime
    ends_at: datetime
    status: int | None = None
    answer: str | None = None


def key_of(header: str) -> str | None:
    """Return the key of a header, an RFC 9651 string or a bare value; None if it is invalid."""
    key = header.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    is_key = 0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable() and '"' not in key
    return key if is_key else None


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


KEPT = RowMapper(IdempotentResponse)
kept = KEPT.table("people_once", "digest", sealed=("answer",))
Index("people_once_who", kept.c.who)
Index("people_once_ends", kept.c.ends_at)
BY_DIGEST = find(kept)
COUNT_OF = statement(
    select(func.count().label("count")).where(kept.c.who == bindparam("who"), kept.c.ends_at > bindparam("now"))
)
ADD = insert(kept, ignore_existing=True)
ANSWERED = change(kept, ("status", "answer"), "digest", "began_at")
FORGET = remove(kept, "digest", "began_at")
PURGE = remove(kept, kept.c.ends_at <= bindparam("now"))
