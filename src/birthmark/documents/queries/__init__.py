"""Queries over documents in the syntax of Azure's services: parsed by `parse_query` and represented as values.

An invalid query raises `QueryProblem`, which each service translates into its own error. `documents.query_evaluator`
evaluates a query over documents.
"""

from birthmark.documents.queries.parser import (
    MAX_CHARS,
    MAX_CONDITIONS,
    MAX_LEVELS,
    MAX_VALUES,
    QueryProblem,
    parse_query,
)
from birthmark.documents.queries.syntax_tree import (
    Alternative,
    Comparison,
    Condition,
    Conjunction,
    Contains,
    DocumentQuery,
    FieldPath,
    InSet,
    Negation,
    Operand,
    Operator,
    PathPart,
    Primitive,
    QueryKind,
    SelectedField,
    Sum,
    TypeCheck,
    Value,
    paths_in,
    paths_of,
    with_paths,
)

__all__ = [
    "MAX_CHARS",
    "MAX_CONDITIONS",
    "MAX_LEVELS",
    "MAX_VALUES",
    "Alternative",
    "Comparison",
    "Condition",
    "Conjunction",
    "Contains",
    "DocumentQuery",
    "FieldPath",
    "InSet",
    "Negation",
    "Operand",
    "Operator",
    "PathPart",
    "Primitive",
    "QueryKind",
    "QueryProblem",
    "SelectedField",
    "Sum",
    "TypeCheck",
    "Value",
    "parse_query",
    "paths_in",
    "paths_of",
    "with_paths",
]
