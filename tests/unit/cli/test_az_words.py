"""Who types the words of Azure's `az iot` is led to what they are here, and to no other cloud's."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.cli import app
from birthmark.cli.az_words import AZ, in_azures_words
from birthmark.cli.tree import TREE, Group, meant

GLOSSARY = (Path(__file__).parents[3] / "docs" / "reference" / "glossary.md").read_text()


def node_of(words: list[str]) -> Any:
    node: Any = TREE
    for word in words:
        node = node.commands.get(word) if isinstance(node, Group) else None
    return node


@pytest.mark.parametrize("words", AZ)
def test_a_word_of_az_is_no_command_and_leads_to_one_of_the_same_cloud(words: str) -> None:
    assert node_of(words.split()) is None
    assert node_of(AZ[words].command.split()) is not None
    assert not AZ[words].command.startswith("aws")


@pytest.mark.parametrize("words", AZ)
def test_whoever_types_it_is_told(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("sys.argv", ["birthmark", *words.split(), "--hub-name", "plant"])
    with pytest.raises(SystemExit) as left:
        app.main()
    told = capfd.readouterr().err
    assert left.value.code == 2
    assert f"the nearest here: birthmark {AZ[words].command}." in told
    assert f"`birthmark {AZ[words].command} --help`" in told
    assert AZ[words].note in told


@pytest.mark.parametrize("words", AZ)
def test_the_glossary_has_it(words: str) -> None:
    (row,) = [line for line in GLOSSARY.splitlines() if line.startswith(f"| `az iot {words}`")]
    assert f"`birthmark {AZ[words].command}" in row


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("iot hub device-identity create", "hub device create"),
        ("iot hub device-twin show", "hub twin"),
        ("iot hub query", "hub query"),
        ("iot hub query text", "hub query"),
        ("iot dps", "dps"),
        ("hub certificate create", "hub ca create"),
        ("hub certificate nonsense", "hub ca"),
        ("hub job", "hub query"),
    ],
)
def test_as_many_words_count_as_are_known(typed: str, command: str) -> None:
    found = in_azures_words(tuple(typed.split()))
    assert found is not None
    assert found[1].command == command


@pytest.mark.parametrize("typed", ["", "iot", "iot central", "hub nonsense", "xyzzy"])
def test_what_is_no_word_of_az_is_left_to_others(typed: str) -> None:
    assert in_azures_words(tuple(typed.split())) is None


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("hub", "certificates"),
        ("hub", "thing"),
        ("hub", "shadow"),
        ("dps", "template"),
        ("aws", "twin"),
        ("aws", "c2d"),
    ],
)
def test_whoever_is_at_one_cloud_is_not_led_to_another(path: str, word: str) -> None:
    other = ("aws",) if path != "aws" else ("hub", "dps")
    assert not [one for one in meant((path,), word) if one.startswith(other)]
