"""A batch as arrays, and the session functions that run it.

asyncpg sends one statement and waits for its response; its public interface has no pipeline. Statements with inline
values would expose secrets in the server's log when they fail. Therefore the session gets functions in its temporary
schema, which are private and end with it. One function per statement, whose plan the server caches, and two functions
that run a batch of them. A batch has five integers per step: the statement's number, the required row count or -1, and
the start of its texts, numbers and bytes. Three arrays contain these values, since columns are texts, numbers or bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from birthmark.store.compiled_statements import CompiledStatement, Kind

SIZE = 5
"""Number of integers per step."""
_ANY = -1
_BRANCHES = 16
_PARAMETER = re.compile(r"\$(\d+)")
_ARRAYS: Mapping[Kind, tuple[str, str]] = {
    "text": ("p_texts", "p_text"),
    "number": ("p_numbers", "p_number"),
    "blob": ("p_blobs", "p_blob"),
}
_VALUES = "p_texts text[], p_numbers bigint[], p_blobs bytea[]"
_PLACES = "p_text int, p_number int, p_blob int"
_WRITE = (
    "pg_temp.birthmark_write(p_steps[v_at + 1], p_texts, p_numbers, p_blobs, "
    "p_steps[v_at + 3], p_steps[v_at + 4], p_steps[v_at + 5])"
)

_LOCK = "6254722"  # advisory lock class with one lock per worker during a commit
RUN = "SELECT pg_temp.birthmark_run($1, $2, $3, $4, $5)"
"""Run steps; return the number of the first step that did not change the required rows, or -1.

It raises on a constraint violation.
"""
RUN_APART = "SELECT pg_temp.birthmark_run_apart($1, $2, $3, $4, $5, $6)"
"""Run the steps of each group of changes (they end at `$6`) in a separate savepoint; return the result of each.

A result is empty, `step N` for a step with a wrong row count, or `state S` for a violation.
"""

WAIT = f"SELECT pg_advisory_xact_lock({_LOCK}, $1)"
"""Wait until no other session commits for this worker; a lost session may still be about to."""

_PATIENCE = "100ms"  # a commit may wait for ours: PostgreSQL checks deadlocks after a second
PREPARE = f"""
CREATE OR REPLACE FUNCTION pg_temp.birthmark_run(p_steps int[], {_VALUES}, p_lock int) RETURNS int
LANGUAGE plpgsql SET lock_timeout = '{_PATIENCE}' AS $code$
DECLARE v_at int := 0; v_end int := cardinality(p_steps); v_rows bigint;
BEGIN
  PERFORM pg_advisory_xact_lock({_LOCK}, p_lock);
  WHILE v_at < v_end LOOP
    v_rows := {_WRITE};
    IF p_steps[v_at + 2] <> {_ANY} AND v_rows <> p_steps[v_at + 2] THEN RETURN v_at / {SIZE}; END IF;
    v_at := v_at + {SIZE};
  END LOOP;
  RETURN -1;
END $code$;
CREATE OR REPLACE FUNCTION pg_temp.birthmark_run_apart(p_steps int[], {_VALUES}, p_lock int, p_ends int[])
RETURNS text[] LANGUAGE plpgsql SET lock_timeout = '{_PATIENCE}' AS $code$
DECLARE v_at int := 0; v_end int; v_rows bigint; v_outcomes text[] := '{{}}';
BEGIN
  PERFORM pg_advisory_xact_lock({_LOCK}, p_lock);
  FOREACH v_end IN ARRAY p_ends LOOP
    BEGIN
      WHILE v_at < v_end * {SIZE} LOOP
        v_rows := {_WRITE};
        IF p_steps[v_at + 2] <> {_ANY} AND v_rows <> p_steps[v_at + 2] THEN
          RAISE SQLSTATE 'BM001' USING MESSAGE = 'step ' || v_at / {SIZE};
        END IF;
        v_at := v_at + {SIZE};
      END LOOP;
      v_outcomes := array_append(v_outcomes, '');
    EXCEPTION
      WHEN SQLSTATE 'BM001' THEN v_outcomes := array_append(v_outcomes, SQLERRM);
      WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
        v_outcomes := array_append(v_outcomes, 'state ' || SQLSTATE);
    END;
    v_at := v_end * {SIZE};
  END LOOP;
  RETURN v_outcomes;
END $code$;
"""


@dataclass(frozen=True, slots=True)
class StatementPlan:
    """A statement that the session knows: its number, and the array of each parameter."""

    number: int
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    blobs: tuple[str, ...]
    fixed: Mapping[str, Any]


@dataclass(slots=True)
class BatchSteps:
    """A batch under construction."""

    steps: list[int] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    blobs: list[bytes | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps) // SIZE

    def add(self, plan: StatementPlan, params: Mapping[str, Any], expect: int | None = None) -> None:
        """Add a step; raise KeyError when a parameter is missing."""
        texts, numbers, blobs = self.texts, self.numbers, self.blobs
        wanted = _ANY if expect is None else expect
        self.steps += (plan.number, wanted, len(texts), len(numbers), len(blobs))
        if plan.fixed:
            params = {**plan.fixed, **params}
        texts += [params[name] for name in plan.texts]
        numbers += [params[name] for name in plan.numbers]
        if plan.blobs:
            blobs += [params[name] for name in plan.blobs]

    def arguments(self) -> tuple[list[int], list[str | None], list[int | None], list[bytes | None]]:
        """Return the arguments of `RUN`."""
        return self.steps, self.texts, self.numbers, self.blobs


class StatementPlans:
    """The statements of a session by number, and the SQL that defines them."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, tuple[str, ...]], StatementPlan] = {}  # by SQL and names
        self._functions: list[str] = []
        self._defined = 0
        self._sound = 0  # defined in this session or an earlier one

    def of(self, compiled: CompiledStatement) -> StatementPlan:
        """Return the plan of a statement; a new one is available after `definition` is run."""
        if (known := self._plans.get((compiled.sql, compiled.order))) is None:
            names: dict[Kind, list[str]] = {"text": [], "number": [], "blob": []}
            for name, kind in zip(compiled.order, compiled.kinds, strict=True):
                if kind is None:
                    raise TypeError(f"the parameter {name} needs a type: bindparam({name!r}, type_=…)")
                names[kind].append(name)
            texts, numbers, blobs = (tuple(names[kind]) for kind in _ARRAYS)
            known = StatementPlan(len(self._plans), texts, numbers, blobs, compiled.fixed)
            self._functions.append(_function(known.number, compiled))
            self._plans[compiled.sql, compiled.order] = known
        return known

    def forget(self) -> None:
        """Reset for a new session, which has no definitions."""
        self._defined = 0

    def definition(self) -> str:
        """Return the SQL for the undefined statements; empty if there are none."""
        if self._defined == len(self._functions):
            return ""
        return "\n".join([*self._functions[self._defined :], _dispatch(len(self._functions))])

    def defined(self) -> None:
        """Record that `definition` was executed."""
        self._defined = self._sound = len(self._functions)

    def drop_new(self) -> None:
        """Discard statements whose definition the server rejected."""
        del self._functions[self._sound :]
        self._plans = {named: plan for named, plan in self._plans.items() if plan.number < self._sound}


def _function(number: int, compiled: CompiledStatement) -> str:
    """Return the SQL function of a statement; its parameters are elements of the arrays."""
    seen: dict[Kind, int] = {}
    places: dict[str, str] = {}
    for position, kind in enumerate(compiled.kinds, 1):
        assert kind is not None  # noqa: S101 - checked before
        array, place = _ARRAYS[kind]
        seen[kind] = seen.get(kind, 0) + 1
        places[str(position)] = f"{array}[{place} + {seen[kind]}]"
    body = _PARAMETER.sub(lambda found: places[found[1]], compiled.sql)
    if body.startswith("SELECT "):  # its rows are not used
        body = f"PERFORM {body.removeprefix('SELECT ')}"
    return (
        f"CREATE OR REPLACE FUNCTION pg_temp.birthmark_write_{number}({_VALUES}, {_PLACES}) RETURNS bigint\n"
        f"LANGUAGE plpgsql AS $code$ DECLARE v_rows bigint;\n"
        f"BEGIN\n{body};\nGET DIAGNOSTICS v_rows = ROW_COUNT;\nRETURN v_rows;\nEND $code$;"
    )


def _dispatch(count: int) -> str:
    """Return the function that calls a statement by its number, in groups, because each branch has a cost."""
    groups = []
    for first in range(0, count, _BRANCHES):
        last = min(first + _BRANCHES, count)
        branches = "\n".join(
            f"WHEN {number} THEN RETURN pg_temp.birthmark_write_{number}"
            "(p_texts, p_numbers, p_blobs, p_text, p_number, p_blob);"
            for number in range(first, last)
        )
        groups.append(f"IF p_statement < {last} THEN CASE p_statement\n{branches}\nEND CASE; END IF;")
    body = "\n".join(groups)
    return (
        f"CREATE OR REPLACE FUNCTION pg_temp.birthmark_write(p_statement int, {_VALUES}, {_PLACES}) RETURNS bigint\n"
        f"LANGUAGE plpgsql AS $code$ BEGIN\n{body}\nEND $code$;"
    )
