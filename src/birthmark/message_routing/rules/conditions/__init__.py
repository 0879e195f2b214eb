"""Conditions of a hub's routes: which messages a route takes (IoT Hub message routing query syntax).

`parse_condition` reads one once, `holds` applies it to a `Subject`: a message and its device's twin. Null and
Undefined are not true.
"""

from birthmark.message_routing.rules.conditions.evaluator import Condition, Subject, holds, parse_condition
from birthmark.message_routing.rules.sql.errors import SqlMistake, TooMuchError

__all__ = ["Condition", "SqlMistake", "Subject", "TooMuchError", "holds", "parse_condition"]
