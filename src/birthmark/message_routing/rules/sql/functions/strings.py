"""Functions of text (developer guide, Functions)."""

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import ANY, NEW, SqlFunction
from birthmark.message_routing.rules.sql.values import UNDEFINED, Undefined, Value, int_of, text_of

_MAX_PADDING = 1000
_MAX_ASCII = 127
_BLANK = " \t\r\n\f\v"


def _text(run: EvaluationContext, value: Value) -> str | Undefined:
    text = text_of(value, run.meter)
    if text is not UNDEFINED:
        run.meter.take_for(len(text))
    return text


def concat(run: EvaluationContext, *values: Value) -> Value:
    if not values:
        return UNDEFINED
    if len(values) == 1:
        return values[0]
    if any(type(one) is list for one in values):
        made: list[Value] = []
        for one in values:
            made.extend(one if type(one) is list else () if one is UNDEFINED else (one,))
            run.meter.take(1 + (len(one) if type(one) is list else 0))
        return made
    if not any(type(one) is str for one in values):
        return UNDEFINED
    texts = [_text(run, one) for one in values]
    if any(one is UNDEFINED for one in texts):
        return UNDEFINED
    run.meter.take_for(sum(len(one) for one in texts))  # type: ignore[arg-type, misc]
    return "".join(texts)  # type: ignore[arg-type]


def length(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else len(text)


def numbytes(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else len(text.encode())


def lower(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else text.lower()


def upper(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else text.upper()


def trim(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else text.strip(_BLANK)


def ltrim(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else text.lstrip(_BLANK)


def rtrim(run: EvaluationContext, value: Value) -> Value:
    text = _text(run, value)
    return UNDEFINED if text is UNDEFINED else text.rstrip(_BLANK)


def _padding(run: EvaluationContext, value: Value, spaces: Value) -> tuple[str, str] | Undefined:
    text, count = _text(run, value), int_of(spaces)
    if text is UNDEFINED or count is UNDEFINED:
        return UNDEFINED
    return text, " " * min(max(count, 0), _MAX_PADDING)


def lpad(run: EvaluationContext, value: Value, spaces: Value) -> Value:
    padding = _padding(run, value, spaces)
    return UNDEFINED if padding is UNDEFINED else padding[1] + padding[0]


def rpad(run: EvaluationContext, value: Value, spaces: Value) -> Value:
    padding = _padding(run, value, spaces)
    return UNDEFINED if padding is UNDEFINED else padding[0] + padding[1]


def substring(run: EvaluationContext, value: Value, begin: Value, *more: Value) -> Value:
    text, first = _text(run, value), int_of(begin)
    end = int_of(more[0]) if more else None
    if text is UNDEFINED or first is UNDEFINED or end is UNDEFINED:
        return UNDEFINED
    return text[max(first, 0) : None if end is None else max(end, 0)]


def indexof(run: EvaluationContext, value: Value, part: Value) -> Value:
    text, wanted = _text(run, value), _text(run, part)
    if text is UNDEFINED or wanted is UNDEFINED:
        return UNDEFINED
    run.meter.take_to_find(text, wanted)
    return text.find(wanted)


def startswith(run: EvaluationContext, value: Value, part: Value) -> Value:
    text, wanted = _text(run, value), _text(run, part)
    return UNDEFINED if text is UNDEFINED or wanted is UNDEFINED else text.startswith(wanted)


def endswith(run: EvaluationContext, value: Value, part: Value) -> Value:
    text, wanted = _text(run, value), _text(run, part)
    return UNDEFINED if text is UNDEFINED or wanted is UNDEFINED else text.endswith(wanted)


def replace(run: EvaluationContext, value: Value, old: Value, new: Value) -> Value:
    text, wanted, instead = _text(run, value), _text(run, old), _text(run, new)
    if text is UNDEFINED or wanted is UNDEFINED or instead is UNDEFINED:
        return UNDEFINED
    for _ in ("to count", "to replace"):
        run.meter.take_to_find(text, wanted)
    # The length is known before the text is built.
    run.meter.take_for(len(text) + text.count(wanted) * max(len(instead) - len(wanted), 0))
    return text.replace(wanted, instead)


def character(_run: EvaluationContext, value: Value) -> Value:
    code = int_of(value)
    return UNDEFINED if code is UNDEFINED or not 0 <= code <= _MAX_ASCII else chr(code)


FUNCTIONS = (
    SqlFunction("concat", concat, 0, ANY),
    SqlFunction("length", length, 1, 1, NEW),
    SqlFunction("numbytes", numbytes, 1, 1, NEW),
    SqlFunction("lower", lower, 1, 1),
    SqlFunction("upper", upper, 1, 1),
    SqlFunction("trim", trim, 1, 1),
    SqlFunction("ltrim", ltrim, 1, 1),
    SqlFunction("rtrim", rtrim, 1, 1),
    SqlFunction("lpad", lpad, 2, 2),
    SqlFunction("rpad", rpad, 2, 2),
    SqlFunction("substring", substring, 2, 3),
    SqlFunction("indexof", indexof, 2, 2, NEW),
    SqlFunction("startswith", startswith, 2, 2),
    SqlFunction("endswith", endswith, 2, 2),
    SqlFunction("replace", replace, 3, 3),
    SqlFunction("chr", character, 1, 1),
)
