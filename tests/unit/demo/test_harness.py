"""How a journey reads: in a narrow terminal, in a wide one, in a file."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from birthmark.demo.harness import DemoProof, Stage
from support.fakes import SeededEntropy

LONG = "se050-74eb1c916194e9355703d4bdb3a07a5a0880-100"
COMMAND = ("true", "--with", "a word " * 20)


@pytest.fixture(params=[40, 80, 200])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    console = Console(file=io.StringIO(), width=request.param, highlight=False)
    return Stage("azure", tmp_path, console, SeededEntropy(1))


def told(stage: Stage) -> list[str]:
    assert isinstance(stage.console.file, io.StringIO)
    return stage.console.file.getvalue().splitlines()


def test_sentences_fit_and_are_set_in(stage: Stage) -> None:
    stage.say("The reference key without the chip is worth nothing: the server refuses, and says why it does so.")
    stage.note(f"{LONG}, and so on " * 3)
    first, *others = [line for line in told(stage) if line]
    assert first.startswith("1. The reference")
    assert all(line.startswith("   ") for line in others)
    assert all(len(line) <= stage.console.width for line in told(stage) if LONG not in line)
    assert any(LONG in line for line in others), "a name is never cut"


def test_a_command_stays_one_line_to_be_copied(stage: Stage) -> None:
    stage.run(*COMMAND)
    assert len([line for line in told(stage) if line.strip().startswith("$ true")]) == 1
    assert told(stage)[0].endswith("a word '")


def test_the_table_fits_and_names_every_fact(stage: Stage) -> None:
    stage.prove(DemoProof(LONG, "inside the token, not extractable", "ab" * 32, "hub 127.0.0.1", "10 received"))
    stage.prove(DemoProof("[red]odd", "a file", "cd" * 32, "hub 127.0.0.1", "5 received"))
    stage.console.print(stage.table())
    text = "\n".join(told(stage))
    assert all(len(line) <= stage.console.width for line in told(stage))
    for fact in ("device", "messages", "10 received", "5 received", "[red]odd"):
        assert fact in text


def test_a_module_without_a_certificate_says_so_in_the_table(stage: Stage) -> None:
    stage.prove_module("edge/camera", "a shared key of its own", "none", "127.0.0.2", 3)
    stage.console.print(stage.table())
    text = "\n".join(told(stage))
    assert "none" in text
    assert "none…" not in text
