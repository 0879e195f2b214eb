"""Any query finds what whoever looks at every twin finds: conditions are drawn, each with what it means."""

import asyncio
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.azure.query_world import a_world

pytestmark = pytest.mark.integration
Asked = tuple[str, Callable[[dict[str, Any]], bool | None]]
FIELDS = ("a", "b")
LITERALS = (0, 1, 2.5, -1, "", "x", "xy", True, False)


def _at(twin: dict[str, Any], field: str) -> Any:
    return twin.get(field)


def _compared(field: str, sign: str, value: Any) -> Asked:
    def holds(twin: dict[str, Any]) -> bool | None:
        has = _at(twin, field)
        if has is None or isinstance(has, dict | list):
            return None
        kinds = {
            "bool" if isinstance(one, bool) else "text" if isinstance(one, str) else "number" for one in (has, value)
        }
        if sign in {"=", "!="}:
            return (len(kinds) == 1 and has == value) == (sign == "=")
        if len(kinds) > 1:
            return None
        return bool({"<": has < value, ">": has > value, "<=": has <= value, ">=": has >= value}[sign])

    literal = f"'{value}'" if isinstance(value, str) else str(value).lower()
    return f"tags.{field} {sign} {literal}", holds


def _joined(sign: str, one: Asked, other: Asked) -> Asked:
    decides = sign == "OR"

    def holds(twin: dict[str, Any]) -> bool | None:
        told = one[1](twin), other[1](twin)
        if decides in told:
            return decides
        return None if None in told else not decides

    return f"({one[0]} {sign} {other[0]})", holds


def _negated(one: Asked) -> Asked:
    return f"NOT {one[0]}", lambda twin: None if (told := one[1](twin)) is None else not told


def _defined(field: str) -> Asked:
    return f"is_defined(tags.{field})", lambda twin: field in twin


QUERIES = st.recursive(
    st.builds(
        _compared,
        st.sampled_from(FIELDS),
        st.sampled_from(["=", "!=", "<", ">", "<=", ">="]),
        st.sampled_from(LITERALS),
    )
    | st.builds(_defined, st.sampled_from(FIELDS)),
    lambda inner: st.builds(_joined, st.sampled_from(["AND", "OR"]), inner, inner) | st.builds(_negated, inner),
    max_leaves=5,
)
TAGS = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([*LITERALS, [1], {"x": 1}]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fleet=st.lists(TAGS, min_size=1, max_size=12), asked=st.lists(QUERIES, min_size=1, max_size=12), late=st.booleans()
)
def test_any_query_finds_what_looking_at_every_twin_finds(
    fleet: list[dict[str, Any]], asked: list[Asked], late: bool
) -> None:  # fmt: skip
    async def compare(directory: str) -> None:
        async with a_world(f"sqlite:///{directory}/x.db") as world:
            for number, tags in enumerate(fleet):
                await world.has(f"d-{number:02}", tags)
                if number == len(fleet) // 2 or not late:
                    await world.iothub.index.index_all()
            for text, holds in asked:
                wanted = [f"d-{number:02}" for number, tags in enumerate(fleet) if holds(tags) is True]
                assert await world.found(text) == wanted, text

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(directory))
