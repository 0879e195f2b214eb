"""Conditions of a hub's routes (IoT Hub message routing query syntax).

`parse_condition` compiles a condition once, `holds` evaluates it for a `RoutedSubject`: a message and its device's
twin. Null and Undefined are not true.
"""

from birthmark.message_routing.rules.conditions.evaluator import RouteCondition, RoutedSubject, holds, parse_condition
from birthmark.message_routing.rules.sql.errors import SqlMistake, TooMuchError

__all__ = ["RouteCondition", "RoutedSubject", "SqlMistake", "TooMuchError", "holds", "parse_condition"]
