"""`scripts/test PACKAGE` finds every test of a package: each test is somebody's, and each path is there."""

import pytest

from support import tools_pages

tests_of = tools_pages.tests_of()
EVERY = sorted(path for path in tests_of.TESTS.rglob("test_*.py") if not {"kit", "node"} & set(path.parts))


def test_each_path_of_the_map_is_there() -> None:
    named = {path.partition("::")[0] for paths in tests_of.MAP.values() for path in paths}
    assert [path for path in named if not (tests_of.TESTS / path).exists()] == []


def test_the_map_has_packages_alone() -> None:
    assert set(tests_of.MAP) - set(tests_of.packages()) == {"everything"}


def test_each_test_is_of_a_package() -> None:
    known = {path for name in (*tests_of.packages(), "everything") for path in tests_of.tests_of(name)}
    assert [path for path in EVERY if path not in known and not known & set(path.parents)] == []


@pytest.mark.parametrize("package", tests_of.packages())
def test_each_package_has_tests(package: str) -> None:
    assert tests_of.tests_of(package)
