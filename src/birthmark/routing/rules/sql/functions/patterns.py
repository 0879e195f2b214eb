"""Functions of regular expressions, by RE2: time grows with the text alone (ADR 54).

A pattern that RE2 has not (look-around, references back) is refused when the statement is read; where a message brings
one, the result is Undefined, as for every pattern that is none.
"""

import re
from functools import lru_cache
from typing import Any

import re2

from birthmark.routing.rules.sql.functions.catalogue import Function
from birthmark.routing.rules.sql.mistakes import TooMuchError, mistake
from birthmark.routing.rules.sql.run import Run
from birthmark.routing.rules.sql.values import MAX_BYTES, UNDEFINED, Undefined, Value, text_of

_MAX_PATTERN_CHARS = 1024
_MAX_MEMORY_BYTES = 1 << 20
_CHARS_PER_STEP = 4
_REFERENCE = re.compile(r"\\(.)|\$([0-9])|\$|\\", re.DOTALL)

_options = re2.Options()
_options.log_errors = False
_options.max_mem = _MAX_MEMORY_BYTES


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """Return the pattern made ready, or None: a message that brings its own fills no more than this cache."""
    if len(pattern) > _MAX_PATTERN_CHARS:
        return None
    try:
        return re2.compile(pattern, _options)
    except re2.error:
        return None


def check_pattern(pattern: str, where: int) -> None:
    """Raise `SqlMistake` for a pattern that RE2 does not take."""
    if _compiled(pattern) is None:
        mistake(where, "The regular expression is none that RE2 takes.", "Write it without (?=…), (?<…) and \\1.")


def _ready(run: Run, value: Value, pattern: Value) -> tuple[str, Any] | Undefined:
    text, wanted = text_of(value, run.meter), text_of(pattern, run.meter)
    if text is UNDEFINED or wanted is UNDEFINED:
        return UNDEFINED
    run.meter.take(10 + len(text) // _CHARS_PER_STEP)
    compiled = _compiled(wanted)
    return UNDEFINED if compiled is None else (text, compiled)


def regexp_matches(run: Run, value: Value, pattern: Value) -> Value:
    ready = _ready(run, value, pattern)
    return UNDEFINED if ready is UNDEFINED else ready[1].search(ready[0]) is not None


def regexp_substr(run: Run, value: Value, pattern: Value) -> Value:
    ready = _ready(run, value, pattern)
    if ready is UNDEFINED:
        return UNDEFINED
    found = ready[1].search(ready[0])
    return UNDEFINED if found is None else found.group()


def regexp_replace(run: Run, value: Value, pattern: Value, instead: Value) -> Value:
    ready, replacement = _ready(run, value, pattern), text_of(instead, run.meter)
    if ready is UNDEFINED or replacement is UNDEFINED:
        return UNDEFINED
    text, compiled = ready
    parts = _parts(replacement, compiled.groups)
    if parts is UNDEFINED:
        return UNDEFINED
    made: list[str] = []
    at = size = 0
    for found in compiled.finditer(text):
        run.meter.take(1)
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
    """Return a replacement as texts and numbers of groups: `$1` is a group, `\\$` is a dollar."""
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
    Function("regexp_matches", regexp_matches, 2, 2),
    Function("regexp_substr", regexp_substr, 2, 2),
    Function("regexp_replace", regexp_replace, 3, 3),
)
