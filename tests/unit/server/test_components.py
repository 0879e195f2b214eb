"""What loops over the components of a server names no package that serves devices."""

import ast
from pathlib import Path

import pytest

import birthmark

SRC = Path(birthmark.__file__).parent
SERVING = {path.parent.name for path in SRC.glob("*/component.py")}
LOOPS = ["protocol_component.py", "server/metrics_sources.py", "server/revoked_connection_termination.py"]
LOOPS += ["server/amqp_dispatch.py"]
LOOPS += [f"devices/{one.name}" for one in SRC.glob("devices/*.py")]


def imported(path: Path) -> set[str]:
    """Return the packages of birthmark that a module imports, also inside functions."""
    tree = ast.parse(path.read_text())
    names = [one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
    names += [name.name for one in ast.walk(tree) if isinstance(one, ast.Import) for name in one.names]
    return {parts[1] for name in names if (parts := name.split("."))[0] == "birthmark" and len(parts) > 1}


@pytest.mark.parametrize("module", sorted(LOOPS))
def test_a_loop_imports_no_package_that_serves_devices(module: str) -> None:
    assert not imported(SRC / module) & SERVING


def test_the_clouds_and_est_are_components() -> None:
    assert {"est", "dps", "iothub", "awsiot"} <= SERVING
