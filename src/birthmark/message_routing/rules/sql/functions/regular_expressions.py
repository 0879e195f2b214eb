"""Regular expression functions with RE2: time is linear in the text (ADR 54).

A pattern that RE2 does not support (look-around, backreferences) is rejected when the statement is parsed. If a message
contains one, the result is Undefined, as for every invalid pattern. RE2 is imported with the first pattern: a server
without one starts with 3 MB less memory.
"""

import re
from contextlib import suppress
from typing import Any

from birthmark.message_routing.rules.sql.errors import TooMuchError, mistake
from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import SqlFunction
from birthmark.message_routing.rules.sql.values import MAX_BYTES, UNDEFINED, Meter, Undefined, Value, text_of

_MAX_PATTERN_CHARS = 1024
_MAX_MEMORY_BYTES = 1 << 18
_MAX_CACHED = 256
_STEPS_TO_READY = 100
_STEPS_PER_CHAR = 2
_STEPS_PER_CLASS = 400
r"""Steps per Unicode class: `\pL` takes 0.08 ms at each use; a pattern of 1024 characters 27 ms."""
_STEPS_IF_NONE = 4500
"""Steps of a pattern that RE2 rejects for its memory: 1.2 ms.

An accepted one costs a step per instruction, 0.27 us (all measured).
"""
_STEPS_PER_MATCH = 10
_STATES_PER_STEP = 100
"""States per step: each may read each character when RE2 drops its table, 3 ns each (measured)."""
_ENDLESS, _ENDLESS_OR_GROUP = re.compile(r"[*+]|,\}"), re.compile(r"[*+(|]|,\}")
_REFERENCE = re.compile(r"\\(.)|\$([0-9])|\$|\\", re.DOTALL)

_written: dict[str, Any] = {}
_brought: dict[str, Any] = {}
"""Patterns from messages, cached separately so that they cannot evict those of statements."""


def _compiled(pattern: str, meter: Meter, cache: dict[str, Any]) -> Any:
    """Return the compiled pattern, or None; compiling it costs steps. Raise `TooMuchError`."""
    for known in (_written, _brought):
        if pattern in known:
            return known[pattern]
    import re2  # noqa: PLC0415 - see above

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY_BYTES
    made = None
    if len(pattern) <= _MAX_PATTERN_CHARS:
        classes = pattern.count("\\p") + pattern.count("\\P")
        meter.take(_STEPS_TO_READY + _STEPS_PER_CHAR * len(pattern) + _STEPS_PER_CLASS * classes)
        with suppress(re2.error):
            made = re2.compile(pattern, options)
        meter.take(_STEPS_IF_NONE if made is None else made.programsize)
    if len(cache) >= _MAX_CACHED:
        del cache[next(iter(cache))]
    cache[pattern] = made
    return made


def check_pattern(pattern: str, position: int, meter: Meter) -> None:
    """Raise `SqlMistake` for an unsupported pattern, or if a rule's patterns cost too much."""
    try:
        made = _compiled(pattern, meter, _written)
    except TooMuchError:
        mistake(position, "The regular expressions of the rule are too complex to compile.", "Make two rules of it.")
    if made is None:
        mistake(position, "RE2 does not support the regular expression.", "Write it without (?=…), (?<…) and \\1.")


def _may_read_on(pattern: str) -> bool:
    """Return whether RE2 may read from a match to the end of the text to find a longer one.

    It does not if nothing repeats without bound, or only the end of the pattern does.
    """
    return _ENDLESS.search(pattern) is not None and _ENDLESS_OR_GROUP.search(pattern[:-1]) is not None


def _ready(run: EvaluationContext, value: Value, pattern: Value) -> tuple[str, Any] | Undefined:
    text, wanted = text_of(value, run.meter), text_of(pattern, run.meter)
    if text is UNDEFINED or wanted is UNDEFINED:
        return UNDEFINED
    compiled = _compiled(wanted, run.meter, _brought)
    if compiled is None:
        return UNDEFINED
    run.meter.take(_steps_to_read(len(text), compiled))
    return text, compiled


def _steps_to_read(chars: int, compiled: Any) -> int:
    return int(chars * (compiled.programsize + compiled.reverseprogramsize) // _STATES_PER_STEP)


def regexp_matches(run: EvaluationContext, value: Value, pattern: Value) -> Value:
    ready = _ready(run, value, pattern)
    return UNDEFINED if ready is UNDEFINED else ready[1].search(ready[0]) is not None


def regexp_substr(run: EvaluationContext, value: Value, pattern: Value) -> Value:
    ready = _ready(run, value, pattern)
    if ready is UNDEFINED:
        return UNDEFINED
    found = ready[1].search(ready[0])
    return UNDEFINED if found is None else found.group()


def regexp_replace(run: EvaluationContext, value: Value, pattern: Value, instead: Value) -> Value:
    ready, replacement = _ready(run, value, pattern), text_of(instead, run.meter)
    if ready is UNDEFINED or replacement is UNDEFINED:
        return UNDEFINED
    text, compiled = ready
    parts = _parts(replacement, compiled.groups)
    if parts is UNDEFINED:
        return UNDEFINED
    run.meter.take(len(parts))
    made: list[str] = []
    at = size = 0
    of_each = _STEPS_PER_MATCH + compiled.groups + len(parts)
    reads_on = _may_read_on(compiled.pattern)
    for found in compiled.finditer(text):
        read = len(text) - at if reads_on else min(len(text), found.end() + compiled.programsize) - at
        run.meter.take(of_each + _steps_to_read(read, compiled))
        made.append(text[at : found.start()])
        made.extend(part if isinstance(part, str) else found.group(part) or "" for part in parts)
        size += found.start() - at + sum(len(one) for one in made[-len(parts) :] if parts)
        if size > MAX_BYTES:
            raise TooMuchError("The statement makes a text of more than 131072 characters.")
        at = found.end()
    made.append(text[at:])
    run.meter.take_for(size + len(text) - at)
    return "".join(made)


def _parts(replacement: str, groups: int) -> list[str | int] | Undefined:
    r"""Return a replacement as texts and numbers of groups: `$1` is a group, `\$` is a dollar."""
    made: list[str | int] = []
    at = 0
    for found in _REFERENCE.finditer(replacement):
        made.append(replacement[at : found.start()])
        at = found.end()
        if found.group(1) is not None:
            made.append(found.group(1))
        elif found.group(2) is not None and int(found.group(2)) <= groups:
            made.append(int(found.group(2)))
        else:
            return UNDEFINED
    made.append(replacement[at:])
    return made


FUNCTIONS = (
    SqlFunction("regexp_matches", regexp_matches, 2, 2),
    SqlFunction("regexp_substr", regexp_substr, 2, 2),
    SqlFunction("regexp_replace", regexp_replace, 3, 3),
)
