"""Queries over documents, as Azure's services write them: read (`parse_query`), and kept as values.

What cannot be read is a `QueryProblem`; each service makes its own error of it. What a query makes of documents is in
`documents.query_evaluator`.
"""

from birthmark.documents.queries.parser import (
    MAX_CHARS,
    MAX_CONDITIONS,
    MAX_LEVELS,
    MAX_VALUES,
    QueryProblem,
    parse_query,
)
from birthmark.documents.queries.syntax import (
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
