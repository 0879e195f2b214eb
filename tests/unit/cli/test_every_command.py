"""Every command as somebody meets it by --help: a purpose, an example, options that mean the same everywhere."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text

from birthmark.cli.app import app
from birthmark.cli.command_tree import (
    _MEANT,
    RENAMED,
    RENAMED_OPTIONS,
    TREE,
    leaves,
    note_on,
    options_renamed,
    renamed,
    suggest_commands,
)

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
    "birthmark server audit export",
    "birthmark env",
    "birthmark chip exec",
    "birthmark aws template example",
    "birthmark device template",
    "birthmark completion",
}
MEANING = {
    "--json": "Print one JSON object per line.",
    "--data": "The server's data directory.",
    "--pin-file": "File of mode 0600 with the PIN.",
    "--dry-run": "Print the planned changes without making them.",
}


def options_of(command: Any) -> dict[str, Any]:
    return {option: parameter for parameter in command.params for option in parameter.opts if option.startswith("-")}


def helps_of(command: Any) -> list[str]:
    return [getattr(one, "help", None) or "" for one in command.params]


def not_with(options: set[str], ending: str) -> list[str]:
    """Return the commands of that ending that lack one of the options."""
    return [path for path, one in LEAVES.items() if path.endswith(ending) and not options.issubset(options_of(one))]


def test_every_group_is_mounted() -> None:
    assert {path.split()[1] for path in LEAVES} == set(TREE.commands)
    assert len(LEAVES) > 60


def test_no_word_of_a_help_is_lost_as_markup() -> None:
    texts = [(path, text) for path, one in EVERY.items() for text in (one.help or "", *helps_of(one))]
    assert [said for said in texts if Text.from_markup(said[1]).plain != said[1].replace("\\[", "[")] == []


def test_no_flag_is_shown_as_if_a_value_followed() -> None:
    params = {path: one.get_params(typer.Context(one)) for path, one in EVERY.items()}
    flags = {path: [one for one in found if getattr(one, "is_flag", False)] for path, found in params.items()}
    assert [path for path, found in flags.items() if not found or any(one.metavar != "" for one in found)] == []


def test_it_says_in_one_line_what_it_is_for() -> None:
    firsts = {path: (one.help or "").strip().partition("\n")[0] for path, one in EVERY.items()}
    assert [path for path, line in firsts.items() if not 10 <= len(line) <= 120] == []
    assert [path for path, line in firsts.items() if not line.rstrip().endswith((".", ":"))] == []


def test_it_shows_an_example_of_itself() -> None:
    texts = {path: f"{one.help or ''}\n{one.epilog or ''}".splitlines() for path, one in EVERY.items()}
    shown = {path: [line for line in lines if line.strip().startswith("Example: ")] for path, lines in texts.items()}
    assert {path: found for path, found in shown.items() if len(found) != 1 or path not in found[0]} == {}


def test_every_parameter_is_explained() -> None:
    assert [path for path, one in EVERY.items() if not all(helps_of(one))] == []


def test_a_name_means_the_same_everywhere() -> None:
    options = {path: options_of(one) for path, one in EVERY.items()}
    for name, meaning in MEANING.items():
        has = {path: found[name].help for path, found in options.items() if name in found and path != "birthmark serve"}
        assert {path: said for path, said in has.items() if said != meaning} == {}
    assert [name for found in options.values() for name in found if "completion" in name] == []


def test_results_can_be_read_by_programs() -> None:
    assert {path for path, one in LEAVES.items() if "--json" not in options_of(one)} == WITHOUT_JSON


ON_RECORD = [" ".join(("birthmark", *words)) for words, leaf in leaves() if leaf.place.startswith("device_enrollment:")]


def test_what_changes_a_cloud_can_be_rehearsed() -> None:
    options = {path: set(options_of(LEAVES[path])) for path in ON_RECORD}
    neither = {"birthmark device ls", "birthmark device template"}
    assert {path for path, found in options.items() if not {"--dry-run", "--yes"} <= found} == neither
    assert [path for path, found in options.items() if "--profile" not in found] == ["birthmark device template"]


def test_what_removes_asks() -> None:
    assert not_with({"--yes"}, " rm") == []


def test_every_list_is_picked_from_alike() -> None:
    assert not_with({"--where", "--limit", "--json"}, " ls") == []


def test_the_example_of_a_group_has_what_its_command_needs() -> None:
    for path in EVERY.keys() - LEAVES.keys():
        words = shlex.split(EVERY[path].epilog.removeprefix("Example: "))
        shown = next(known for count in range(len(words), 0, -1) if (known := " ".join(words[:count])) in LEAVES)
        needs = [one for one in LEAVES[shown].params if one.param_type_name == "argument" and one.required]
        assert len(words) - len(shown.split()) >= len(needs), path


def test_no_secret_is_taken_as_a_word_of_the_command() -> None:
    secrets = {"--pin", "--password", "--secret", "--token-pin"}
    assert [path for path, one in LEAVES.items() if secrets & set(options_of(one))] == []


def test_one_verb_for_one_act() -> None:
    others = {"list", "remove", "delete", "add", "new", "get"}
    assert [path for path in LEAVES if path.rsplit(maxsplit=1)[-1] in others] == []


@pytest.mark.parametrize("was", RENAMED)
def test_an_old_name_says_the_new_one_which_there_is(was: str) -> None:
    assert f"birthmark {was}" not in EVERY
    told = renamed([*was.split(), "--json"])
    assert told is not None
    assert "birthmark " + told[1].removesuffix(" --yes") in EVERY
    assert told[2] == [*told[1].split(), "--json"]


@pytest.mark.parametrize(("path", "names"), RENAMED_OPTIONS.items(), ids=list(RENAMED_OPTIONS))
def test_an_old_option_says_the_new_one_which_there_is(path: str, names: dict[str, str]) -> None:
    there = options_of(LEAVES[f"birthmark {path}"])
    for was, now in names.items():
        assert was not in there
        assert now in there
        told = options_renamed([*path.split(), was, "x", f"{was}=y", "--json", "--", was])
        assert told == ({was: now}, [*path.split(), now, "x", f"{now}=y", "--json", "--", was])


def test_an_option_of_another_command_keeps_its_name() -> None:
    line = ["agent", "apply", "--root", "device"]
    assert options_renamed(line) == ({}, line)


# What an option is about, wherever it is.
ONE_MEANING = {
    "--root": ("agent ", "server install", "server uninstall", "doctor"),
    "--to": ("device ", "swarm "),
    "--profile": ("device ", "hub "),
    "--token": ("chip ", "ca init", "doctor", "device "),
    "--group": ("device ", "dps "),
    "--trust-root": ("chip intake", "manifest ", "device "),
    "--cert-profile": ("ca ", "pki ls"),
}


@pytest.mark.parametrize("option", ONE_MEANING)
def test_no_option_has_two_meanings(option: str) -> None:
    has = [path.removeprefix("birthmark ") for path, command in LEAVES.items() if option in options_of(command)]
    assert has
    assert [path for path in has if not path.startswith(ONE_MEANING[option])] == []


@pytest.mark.parametrize(
    ("path", "word", "nearest"),
    [
        ("", "enrol", "device enroll"),
        ("", "devices", "device"),
        ("hub", "list", "hub ls"),
        ("pki user", "remove", "pki user rm"),
        ("pki user", "add", "pki user create"),
        ("", "rollover", "pki rollover"),
        ("device", "delete", "device rm"),
        ("server", "start", "serve"),
        ("chip", "", "chip"),
        ("", "xyzzy", ""),
        ("device", "add", "device enroll"),
        ("device", "stolen", "device revoke"),
        ("agent", "start", "agent run"),
        ("hub", "listen", "hub monitor"),
        ("", "cert", "pki"),
        ("", "status", "server status"),
        ("server", "stop", "server status"),
    ],
)
def test_a_slip_is_answered_by_the_command_that_was_meant(path: str, word: str, nearest: str) -> None:
    assert suggest_commands(tuple(path.split()), word)[0] == nearest


@pytest.mark.parametrize("slip", _MEANT)
def test_a_guess_is_no_command_and_leads_to_one(slip: str) -> None:
    assert f"birthmark {slip}" not in EVERY
    *path, word = slip.split()
    (led,) = suggest_commands(tuple(path), word)
    assert f"birthmark {led}" in EVERY


@pytest.mark.parametrize(
    ("path", "word", "told"),
    [("server", "stop", "kill"), ("aws thing", "rm", "aws iot"), ("server", "x", ""), ("", "x", "")],
)
def test_what_has_no_command_is_told_how_it_is_done(path: str, word: str, told: str) -> None:
    assert told in note_on(tuple(path.split()), word)


def test_a_help_text_breaks_where_the_terminal_does() -> None:
    paragraphs = [(path, one) for path in EVERY for one in (EVERY[path].help or "").strip().split("\n\n")]
    laid_out = ("\n ", "\n-", "\n*")
    assert [said for said in paragraphs if "\n" in said[1] and not any(sign in said[1] for sign in laid_out)] == []
