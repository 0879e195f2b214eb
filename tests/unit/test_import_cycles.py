"""No module imports, by way of others, itself: not inside a package and not inside a function."""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def check(imports: dict[str, set[str]]) -> None:
    """Raise `CycleError` with the modules of a cycle."""
    TopologicalSorter(imports).prepare()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("birthmark", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 900
    check(imports)


def test_a_cycle_is_found() -> None:
    with pytest.raises(CycleError):
        check({"a": {"b"}, "b": {"c"}, "c": {"a"}})
