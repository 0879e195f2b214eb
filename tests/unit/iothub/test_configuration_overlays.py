"""Configurations that target one twin: whose value wins, what is removed, and what deployments do to modules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents import DocumentSection
from birthmark.iothub.model import Configuration, ConfigurationKind, Twin, TwinConfiguration
from birthmark.iothub.rules.configuration_overlays import (
    BELOW_BASE,
    NO_BASE,
    OVERRIDDEN,
    compose,
    compose_deployment,
    with_composition,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)
AT = 1_000_000


def configuration(name: str, priority: int = 0, /, age: int = 0, **values: Any) -> Configuration:
    content = {"": {path.replace("__", "."): value for path, value in values.items()}}
    created = NOW - timedelta(seconds=age)
    return Configuration("hub", name, "e", ConfigurationKind.DEVICE, priority, "*", content, created, created)


def deployment(name: str, priority: int, **modules: dict[str, Any]) -> Configuration:
    content = {f"${module}" if module.startswith("edge") else module: one for module, one in modules.items()}
    return replace(configuration(name, priority), kind=ConfigurationKind.DEPLOYMENT, content=content)


def twin(**values: Any) -> Twin:
    return Twin("hub", "d", desired=DocumentSection(values))


def applied(one: Twin, *targeting: Configuration) -> Twin:
    found = compose(one, targeting)
    return with_composition(one, found.desired.get(""), found.states, AT)


def statuses(one: Twin) -> dict[str, str]:
    return {name: state.status for name, state in one.configurations.items()}


def test_values_are_set_below_those_that_are_there() -> None:
    made = applied(twin(fan={"mode": "auto"}, own=1), configuration("a", fan__speed=3))
    assert made.desired.values == {"fan": {"mode": "auto", "speed": 3}, "own": 1}
    assert (statuses(made), made.version) == ({"a": "Applied"}, 2)


def test_of_two_that_set_a_path_the_higher_priority_wins_and_the_other_keeps_its_other_paths() -> None:
    made = applied(twin(), configuration("high", 9, x=1), configuration("low", 1, x=2, y=2))
    assert made.desired.values == {"x": 1, "y": 2}
    assert statuses(made) == {"high": "Applied", "low": "Applied"}


def test_of_equal_priorities_the_newest_wins() -> None:
    made = applied(twin(), configuration("new", 1, age=0, x=1), configuration("old", 1, age=60, x=2))
    assert made.desired.values == {"x": 1}


def test_one_whose_paths_are_all_overridden_is_only_targeted_and_says_why() -> None:
    targeting = [configuration("high", 9, x__y=1, z={}), configuration("low", 1, z__a=2)]
    found = compose(twin(), targeting)
    assert (found.states["low"].status, found.reasons) == ("Targeted", {"low": OVERRIDDEN})


def test_null_removes_a_path() -> None:
    assert applied(twin(x=1, y=1), configuration("a", x=None)).desired.values == {"y": 1}


def test_what_a_configuration_set_is_removed_when_it_no_longer_targets_the_twin() -> None:
    made = applied(applied(twin(own=1), configuration("a", x=1, fan__speed=3)))
    assert made.desired.values == {"fan": {}, "own": 1}
    assert made.configurations == {}


def test_the_next_priority_takes_over_what_a_removed_one_set() -> None:
    low = configuration("low", 1, x=2)
    made = applied(twin(), configuration("high", 9, x=1), low)
    assert applied(made, low).desired.values == {"x": 2}


def test_a_value_that_an_operator_wrote_over_it_is_set_again() -> None:
    one = configuration("a", x=1)
    made = applied(twin(), one)
    changed = msgspec.structs.replace(made, desired=DocumentSection({"x": 5}))
    assert applied(changed, one).desired.values == {"x": 1}


def test_one_that_would_make_the_twin_too_large_is_left_out_and_the_important_one_is_not() -> None:
    big = {f"p{number}": "x" * 4000 for number in range(5)}
    important, other = configuration("important", 9, a=big), configuration("other", 1, b=big)
    found = compose(twin(), [important, other])
    assert {name: state.status for name, state in found.states.items()} == {
        "important": "Applied",
        "other": "Targeted",
    }
    assert found.reasons["other"].startswith("the twin would not be valid: ")


def test_a_twin_that_has_everything_already_is_not_changed() -> None:
    one = configuration("a", x={"y": 1})
    made = applied(twin(), one)
    assert applied(made, one) is made


PATHS = st.sampled_from(["", "a", "a.b", "a.b.c", "a.d", "e"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("xy", max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=4,
)
CONTENTS = st.dictionaries(PATHS, VALUES, min_size=1, max_size=4).map(
    lambda one: {path: value if path or isinstance(value, dict) else {} for path, value in one.items()}
)
TARGETING = st.lists(st.tuples(CONTENTS, st.integers(0, 2)), max_size=4).map(
    lambda some: [
        replace(configuration(f"c{number}", priority), content={"": content})
        for number, (content, priority) in enumerate(some)
    ]
)


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(), max_size=3), TARGETING, TARGETING)
def test_applying_again_changes_nothing_whatever_was_applied_before(
    values: dict[str, int], before: list[Configuration], targeting: list[Configuration]
) -> None:
    made = applied(applied(twin(**values), *before), *targeting)
    assert applied(made, *targeting) is made
    assert set(made.configurations) == {one.id for one in targeting}


@given(TARGETING)
def test_removing_all_leaves_no_value_of_theirs(targeting: list[Configuration]) -> None:
    def leaves(value: Any) -> int:
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    made = applied(applied(twin(), *targeting))
    assert (leaves(made.desired.values), made.configurations) == (0, {})


BASE = {"": {"modules": {"camera": {}}, "schemaVersion": "1.1"}}


def modules(*names: str) -> dict[str, Twin]:
    return {name: Twin("hub", f"d/{name}") for name in ("$edgeAgent", "$edgeHub", *names)}


def test_a_base_deployment_sets_the_runtime_s_properties_and_names_the_modules() -> None:
    base = deployment("base", 1, edgeAgent=BASE, edgeHub={"": {"routes": {}}}, door={"open": True})
    found = compose_deployment(modules(), [base])
    assert found.desired["$edgeAgent"] == BASE[""]
    assert found.desired["door"] == {"open": True}
    assert found.modules == frozenset({"$edgeAgent", "$edgeHub", "camera", "door"})
    assert found.states["base"].status == "Applied"


def test_of_bases_only_the_highest_priority_applies() -> None:
    low, high = deployment("low", 1, edgeAgent={"": {"modules": {"old": {}}}}), deployment("high", 2, edgeAgent=BASE)
    found = compose_deployment(modules(), [low, high])
    assert found.desired["$edgeAgent"] == BASE[""]
    assert found.reasons == {"low": BELOW_BASE.format(base="high")}


def test_layered_deployments_above_the_base_apply_and_those_below_do_not() -> None:
    above = deployment("above", 5, edgeAgent={"modules.door": {"image": "door:2"}})
    below = deployment("below", 1, edgeAgent={"modules.lamp": {"image": "lamp:1"}})
    found = compose_deployment(modules(), [below, above, deployment("base", 3, edgeAgent=BASE)])
    assert found.desired["$edgeAgent"]["modules"] == {"camera": {}, "door": {"image": "door:2"}}
    assert found.modules == frozenset({"$edgeAgent", "$edgeHub", "camera", "door"})
    assert {name: state.status for name, state in found.states.items()} == {
        "below": "Targeted",
        "base": "Applied",
        "above": "Applied",
    }


def test_without_a_base_the_modules_stay_and_layers_are_only_targeted() -> None:
    layer = deployment("layer", 5, edgeAgent={"modules.door": {"image": "door:2"}})
    found = compose_deployment(modules("camera"), [layer])
    assert (found.desired, found.modules, found.reasons) == ({}, None, {"layer": NO_BASE})


def test_a_layer_that_no_longer_targets_the_device_leaves_its_modules() -> None:
    base = deployment("base", 3, edgeAgent=BASE)
    layer = deployment("layer", 5, edgeAgent={"modules.door": {"image": "door:2"}}, door={"open": True})
    twins = modules("camera", "door")
    first = compose_deployment(twins, [base, layer])
    for name, one in twins.items():
        states = first.states if name == "$edgeAgent" else {}
        twins[name] = with_composition(one, first.desired.get(name), states, AT)
    found = compose_deployment(twins, [base])
    assert found.desired["$edgeAgent"] == BASE[""]
    assert found.desired["door"] == {}
    assert found.modules == frozenset({"$edgeAgent", "$edgeHub", "camera"})


def test_a_deployment_keeps_what_a_module_configuration_set() -> None:
    camera = Twin("hub", "d/camera", desired=DocumentSection({"rate": 5, "other": 1}))
    camera = msgspec.structs.replace(
        camera, configurations={"rates": TwinConfiguration(is_applied=True, paths={"": ["rate"]})}
    )
    base = deployment("base", 3, edgeAgent=BASE, camera={"": {"x": 1}})
    found = compose_deployment(modules() | {"camera": camera}, [base])
    assert found.desired["camera"] == {"x": 1, "rate": 5}
