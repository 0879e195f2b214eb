"""Names are nouns of the field: no module or class is a participle, a gerund, an adverb or a preposition, and public
class names are unique."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "birthmark"
FILES = sorted(path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FIELD_NOUNS = words(
    "addressing alerting chunking finding framing indexing mapping matching opening provisioning reading rendering"
    " routing sealing setting signing string thing tracking warning feed seed speed embed"
)
"""Words of the field that only look like a gerund or a participle."""
IRREGULAR = words(
    "became begun bound built caught chosen came done drawn felt forgotten found given gone grown heard held hid hidden"
    " kept known laid led left lent lost made meant met paid said seen sent shown sold spent stood stolen struck swept"
    " sworn taken thought thrown told torn understood went woken won written"
)
NO_NOUNS = words(
    "about above across after afresh again against along among anew anywhere around aside at away before behind below"
    " beneath beside between beyond by during either else ever except for from here how in inside instead into late"
    " like maybe near never now of off on once onto out outside over past since so soon still then there through to"
    " together too toward twice under until up upon what when where whether which who whose why with within"
    " without yet"
)
ALLOWED = {
    "Undefined": "the value of rule SQL, as AWS names it",
    "_Undefined": "the value of hub queries, as Azure names it",
    "why": "the module of the command `birthmark why`",
}
"""Names that stay, with the reason."""
EVENT_BASES = frozenset({"Event", "AmqpEvent", "BusRequest", "KitCommand"})
"""What happened, or what is requested: `DeviceChanged`, `IsKnown`."""


def words_of(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def is_no_noun(name: str) -> bool:
    words = words_of(name)
    last = words[-1]
    if last in FIELD_NOUNS:
        return False
    return (
        (len(words) == 1 and last in NO_NOUNS)
        or last in IRREGULAR
        or (len(last) > len("ring") and last.endswith("ing"))
        or (len(last) > len("need") and last.endswith("ed"))
    )


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                yield path.relative_to(SOURCE).as_posix(), node


def bases(node: ast.ClassDef) -> set[str]:
    return {re.sub(r".*\.|\[.*", "", ast.unparse(base)) for base in node.bases}


def test_modules_are_nouns() -> None:
    found = {path.relative_to(SOURCE).as_posix() for path in FILES if is_no_noun(path.stem) and path.stem != "__init__"}
    assert {path for path in found if Path(path).stem not in ALLOWED} == set()


def test_classes_are_nouns() -> None:
    found = {f"{path}: {one.name}" for path, one in classes() if is_no_noun(one.name) and not bases(one) & EVENT_BASES}
    assert {one for one in found if one.partition(": ")[2] not in ALLOWED} == set()


def test_public_class_names_are_unique_but_for_errors() -> None:
    found = defaultdict(list)
    for path, one in classes():
        if not one.name.startswith("_") and not one.name.endswith("Error"):
            found[one.name].append(path)
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_name_that_is_allowed_is_there(name: str) -> None:
    modules = {path.stem for path in FILES}
    assert name in modules | {one.name for _, one in classes()}


def test_the_list_of_allowed_names_is_short() -> None:
    assert len(ALLOWED) <= 30
