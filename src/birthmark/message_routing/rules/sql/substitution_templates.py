"""Substitution templates: text with `${expression}` (developer guide, Substitution templates).

`$$` is a dollar, so a reserved topic is written `$$aws/…`. An expression reads the message and variables of SET, never
the names of SELECT. Undefined is inserted as empty text, an array or object as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.clock_and_entropy import Entropy
from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.sql.compiled_statement import (
    NO_VARIABLES,
    PreparedExpressions,
    begin,
    check_text,
    ready_of,
)
from birthmark.message_routing.rules.sql.compiler import compile_expression
from birthmark.message_routing.rules.sql.errors import mistake
from birthmark.message_routing.rules.sql.evaluation_context import NO_SHADOWS, Lookups, new_meter
from birthmark.message_routing.rules.sql.lexer import SqlTokenKind
from birthmark.message_routing.rules.sql.parser import MAX_TERMS, SqlParser
from birthmark.message_routing.rules.sql.syntax_tree import Expression, Version
from birthmark.message_routing.rules.sql.values import UNDEFINED, Compiled, Meter, Value, text_of


@dataclass(frozen=True, slots=True)
class SubstitutionTemplate:
    """A compiled template."""

    text: str
    version: Version
    needs_shadow: bool
    is_constant: bool
    """Whether the result is the same for every message."""
    ready: PreparedExpressions
    _parts: tuple[str | Compiled, ...]

    @property
    def constant(self) -> str | None:
        """Return the text if it is the same for every message; None if messages change it."""
        return "".join(one for one in self._parts if isinstance(one, str)) if self.is_constant else None


def parse_template(
    text: str, version: Version = Version.V2016_03_23, meter: Meter | None = None
) -> SubstitutionTemplate:
    """Parse a substitution template. Raise `SqlMistake`; names of SET variables are not checked."""
    check_text(text)
    meter = meter or new_meter()
    parts: list[str | Compiled] = []
    expressions: list[Expression] = []
    at = terms = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        if text.startswith("${", dollar):
            parser = SqlParser(text, version, None, meter, dollar + 2)
            expression = parser.expression()
            if parser.here.text != "}" or parser.here.kind is not SqlTokenKind.SIGN:
                mistake(parser.here.where, "A ${ is not closed.", "Close it with }.")
            terms += parser.terms
            if terms > MAX_TERMS:
                mistake(dollar, "The template has more than 2000 terms.", "Make it shorter.")
            expressions.append(expression)
            parts.append(compile_expression(expression))
            at = parser.here.end
        else:
            parts.append("$")
            at = dollar + (2 if text.startswith("$$", dollar) else 1)
    parts.append(text[at:])
    ready = ready_of(tuple(expressions), terms)
    return SubstitutionTemplate(
        text=text,
        version=version,
        needs_shadow=ready.needs_shadow,
        is_constant=not expressions,
        ready=ready,
        _parts=tuple(one for one in parts if one != ""),
    )


def fill(
    template: SubstitutionTemplate,
    message: RoutableMessage,
    *,
    entropy: Entropy,
    lookups: Lookups = NO_SHADOWS,
    variables: Mapping[str, Value] = NO_VARIABLES,
    meter: Meter | None = None,
) -> str:
    """Return the text with its expressions evaluated. Raise the errors of `evaluate`.

    `variables` are those of `Selected`.
    """
    if (constant := template.constant) is not None:
        return constant
    known: dict[str, Any] = {"entropy": entropy, "lookups": lookups, "variables": variables, "meter": meter}
    run, it = begin(message, template.version, template.ready, **known)
    made: list[str] = []
    for part in template._parts:  # noqa: SLF001 - same module
        if isinstance(part, str):
            made.append(part)
            continue
        value = part(it, run)
        text = "null" if value is None else text_of(value, run.meter)
        if text is not UNDEFINED:
            made.append(text)
            run.meter.take_for(len(text))
    run.meter.take_for(sum(map(len, made)))
    return "".join(made)
