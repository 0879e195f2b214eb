"""Compiled statements and their evaluation on a message."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from birthmark.clock_and_entropy import Entropy
from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.sql.compiler import compile_expression, compile_items, compile_where
from birthmark.message_routing.rules.sql.errors import TooMuchError, mistake
from birthmark.message_routing.rules.sql.evaluation_context import NO_SHADOWS, EvaluationContext, Lookups, new_meter
from birthmark.message_routing.rules.sql.parser import MAX_SQL_BYTES, SqlParser
from birthmark.message_routing.rules.sql.syntax_tree import (
    FunctionCall,
    ObjectSpread,
    PathExpression,
    Select,
    SqlQuery,
    Star,
    Variable,
    Version,
)
from birthmark.message_routing.rules.sql.values import (
    MAX_BYTES,
    UNDEFINED,
    Compiled,
    Meter,
    Value,
    boolean_of,
    check_size,
    read_payload,
    render_within,
)

NO_VARIABLES: Mapping[str, Value] = MappingProxyType({})
_SURELY_BOUNDED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class PreparedExpressions:
    """Compiled expressions with their message-independent properties."""

    terms: int
    reads_payload: bool
    needs_shadow: bool
    may_grow: bool
    """Whether the output can be far larger than the input: through a nested query or variables."""


@dataclass(frozen=True, slots=True)
class SqlStatement:
    """A rule's statement: parse it once, evaluate it with each message whose topic matches `filter`."""

    sql: str
    version: Version
    filter: str | None
    """Topic filter of FROM; None: reachable by basic ingest only."""
    needs_shadow: bool
    """Whether the statement reads shadows, so that `evaluate` may raise `ShadowWantedError`."""
    select: Select
    ready: PreparedExpressions
    is_whole: bool
    """Whether the statement is SELECT *: the payload is passed through unchanged."""
    _variables: tuple[tuple[str, Compiled], ...]
    _where: Compiled | None
    _select: Compiled


@dataclass(frozen=True, slots=True)
class SelectedMessage:
    """Input of a rule's actions."""

    payload: bytes
    """Compact JSON, or the original bytes with SELECT *; empty if SELECT VALUE is Undefined."""
    variables: Mapping[str, Value] = field(default_factory=dict)
    """Variables from SET, for the actions' templates."""


def parse(sql: str, version: Version = Version.V2016_03_23, meter: Meter | None = None) -> SqlStatement:
    """Parse a statement. Raise `SqlMistake` for invalid text.

    `meter` limits the cost of compiling all patterns of a rule, shared with its templates.
    """
    check_text(sql)
    parser = SqlParser(sql, version, (), meter or new_meter())
    select = parser.statement()
    ready = ready_of(select, parser.terms)
    return SqlStatement(
        sql=sql,
        version=version,
        filter=select.filter,
        needs_shadow=ready.needs_shadow,
        select=select,
        ready=ready,
        is_whole=select.items == (ObjectSpread(Star()),) and not select.is_value,
        _variables=tuple((name, compile_expression(value)) for name, value in select.variables),
        _where=None if select.where is None else compile_where(select.where),
        _select=compile_items(select.items, is_value=select.is_value),
    )


def evaluate(
    statement: SqlStatement,
    message: RoutableMessage,
    *,
    entropy: Entropy,
    lookups: Lookups = NO_SHADOWS,
    meter: Meter | None = None,
) -> SelectedMessage | None:
    """Return the statement's selection, or None if its WHERE is not true.

    Errors within an expression are Undefined. Raise `TooMuchError` for a message that costs too much, and
    `ShadowWantedError` if `lookups` does.
    """
    if statement.is_whole and statement._where is None and not statement._variables:  # noqa: SLF001 - same module
        return SelectedMessage(message.payload, NO_VARIABLES)
    try:
        known: dict[str, Any] = {"entropy": entropy, "lookups": lookups, "meter": meter}
        return _evaluated(statement, *begin(message, statement.version, statement.ready, **known))
    except RecursionError as error:  # the caller's stack may already be deep
        raise TooMuchError("The statement's result is nested too deep.") from error


def _evaluated(statement: SqlStatement, run: EvaluationContext, it: Value) -> SelectedMessage | None:
    if statement._variables:  # noqa: SLF001
        made: dict[str, Value] = {}
        run.variables = made
        for name, compute in statement._variables:  # noqa: SLF001
            value = compute(it, run)
            check_size(value, run.meter)
            made[name] = value
    if statement._where is not None and boolean_of(statement._where(it, run)) is not True:  # noqa: SLF001
        return None
    if statement.is_whole:
        return SelectedMessage(run.message.payload, run.variables)
    return SelectedMessage(render_within(statement._select(it, run), run.meter), run.variables)  # noqa: SLF001


def begin(
    message: RoutableMessage,
    version: Version,
    ready: PreparedExpressions,
    *,
    entropy: Entropy,
    lookups: Lookups,
    variables: Mapping[str, Value] = NO_VARIABLES,
    meter: Meter | None = None,
) -> tuple[EvaluationContext, Value]:
    """Return a run and the scope value for names; `meter` may already count other runs."""
    meter = meter or new_meter()
    meter.may_grow = ready.may_grow or ready.terms * len(message.payload) > _SURELY_BOUNDED_BYTES
    run = EvaluationContext(message, version, entropy, lookups, variables, meter)
    if not ready.reads_payload:
        return run, UNDEFINED
    return run, read_payload(message.payload, version) if len(message.payload) <= MAX_BYTES else message.payload


def check_text(text: str) -> None:
    """Raise `SqlMistake` for text that is too long or cannot be encoded as UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        mistake(error.start, "The text has half of a character.", "Send it as UTF-8.")
    if size > MAX_SQL_BYTES:
        mistake(0, "The text is longer than 262144 bytes.", "Make several rules of it.")


def ready_of(node: Any, terms: int) -> PreparedExpressions:
    """Return the message-independent properties of a statement or expression."""
    found = list(_walk(node))
    return PreparedExpressions(
        terms=terms,
        reads_payload=any(isinstance(one, PathExpression | Star) for one in found),
        needs_shadow=any(isinstance(one, FunctionCall) and one.name == "get_thing_shadow" for one in found),
        may_grow=any(
            isinstance(one, SqlQuery | Variable) or (isinstance(one, FunctionCall) and one.name in _GROWING)
            for one in found
        ),
    )


_GROWING = frozenset({"decode", "get_thing_shadow", "transform", "concat"})


def _walk(node: Any) -> Iterator[Any]:
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting.extend(one)
        elif is_dataclass(one):
            yield one
            waiting.extend(getattr(one, part.name) for part in fields(one))
