"""Functions of time (developer guide, Functions): to come."""

from birthmark.routing.rules.sql.functions.catalogue import Function

FUNCTIONS: tuple[Function, ...] = ()
