"""Every command as somebody meets it by --help: a purpose, an example, options that mean the same everywhere."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from birthmark.cli.app import COMMANDS, app

ROOT = typer.main.get_command(app)


def every_command(command: Any = ROOT, path: tuple[str, ...] = ("birthmark",)) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    if hasattr(command, "list_commands"):
        context = typer.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


EVERY = dict(every_command())
LEAVES = {path: command for path, command in EVERY.items() if not hasattr(command, "list_commands")}

# What prints no result of its own: a shell's lines, another program's output, or the one word that it is done.
WITHOUT_JSON = {
    "birthmark audit export",
    "birthmark env",
    "birthmark element exec",
    "birthmark enroll remove",
    "birthmark enroll template",
    "birthmark dps ca remove",
    "birthmark dps delete",
    "birthmark hub delete",
    "birthmark hub device delete",
    "birthmark aws key remove",
    "birthmark completion",
    "birthmark est user remove",
    "birthmark est authority remove",
    "birthmark est bootstrap remove",
}
MEANING = {
    "--json": "Print one JSON object per line.",
    "--data": "The server's data directory.",
    "--pin-file": "File of mode 0600 with the PIN.",
    "--dry-run": "Say what would be done, change nothing.",
}


def options_of(command: Any) -> dict[str, Any]:
    return {option: parameter for parameter in command.params for option in parameter.opts if option.startswith("-")}


def test_every_group_is_mounted() -> None:
    assert {path.split()[1] for path in LEAVES} == set(COMMANDS)
    assert len(LEAVES) > 60


@pytest.mark.parametrize("path", EVERY)
def test_no_flag_is_shown_as_if_a_value_followed(path: str) -> None:
    flags = [one for one in EVERY[path].get_params(typer.Context(EVERY[path])) if getattr(one, "is_flag", False)]
    assert flags
    assert all(one.metavar == "" for one in flags)


@pytest.mark.parametrize("path", EVERY)
def test_it_says_in_one_line_what_it_is_for(path: str) -> None:
    lines = (EVERY[path].help or "").strip().splitlines()
    assert lines, path
    assert 10 <= len(lines[0]) <= 120
    assert lines[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("path", EVERY)
def test_it_shows_an_example_of_itself(path: str) -> None:
    text = f"{EVERY[path].help or ''}\n{EVERY[path].epilog or ''}"
    examples = [line for line in text.splitlines() if line.strip().startswith("Example: ")]
    assert len(examples) == 1, f"{path}: {examples}"
    assert path in examples[0]


@pytest.mark.parametrize("path", EVERY)
def test_every_parameter_is_explained(path: str) -> None:
    for parameter in EVERY[path].params:
        assert getattr(parameter, "help", None), f"{path} {parameter.name}"


@pytest.mark.parametrize("path", EVERY)
def test_a_name_means_the_same_everywhere(path: str) -> None:
    options = options_of(EVERY[path])
    for name, meaning in MEANING.items():
        if name in options and path != "birthmark serve":
            assert options[name].help == meaning
    assert not {name for name in options if "completion" in name}


@pytest.mark.parametrize("path", LEAVES)
def test_results_can_be_read_by_programs(path: str) -> None:
    assert ("--json" in options_of(LEAVES[path])) == (path not in WITHOUT_JSON)


@pytest.mark.parametrize("path", [path for path in LEAVES if path.startswith("birthmark enroll ")])
def test_what_changes_a_cloud_can_be_rehearsed(path: str) -> None:
    changes = path not in {"birthmark enroll list", "birthmark enroll template"}
    assert {"--dry-run", "--yes"}.issubset(options_of(LEAVES[path])) == changes
    assert ("--profile" in options_of(LEAVES[path])) == (path != "birthmark enroll template")


@pytest.mark.parametrize("path", LEAVES)
def test_no_secret_is_taken_as_a_word_of_the_command(path: str) -> None:
    assert not {"--pin", "--password", "--secret", "--token-pin"} & set(options_of(LEAVES[path]))
