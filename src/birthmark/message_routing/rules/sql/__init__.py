"""AWS IoT SQL: selection of messages by rules (developer guide, AWS IoT SQL reference).

`parse` compiles a statement once, and `evaluate` applies it to a message. `parse_template` and `fill` do the same for
action texts. docs/reference/rules-sql.md lists supported features and differences; each of its rules is a vector in
tests/vectors/rules_sql.toml.
"""

from birthmark.message_routing.rules.sql.compiled_statement import SelectedMessage, SqlStatement, evaluate, parse
from birthmark.message_routing.rules.sql.errors import ShadowWantedError, SqlMistake, TooMuchError
from birthmark.message_routing.rules.sql.evaluation_context import NO_SHADOWS, Lookups, ShadowLookup, new_meter
from birthmark.message_routing.rules.sql.functions.message_metadata import seen_topic
from birthmark.message_routing.rules.sql.parser import check_filter, parse_version
from birthmark.message_routing.rules.sql.substitution_templates import SubstitutionTemplate, fill, parse_template
from birthmark.message_routing.rules.sql.syntax_tree import Version
from birthmark.message_routing.rules.sql.values import UNDEFINED, Meter, Undefined

__all__ = [
    "NO_SHADOWS",
    "UNDEFINED",
    "Lookups",
    "Meter",
    "SelectedMessage",
    "ShadowLookup",
    "ShadowWantedError",
    "SqlMistake",
    "SqlStatement",
    "SubstitutionTemplate",
    "TooMuchError",
    "Undefined",
    "Version",
    "check_filter",
    "evaluate",
    "fill",
    "new_meter",
    "parse",
    "parse_template",
    "parse_version",
    "seen_topic",
]
