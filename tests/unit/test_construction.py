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


def completed_later(path: Path) -> Iterator[str]:
    """Yield each attribute that a module assigns, but does not declare, of an object of ours."""
    tree = ast.parse(path.read_text())
    stores = [one for one in ast.walk(tree) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)]
    own = {one.attr for one in stores if ast.unparse(one.value) == "self"}
    own |= {ast.unparse(one.target) for one in ast.walk(tree) if isinstance(one, ast.AnnAssign)}
    ours = {name.name for one in ast.walk(tree) if _is_ours(one) for name in one.names}  # type: ignore[attr-defined]
    theirs = {
        ast.unparse(to)
        for one in ast.walk(tree)
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Call)
        for to in one.targets
        if ast.unparse(one.value.func).partition(".")[0] not in ours
    }
    theirs |= {one.name for one in ast.walk(tree) if isinstance(one, ast.ExceptHandler) and one.name}
    for one in stores:
        if one.attr not in own and ast.unparse(one).partition(".")[0] not in theirs:
            yield f"{path.relative_to(SRC)} {ast.unparse(one)}"


def _is_ours(one: ast.AST) -> bool:
    return isinstance(one, ast.ImportFrom) and (one.module or "").startswith("birthmark")


def test_no_object_is_completed_after_its_constructor() -> None:
    found = {line for room in SERVED.split() for path in (SRC / room).rglob("*.py") for line in completed_later(path)}
    assert not found, "\n".join(sorted(found))
