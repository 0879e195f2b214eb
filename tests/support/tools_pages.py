"""What the scripts under tools/ would write, for tests that compare it with what is written."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from birthmark.operator_api.api_router import Endpoint

_TOOLS = Path(__file__).parents[2] / "tools"


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coverage_by_room() -> ModuleType:
    return _tool("coverage_by_room")


def tests_of() -> ModuleType:
    return _tool("tests_of")


def clients_tool() -> ModuleType:
    return _tool("make_clients")


def catalogues() -> ModuleType:
    return _tool("make_catalogues")


def terminals() -> ModuleType:
    return _tool("make_terminals")


def operator_table() -> Sequence[Endpoint]:
    found: Sequence[Endpoint] = _tool("make_operator_api").table()
    return found


def metrics_page() -> tuple[str, str]:
    """Return the page as it is written, and as it would be."""
    tool = _tool("make_metrics")
    return tool.TARGET.read_text(), tool.page()


def operator_page() -> tuple[str, str]:
    """Return the page as it is written, and as it would be."""
    tool = _tool("make_operator_api")
    return tool.TARGET.read_text(), tool.page()


def capacity_page() -> tuple[str, str]:
    """Return the page as it is written, and as it would be."""
    tool = _tool("make_capacity")
    text = tool.PAGE.read_text()
    return text, tool.page(text, json.loads(tool.FIGURES.read_text())["rows"])


def the_page_of(tool: str) -> str:
    """Return the page that a tool would write."""
    return str(_tool(tool).page())


def alert_files() -> Sequence[tuple[str, str]]:
    """Return the rules for Prometheus and the dashboard as they are written, each with what it would be."""
    tool = _tool("make_alerts")
    return [(tool.RULES_FILE.read_text(), tool.rules_yaml()), (tool.DASHBOARD.read_text(), tool.dashboard_json())]


def aws_tool() -> ModuleType:
    return _tool("make_aws_page")


def azure_tool() -> ModuleType:
    return _tool("make_azure_page")


def limits_tool() -> ModuleType:
    return _tool("make_limits")
