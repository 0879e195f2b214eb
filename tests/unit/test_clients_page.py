"""What tools/make_clients.py reads from the reports of test runs with clients of other languages."""

import re
from pathlib import Path

import pytest

from support.tools_pages import clients_tool

TOOL = clients_tool()


def test_each_client_has_a_version() -> None:
    versions = TOOL.versions()
    assert [one.package for one in TOOL.CLIENTS.values() if one.package not in versions] == []


def test_a_run_with_a_failure_is_not_taken_over(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    case = '<testcase classname="tests.test_aws_devices" name="test_it[go-mqtt3]">{}</testcase>'
    report.write_text(f"<testsuite>{case.format('')}</testsuite>")
    assert TOOL.passed_in(report) == {"go-mqtt3": {"test_it": {""}}}
    report.write_text(f"<testsuite>{case.format('<failure/>')}</testsuite>")
    with pytest.raises(SystemExit):
        TOOL.passed_in(report)


def test_the_client_of_a_test_is_read_from_its_parameters_or_its_module() -> None:
    assert TOOL._split("test_aws_devices", "test_it", "java-PahoMqtt3-se050") == ("java-PahoMqtt3", "se050")
    assert TOOL._split("test_hub_device_sdk", "test_it", "AMQPS") == ("test_hub_device_sdk", "AMQPS")


def test_the_page_has_each_client_with_the_version_that_is_tested() -> None:
    page, known = TOOL.TARGET.read_text(), TOOL.versions()
    for one in TOOL.CLIENTS.values():
        version = known[one.package].removeprefix("v")
        assert f"| {one.name} | {one.language} | `{one.package}` {version} |" in page


def test_the_page_has_each_operation() -> None:
    page = TOOL.TARGET.read_text()
    modules = [path for path in TOOL.TESTS.glob("test_*.py") if path.stem not in TOOL.WITHOUT_CLIENTS]
    names = [name for path in modules for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)]
    assert len(names) > 50
    assert [name for name in names if f"| {TOOL.title(name)} |" not in page] == []
