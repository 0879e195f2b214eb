"""Write docs/reference/refusals.md from the error tree.

python tools/make_refusals.py
"""

import importlib
import pkgutil
from pathlib import Path

import birthmark
from birthmark.errors import BirthmarkError

HEAD = """# Refusals

Every refusal has a stable code. `birthmark why ID` prints the code with its cause and its fix for one case. ID is a
tracking ID, a registration, device or thing ID, an MQTT client ID, a common name or a thumbprint. Words in braces are
facts of the case. The commands of a fix work as printed, except where only a person can do it.
`tools/make_refusals.py` generates this page.

| code | cause | fix |
|---|---|---|
"""


def classes() -> list[type[BirthmarkError]]:
    """Return every class that is raised itself, by code."""
    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark."):
        if not module.name.startswith(
            ("birthmark.secure_elements.hook", "birthmark.demo.apps", "birthmark.store.migrations")
        ):
            importlib.import_module(module.name)
    found: set[type[BirthmarkError]] = set()
    waiting: list[type[BirthmarkError]] = [BirthmarkError]
    while waiting:
        children = [c for c in waiting.pop().__subclasses__() if c.__module__.startswith("birthmark.")]
        found.update(children)
        waiting += children
    families = {parent for cls in found for parent in cls.__mro__[1:] if "fix" not in vars(parent)}
    bare = {cls for cls in found if cls.fix is BirthmarkError.fix}  # kinds, and what only a program asks for
    return sorted(found - families - bare, key=lambda cls: cls.code)


def cell(text: str) -> str:
    """Return text for a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def fix_of(cls: type[BirthmarkError]) -> str:
    """Return the fix as the page shows it."""
    return cell(cls.fix) + (f" *(Manual step: {cls.for_a_person}.)*" if cls.for_a_person else "")


rows = [f"| `{cls.code}` | {cell(cls.cause)} | {fix_of(cls)} |" for cls in classes()]
target = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "refusals.md"
target.write_text(HEAD + "\n".join(rows) + "\n")
print(f"{len(rows)} refusals")
