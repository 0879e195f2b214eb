"""An object is complete when its constructor returns: nobody else gives it what it needs later.

What needs each other is made with a `Ref`. An object's own module, and whoever just made it, may change it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import birthmark

SRC = Path(birthmark.__file__).parent
SERVED = """
alerts audit auth awsiot broker bus ca console dps est feed iothub people refusals routing server store
"""
STILL = (Path(__file__).parent / "completed_later.txt").read_text().splitlines()
"""Those that are left; the list only becomes shorter."""


def completed_later(path: Path) -> Iterator[str]:
    """Yield each attribute that a module assigns, but does not declare, of an object that it did not just make."""
    tree = ast.parse(path.read_text())
    stores = [one for one in ast.walk(tree) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)]
    own = {one.attr for one in stores if ast.unparse(one.value) == "self"}
    own |= {ast.unparse(one.target) for one in ast.walk(tree) if isinstance(one, ast.AnnAssign)}
    made = {
        ast.unparse(to) for one in ast.walk(tree) if isinstance(one, ast.Assign) and _makes(one) for to in one.targets
    }
    for one in stores:
        if one.attr not in own and not (isinstance(one.value, ast.Name) and one.value.id in made):
            yield f"{path.relative_to(SRC)} {ast.unparse(one)}"


def _makes(assigned: ast.Assign) -> bool:
    value = assigned.value.value if isinstance(assigned.value, ast.Await) else assigned.value
    return isinstance(value, ast.Call)


def test_no_object_is_completed_after_its_constructor() -> None:
    found = {line for room in SERVED.split() for path in (SRC / room).rglob("*.py") for line in completed_later(path)}
    assert sorted(found) == STILL
