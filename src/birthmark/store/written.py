"""SQLAlchemy's expressions, written down: what they say is known, and SQLAlchemy is loaded where one is compiled.

Nearly every statement of a server stands in `compiled/` (`tools/make_statements.py`), by the digest of all that it
says, its tables' columns included: one that was changed is not found there, and is compiled when it is first used.
SQLAlchemy and its expressions for all tables would be 20 MB, and a third of a start.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

_DIGEST_BYTES = 16
_UNARY = ("invert", "neg")
_BINARY = ("add", "and", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "or", "sub", "truediv")
_TURNED = ("add", "and", "mul", "or", "sub")

_OPERATORS = {name: getattr(operator, f"__{name}__") for name in (*_UNARY, *_BINARY)}

DECLARED: list["Written"] = []
"""The tables and indexes that are declared, in this order."""


class Written:
    """A step of an expression: a name, a call, a member, an item or an operator, and what it is done to."""

    __slots__ = ("_digest", "_made", "_operation", "_parts")

    def __init__(self, operation: str, *parts: Any) -> None:
        self._operation = operation
        self._parts = parts
        self._digest: bytes | None = None
        self._made: Any = None

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        given = tuple([_as_it_is(one) for one in arguments])
        return _Step("call", self, given, more) if more else _Step("call", self, given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Step("member", self, name)

    def __getitem__(self, key: Any) -> Any:
        return _Step("item", self, key)

    def __bool__(self) -> bool:
        raise TypeError("what an expression says is known to the database alone")

    def __str__(self) -> str:
        raise TypeError("an expression is no text")

    def __format__(self, _form: str) -> str:
        return str(self)

    __iter__: ClassVar[None] = None  # else Python would ask for item after item
    __hash__ = object.__hash__


def _as_it_is(value: Any) -> Any:
    """Return what nobody changes any more who made it, as SQLAlchemy takes it at once."""
    return value.copy() if isinstance(value, list | dict) else value


class _Step(Written):
    # Of two of one class Python asks the left one for `==`; where the right one's is a subclass, the right one.
    __slots__ = ()


def _unary(operation: str) -> Callable[[Written], Written]:
    return lambda one: _Step(operation, one)


def _binary(operation: str) -> Callable[[Written, Any], Written]:
    return lambda one, other: _Step(operation, one, other)


def _turned(operation: str) -> Callable[[Written, Any], Written]:
    return lambda one, other: _Step(operation, other, one)


for _name in _UNARY:
    setattr(Written, f"__{_name}__", _unary(_name))
for _name in _BINARY:
    setattr(Written, f"__{_name}__", _binary(_name))
for _name in _TURNED:
    setattr(Written, f"__r{_name}__", _turned(_name))


def named(name: str) -> Written:
    """Return what SQLAlchemy, or `compiling`, has under a name."""
    if name.startswith("_"):
        raise AttributeError(name)
    return _Step("name", name)


class Column(Written):
    """A column as it is declared, and what our own code asks of one."""

    __slots__ = ("autoincrement", "name", "primary_key", "type")

    def __init__(self, name: str, kind: Any, **more: Any) -> None:
        super().__init__("call", named("Column"), (name, kind), more)
        self.name, self.type = name, kind
        self.primary_key, self.autoincrement = more.get("primary_key", False), more.get("autoincrement", "auto")

    def __class_getitem__(cls, _type: Any) -> Any:
        return cls


class _OfTable(Written):
    """A column of a table, as statements name it."""

    __slots__ = Column.__slots__

    def __init__(self, table: "Table", declared: Column) -> None:
        super().__init__("item", _Step("member", table, "c"), declared.name)
        for name in Column.__slots__:
            setattr(self, name, getattr(declared, name))


class _Columns:
    """The columns of a table by their names, and in their order."""

    def __init__(self, columns: Sequence[_OfTable]) -> None:
        self._by_name = {one.name: one for one in columns}

    def __getattr__(self, name: str) -> _OfTable:
        try:
            return self._by_name[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> _OfTable:
        return self._by_name[name]

    def __iter__(self) -> Iterator[_OfTable]:
        return iter(self._by_name.values())


class _Key:
    def __init__(self, columns: Sequence[_OfTable]) -> None:
        self.columns = columns


class Table(Written):
    """A table as it is declared."""

    __slots__ = ("c", "columns", "name", "primary_key")

    def __init__(self, name: str, metadata: "MetaData", *items: Any, **more: Any) -> None:
        super().__init__("call", named("Table"), (name, metadata, *items), more)
        self.name = name
        self.c = self.columns = _Columns([_OfTable(self, one) for one in items if isinstance(one, Column)])
        self.primary_key = _Key([one for one in self.c if one.primary_key])
        metadata.tables[name] = self
        DECLARED.append(self)


class Index(Written):
    """An index as it is declared: no statement names one."""

    __slots__ = ()

    def __init__(self, name: str, *columns: Any, **more: Any) -> None:
        super().__init__("call", named("Index"), (name, *columns), more)
        DECLARED.append(self)


class MetaData(Written):
    """The tables that were declared."""

    __slots__ = ("tables",)

    def __init__(self) -> None:
        super().__init__("call", named("MetaData"), ())
        self.tables: dict[str, Table] = {}

    @property
    def sorted_tables(self) -> Sequence[Table]:
        """None hangs on another, so by their names."""
        return [self.tables[name] for name in sorted(self.tables)]


def digest_of(expression: Written) -> str:
    """Return the same text for expressions that say the same, in every process. Raise TypeError for what is unknown."""
    return _digest(expression).hex()


def _digest(one: Written) -> bytes:
    if one._digest is None:  # noqa: SLF001 - everything but an underscore is what it says
        said = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        _say(said.update, (one._operation, *one._parts))  # noqa: SLF001 - as above
        one._digest = said.digest()  # noqa: SLF001 - as above
    return one._digest  # noqa: SLF001 - as above


def _say(write: Callable[[bytes], None], value: Any) -> None:
    match value:
        case Written():
            write(b"W" + _digest(value))
        case str() | bytes() | int() | float() | None:
            text = repr(value).encode()
            write(b"%s%d:%s" % (type(value).__name__[:1].encode(), len(text), text))
        case tuple() | list():
            write(b"[%d:" % len(value))
            for one in value:
                _say(write, one)
        case dict():
            write(b"{%d:" % len(value))
            for key, one in value.items():
                _say(write, key)
                _say(write, one)
        case _:
            raise TypeError(f"{type(value).__name__} cannot be written down")


def built(value: Any, find: Callable[[str], Any]) -> Any:
    """Return what is written, as what `find` returns for its names makes it: once, however often it is used."""
    match value:
        case Written():
            if value._made is None:  # noqa: SLF001 - as above
                value._made = _made(value, find)  # noqa: SLF001 - as above
            return value._made  # noqa: SLF001 - as above
        case tuple() | list():
            return type(value)([built(one, find) for one in value])
        case dict():
            return {built(key, find): built(one, find) for key, one in value.items()}
        case _:
            return value


def _made(one: Written, find: Callable[[str], Any]) -> Any:
    operation, parts = one._operation, one._parts  # noqa: SLF001 - as above
    match operation:
        case "name":
            return find(parts[0])
        case "call":
            function, arguments, more = built(parts, find) if len(parts) > 2 else (*built(parts, find), {})  # noqa: PLR2004
            return function(*arguments, **more)
        case "member":
            return getattr(built(parts[0], find), parts[1])
        case "item":
            return built(parts[0], find)[parts[1]]
        case _:
            return _OPERATORS[operation](*built(parts, find))
