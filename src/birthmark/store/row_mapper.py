"""Frozen values as table rows: each field is a column, of the same name unless configured otherwise."""

import enum
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from sqlalchemy import Column, Table
from sqlalchemy.schema import SchemaItem

from birthmark.pki.certificates import Certificate, parse_der
from birthmark.store.core_tables import metadata
from birthmark.store.database import Row
from birthmark.store.plain_and_encrypted_column_types import blob, from_micros, number, text, to_micros

T = TypeVar("T")
Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]

certificate_of = lru_cache(maxsize=1024)(parse_der)
"""Return the certificate of a column; cached, because the same few CAs are read repeatedly."""


def _pairs_of(text: str) -> dict[str, tuple[bytes, bytes]]:
    return {name: (b64decode(first), b64decode(second)) for name, (first, second) in json.loads(text).items()}


def _text_of(pairs: Mapping[str, tuple[bytes, bytes]]) -> str:
    return json.dumps({name: [b64encode(key).decode() for key in pair] for name, pair in pairs.items()})


_CODECS: Mapping[Any, Codec] = {
    bool: (bool, int),
    datetime: (from_micros, to_micros),
    Certificate: (certificate_of, lambda certificate: certificate.der),
    tuple[str, ...]: (lambda text: tuple(json.loads(text)), json.dumps),
    dict[str, tuple[bytes, bytes]]: (_pairs_of, _text_of),
    Mapping: (json.loads, lambda document: json.dumps(dict(document), sort_keys=True)),
}
# Other types are text.
_COLUMNS: Mapping[Any, Callable[..., Column[Any]]] = {
    int: number,
    bool: number,
    datetime: number,
    bytes: blob,
    Certificate: blob,
}


class RowMapper(Generic[T]):
    """Converts rows to values of one class and values to rows; `columns` maps fields whose column has another name."""

    def __init__(self, kind: type[T], **columns: str) -> None:
        self._kind = kind
        hints = get_type_hints(kind)
        self._hints = {columns.get(name, name): hint for name, hint in hints.items()}
        self._fields = [(name, columns.get(name, name), _codec(hint)) for name, hint in hints.items()]

    def table(self, name: str, *keys: str, more: Sequence[SchemaItem] = (), sealed: Sequence[str] = ()) -> Table:
        """Return the table of these rows: `keys` is the primary key, and `more` adds other columns and constraints.

        The `sealed` columns are text that contains secrets.
        """
        columns = (
            text(one, sealed=True, optional=_without_none(hint)[1]) if one in sealed else _column(one, hint, keys)
            for one, hint in self._hints.items()
        )
        return Table(name, metadata, *columns, *more)

    def of(self, row: Row, **known: Any) -> T:
        """Return the value of a row; fields in `known` are not read."""
        read_too = {name: read(row[column]) for name, column, (read, _) in self._fields if name not in known}
        return self._kind(**known, **read_too)

    def row(self, value: T) -> dict[str, Any]:
        """Return the row of a value."""
        return {column: write(getattr(value, name)) for name, column, (_, write) in self._fields}


def _column(name: str, hint: Any, keys: Sequence[str]) -> Column[Any]:
    hint, is_optional = _without_none(hint)
    make: Callable[..., Column[Any]] = _COLUMNS.get(getattr(hint, "__supertype__", hint), text)
    return make(name, key=name in keys, optional=is_optional)


def _without_none(hint: Any) -> tuple[Any, bool]:
    options = get_args(hint)
    if NoneType not in options:
        return hint, False
    return next(option for option in options if option is not NoneType), True


def _codec(hint: Any) -> Codec:
    """Return the codec of a type; types without an entry are stored unchanged."""
    hint, is_optional = _without_none(hint)
    if is_optional:
        read, write = _codec(hint)
        return lambda raw: None if raw is None else read(raw), lambda value: None if value is None else write(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint, lambda member: member.value
    return _CODECS.get(hint) or _CODECS.get(get_origin(hint), (_same, _same))


def _same(value: Any) -> Any:
    return value
