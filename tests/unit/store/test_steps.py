"""A batch as arrays: every statement that the rooms write with can be a function of a PostgreSQL session."""

import gc
import re

import pytest
from sqlalchemy import bindparam, delete
from test_errors import load_everything

from birthmark.store.compiled_statements import Statement, statement
from birthmark.store.postgresql.batch_functions import BatchSteps, StatementPlans
from support.store.store_table import ADD, BUMP, things


def writes() -> list[Statement]:
    load_everything()
    gc.unfreeze()  # what was there before the first test
    gc.collect()  # statements that other tests made for themselves
    every = [one for one in gc.get_objects() if type(one) is Statement]  # a dead proxy of others has no class
    gc.freeze()
    return [one for one in every if re.match("INSERT|UPDATE|DELETE", one.compiled("postgresql").sql)]


def test_every_statement_that_writes_has_a_plan_and_gives_nothing_back() -> None:
    found, plans = writes(), StatementPlans()
    assert len(found) > 50
    for one in found:
        plans.of(one.compiled("postgresql"))
        assert "RETURNING" not in one.compiled("postgresql").sql


def test_parameters_go_into_the_array_of_their_kind_in_the_statements_order() -> None:
    plans, steps = StatementPlans(), BatchSteps()
    steps.add(plans.of(ADD.compiled("postgresql")), {"n": 1, "id": "a"})
    steps.add(plans.of(BUMP.compiled("postgresql")), {"n": 2, "key_id": "a", "key_n": 1}, expect=1)
    assert steps.arguments() == ([0, -1, 0, 0, 0, 1, 1, 1, 1, 0], ["a", "a"], [1, 2, 1], [])
    assert len(steps) == 2


def test_a_statement_is_made_known_once_to_each_session() -> None:
    plans = StatementPlans()
    plans.of(ADD.compiled("postgresql"))
    assert "birthmark_write_0" in plans.definition()
    plans.defined()
    assert plans.definition() == ""
    plans.of(ADD.compiled("postgresql"))
    assert plans.definition() == ""
    plans.of(BUMP.compiled("postgresql"))
    assert "birthmark_write_1(" in plans.definition()
    assert "FUNCTION pg_temp.birthmark_write_0(" not in plans.definition()
    plans.forget()
    assert "FUNCTION pg_temp.birthmark_write_0(" in plans.definition()


def test_a_parameter_that_is_missing_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        BatchSteps().add(StatementPlans().of(ADD.compiled("postgresql")), {"n": 1})


def test_a_parameter_without_a_type_is_a_mistake_and_leaves_no_trace() -> None:
    untyped, plans = statement(delete(things).where(bindparam("x") == bindparam("y"))), StatementPlans()
    with pytest.raises(TypeError, match="needs a type"):
        plans.of(untyped.compiled("postgresql"))
    assert plans.definition() == ""


def test_two_statements_of_one_text_and_other_names_have_a_plan_each() -> None:
    plans, steps = StatementPlans(), BatchSteps()
    for name in ("one", "other"):
        named = statement(delete(things).where(things.c.id == bindparam(name)))
        steps.add(plans.of(named.compiled("postgresql")), {name: name})
    assert steps.arguments()[1] == ["one", "other"]
