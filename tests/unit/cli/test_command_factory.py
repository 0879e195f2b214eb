"""Commands are mounted by one decorator: groups of options, coroutines, refusals."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer

from birthmark.cli.command_factory import JsonOption, as_command
from birthmark.cli.output.command_output import NOT_FOUND
from birthmark.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Inner:
    """A group in a group."""

    depth: Annotated[int, typer.Option(help="How deep.")] = 1


@dataclass(frozen=True, slots=True)
class Outer:
    """A group with one in it."""

    inner: Inner = field(default_factory=Inner)
    as_json: JsonOption = False


def show(group: Outer, name: Annotated[str, typer.Argument(help="Which.")], size: int = 2) -> None:
    """Show a thing."""
    typer.echo(f"{name} {size} {group.inner.depth} {group.as_json}")


async def wait_(group: Outer) -> None:
    """Wait for a thing."""
    typer.echo(f"waited {group.inner.depth}")


def lose(group: Outer) -> None:
    """Lose a thing."""
    raise NotFoundError


def spoil(group: Outer) -> None:
    """Break a thing."""
    raise OSError(28, "No space left on device", "/there")


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))  # refusals are noted there


BODIES: dict[str, Callable[..., object]] = {"show": show, "wait": wait_, "lose": lose, "spoil": spoil}


@dataclass(frozen=True, slots=True)
class Told:
    """What a command printed, and its exit code."""

    stdout: str
    stderr: str
    exit_code: int


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def told(body: str | Callable[..., object], *words: str) -> Told:
        name = body if isinstance(body, str) else body.__name__
        command = as_command(BODIES[body] if isinstance(body, str) else body, name, f"birthmark things {name} x")
        try:
            code = command.main(list(words), standalone_mode=False)
        except typer.Exit as leaving:
            code = leaving.exit_code
        return Told(*capsys.readouterr(), code or 0)

    return told


def test_a_group_stands_for_its_fields_and_those_of_groups_in_it(run: Callable[..., Told]) -> None:
    assert run("show", "x").stdout == "x 2 1 False\n"
    assert run("show", "x", "--size", "3", "--depth", "4", "--json").stdout == "x 3 4 True\n"


def test_a_commands_own_parameters_come_before_those_of_its_groups(run: Callable[..., Told]) -> None:
    told = run("show", "--help").stdout
    assert told.index("--size") < told.index("--depth") < told.index("--json")
    assert "Example: birthmark things show x" in told


def test_a_coroutine_is_run(run: Callable[..., Told]) -> None:
    assert run("wait", "--depth", "7").stdout == "waited 7\n"


def test_a_refusal_is_told_with_its_exit_code_and_with_json_as_json(run: Callable[..., Told]) -> None:
    told = run("lose")
    assert (told.exit_code, "Code: resource.not_found" in told.stderr) == (NOT_FOUND, True)
    assert json.loads(run("lose", "--json").stderr)["error"] == "resource.not_found"


def test_a_file_that_cannot_be_used_is_a_refusal(run: Callable[..., Told]) -> None:
    assert json.loads(run("spoil", "--json").stderr)["error"] == "cli.file_unusable"


def test_other_mistakes_in_a_file_are_told_below_the_first(run: Callable[..., Told]) -> None:
    from birthmark.agent.config import ConfigInvalidError
    from birthmark.cli.output.command_output import WRONG_USAGE

    def check(as_json: JsonOption = False) -> None:
        """Check."""
        others = "f:2: b: is missing. b = 1\nf:3: c: is wrong. c = 1"
        raise ConfigInvalidError(file=Path("f"), line="1", key="a", detail="is wrong", accepted="a = 1", others=others)

    told = run(check)
    assert told.exit_code == WRONG_USAGE
    lines = told.stderr.splitlines()
    assert lines[1:3] == ["  Why: f:1: a: is wrong.", "  Fix: a = 1"]
    assert lines[-2:] == ["  Also: f:2: b: is missing. b = 1", "  Also: f:3: c: is wrong. c = 1"]
    view = json.loads(run(check, "--json").stderr)
    assert view["others"] == ["f:2: b: is missing. b = 1", "f:3: c: is wrong. c = 1"]
    assert (view["cause"], view["fix"]) == ("f:1: a: is wrong.", "a = 1")
