"""Statement compiler: each expression becomes a function of its scope value and the run."""

from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions import FUNCTIONS
from birthmark.message_routing.rules.sql.functions.numbers import double
from birthmark.message_routing.rules.sql.syntax_tree import (
    ArrayOf,
    CaseExpression,
    CastExpression,
    Chain,
    ComparisonExpression,
    Disjunction,
    Exists,
    Expression,
    FunctionCall,
    InExpression,
    Negative,
    NotExpression,
    ObjectOf,
    ObjectSpread,
    PathExpression,
    SelectAll,
    SelectItem,
    SqlLiteral,
    SqlQuery,
    Star,
    Variable,
)
from birthmark.message_routing.rules.sql.values import (
    UNDEFINED,
    Compiled,
    Value,
    boolean_of,
    calculate,
    equal,
    int_of,
    number_of,
    text_of,
    whole,
)

_MEMBERS_PER_STEP = 8
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def compile_expression(expression: Expression) -> Compiled:
    """Return the expression as a function of the scope value for names and the run."""
    return _COMPILERS[type(expression)](expression)


def compile_where(expression: Expression) -> Compiled:
    """Return WHERE as a function; evaluation stops at the first AND operand that is not true."""
    if not isinstance(expression, SelectAll):
        return compile_expression(expression)
    parts = [compile_where(one) for one in expression.parts]

    def taken(value: Value, run: EvaluationContext) -> Value:
        return all(boolean_of(part(value, run)) is True for part in parts)

    return taken


def compile_items(items: Sequence[SelectItem | ObjectSpread], *, is_value: bool) -> Compiled:
    """Return the SELECT clause as a function: one value, or an object of its defined items."""
    if is_value:
        (only,) = items
        return compile_expression(only.value)
    parts = [(None if isinstance(one, ObjectSpread) else one.name, compile_expression(one.value)) for one in items]

    def select(it: Value, run: EvaluationContext) -> Value:
        made: dict[str, Value] = {}
        for name, part in parts:
            value = part(it, run)
            if name is None:
                if type(value) is dict:
                    run.meter.take(len(value) // _MEMBERS_PER_STEP)
                    made.update(value)
            elif value is not UNDEFINED:
                _put(made, name, value, run)
        return made

    return select


def _put(made: dict[str, Value], name: tuple[str, ...], value: Value, run: EvaluationContext) -> None:
    for part in name[:-1]:
        below = made.get(part)
        # The value may belong to the message, so copy it before a write.
        copy = dict(below) if type(below) is dict else {}
        run.meter.take(len(copy) // _MEMBERS_PER_STEP)
        made[part] = copy
        made = copy
    made[name[-1]] = value


def _path(path: PathExpression) -> Compiled:
    names = path.names
    if path.of is None and len(names) == 1:
        (name,) = names

        def member(value: Value, _run: EvaluationContext) -> Value:
            return value.get(name, UNDEFINED) if type(value) is dict else UNDEFINED

        return member
    begin = compile_expression(Star() if path.of is None else path.of)

    def members(it: Value, run: EvaluationContext) -> Value:
        value = begin(it, run)
        for name in names:
            if type(value) is not dict:
                return UNDEFINED
            value = value.get(name, UNDEFINED)
        return value

    return members


def _array(array_of: ArrayOf) -> Compiled:
    parts = [compile_expression(one) for one in array_of.items]

    def array(it: Value, run: EvaluationContext) -> Value:
        return [value for part in parts if (value := part(it, run)) is not UNDEFINED]

    return array


def _object(object_of: ObjectOf) -> Compiled:
    parts = [(key, compile_expression(one)) for key, one in object_of.pairs]

    def made(it: Value, run: EvaluationContext) -> Value:
        return {key: value for key, part in parts if (value := part(it, run)) is not UNDEFINED}

    return made


def _call(call: FunctionCall) -> Compiled:
    function = FUNCTIONS[call.name]
    if not function.least <= len(call.arguments) <= function.most:
        return lambda _it, _run: UNDEFINED  # per the reference
    run_it = function.call
    parts = [compile_expression(one) for one in call.arguments]
    if call.name == "encode" and isinstance(call.arguments[0], Star):
        parts[0] = _payload  # unparsed, JSON or not
    if not parts:
        return lambda _it, run: run_it(run)
    if len(parts) == 1:
        (only,) = parts
        return lambda it, run: run_it(run, only(it, run))
    return lambda it, run: run_it(run, *[part(it, run) for part in parts])


def _payload(_it: Value, run: EvaluationContext) -> Value:
    return run.message.payload


def _cast(cast: CastExpression) -> Compiled:
    inner = compile_expression(cast.value)

    def to_string(value: Value, run: EvaluationContext) -> Value:
        return text_of(inner(value, run), run.meter)

    def to_int(it: Value, run: EvaluationContext) -> Value:
        value = inner(it, run)
        return int(value) if type(value) is bool else int_of(value)

    def to_boolean(it: Value, run: EvaluationContext) -> Value:
        value = inner(it, run)
        return boolean_of(value) if type(value) in {bool, str} else _truth(value)

    def to_decimal(it: Value, run: EvaluationContext) -> Value:
        value = inner(it, run)
        if type(value) is bool:
            return double(run, float(value))
        number = number_of(value)
        if number is UNDEFINED or type(number) is int:
            return number
        return whole(number) if run.is_whole else number  # type: ignore[arg-type]

    def to_double(value: Value, run: EvaluationContext) -> Value:
        number = to_decimal(value, run)
        return number if number is UNDEFINED or type(number) is int else double(run, float(number))

    return {"string": to_string, "int": to_int, "boolean": to_boolean, "decimal": to_decimal, "double": to_double}[
        cast.kind
    ]


def _truth(value: Value) -> Value:
    number = number_of(value)
    return UNDEFINED if number is UNDEFINED else number != 0


def _compare(compare: ComparisonExpression) -> Compiled:
    left, right = compile_expression(compare.left), compile_expression(compare.right)
    if compare.sign in {"=", "<>"}:
        wanted = compare.sign == "="

        def same(value: Value, run: EvaluationContext) -> Value:
            one, other = left(value, run), right(value, run)
            if one is UNDEFINED or other is UNDEFINED:
                return UNDEFINED
            return equal(one, other, run.meter) is wanted

        return same
    order = _ORDERS[compare.sign]

    def ordered(value: Value, run: EvaluationContext) -> Value:
        one, other = left(value, run), right(value, run)
        if type(one) is not int or type(other) is not int:
            one, other = number_of(one, run.meter), number_of(other, run.meter)
            if one is UNDEFINED or other is UNDEFINED:
                return UNDEFINED
        return order(one, other)

    return ordered


def _in(expression: InExpression) -> Compiled:
    value, array = compile_expression(expression.value), compile_expression(expression.array)

    def among(it: Value, run: EvaluationContext) -> Value:
        wanted, elements = value(it, run), array(it, run)
        if wanted is UNDEFINED or type(elements) is not list:
            return UNDEFINED
        run.meter.take(len(elements))
        return any(equal(wanted, element, run.meter) for element in elements)

    return among


def _exists(exists: Exists) -> Compiled:
    query = compile_expression(exists.query)

    def existing(value: Value, run: EvaluationContext) -> Value:
        made = query(value, run)
        return made is not UNDEFINED and made != []

    return existing


def _chain(chain: Chain) -> Compiled:
    first = compile_expression(chain.first)
    rest = [(sign, compile_expression(one)) for sign, one in chain.rest]

    def calculated(it: Value, run: EvaluationContext) -> Value:
        value = first(it, run)
        for sign, part in rest:
            value = calculate(sign, value, part(it, run), run.meter, is_whole=run.is_whole)
        return value

    return calculated


def _logic(expressions: Sequence[Expression], *, decides: bool) -> Compiled:
    """Return AND (decided by false) or OR (by true); a non-Boolean operand makes the result Undefined."""
    parts = [compile_expression(one) for one in expressions]

    def logic(it: Value, run: EvaluationContext) -> Value:
        result = not decides
        for part in parts:
            value = boolean_of(part(it, run))
            if value is UNDEFINED:
                return UNDEFINED
            if value is decides:
                result = decides
        return result

    return logic


def _not(expression: NotExpression) -> Compiled:
    inner = compile_expression(expression.value)

    def negated(it: Value, run: EvaluationContext) -> Value:
        value = boolean_of(inner(it, run))
        return UNDEFINED if value is UNDEFINED else not value

    return negated


def _negative(expression: Negative) -> Compiled:
    inner = compile_expression(expression.value)

    def negated(value: Value, run: EvaluationContext) -> Value:
        return calculate("-", 0, inner(value, run), run.meter, is_whole=run.is_whole)

    return negated


def _case(case: CaseExpression) -> Compiled:
    value = compile_expression(case.value)
    whens = [(compile_expression(one), compile_expression(then)) for one, then in case.whens]
    otherwise = compile_expression(case.otherwise) if case.otherwise is not None else lambda _it, _run: UNDEFINED

    def chosen(it: Value, run: EvaluationContext) -> Value:
        wanted = value(it, run)
        if wanted is UNDEFINED:
            return UNDEFINED
        for candidate, then in whens:
            found = candidate(it, run)
            if found is not UNDEFINED and equal(wanted, found, run.meter):
                return then(it, run)
        return otherwise(it, run)

    return chosen


def _query(query: SqlQuery) -> Compiled:
    source = compile_expression(query.source)
    select = compile_items(query.items, is_value=query.is_value)
    where = compile_where(query.where) if query.where is not None else None
    terms = query.terms

    def one(value: Value, run: EvaluationContext) -> Value:
        run.meter.take(terms)
        if where is not None and boolean_of(where(value, run)) is not True:
            return UNDEFINED
        return select(value, run)

    def queried(it: Value, run: EvaluationContext) -> Value:
        value = source(it, run)
        if type(value) is list:
            return [made for element in value if (made := one(element, run)) is not UNDEFINED]
        return one(value, run) if type(value) is dict else UNDEFINED

    return queried


def _literal(literal: SqlLiteral) -> Compiled:
    value = literal.value
    return lambda _it, _run: value


def _variable(variable: Variable) -> Compiled:
    name = variable.name
    return lambda _it, run: run.variables.get(name, UNDEFINED)


def _star(_star: Star) -> Compiled:
    return lambda it, _run: it


_COMPILERS: Mapping[type, Callable[[Any], Compiled]] = {
    SqlLiteral: _literal,
    Star: _star,
    Variable: _variable,
    PathExpression: _path,
    ArrayOf: _array,
    ObjectOf: _object,
    FunctionCall: _call,
    CastExpression: _cast,
    ComparisonExpression: _compare,
    InExpression: _in,
    Exists: _exists,
    Chain: _chain,
    SelectAll: lambda one: _logic(one.parts, decides=False),
    Disjunction: lambda one: _logic(one.parts, decides=True),
    NotExpression: _not,
    Negative: _negative,
    CaseExpression: _case,
    SqlQuery: _query,
}
