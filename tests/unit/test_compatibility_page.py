"""The compatibility table has the releases of the changelog, and upgrade tests have the data that it names."""

import re
from pathlib import Path

import birthmark

TOP = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((TOP / "docs/reference/compatibility.md").read_text())


def test_the_table_has_the_releases_of_the_changelog() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+)$", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [version for version, *_ in ROWS] == released
    assert released[0] == birthmark.__version__


def test_each_release_upgrades_all_earlier_ones() -> None:
    versions = [version for version, *_ in reversed(ROWS)]
    upgraded = [earlier for *_, earlier in reversed(ROWS)]
    assert upgraded == [", ".join(versions[:place]) or "none" for place in range(len(versions))]


def test_the_upgrade_tests_have_data_of_each_earlier_release() -> None:
    archives = {path.name.removesuffix(".tar.gz") for path in (TOP / "tests/upgrade").glob("*.tar.gz")}
    assert {version for version, *_ in ROWS[1:]} <= archives


def test_the_latest_release_has_the_python_version_of_the_package() -> None:
    (minimum,) = re.findall(r'^requires-python = ">=(.+)"$', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert ROWS[0][1] == f"{minimum} or newer"
