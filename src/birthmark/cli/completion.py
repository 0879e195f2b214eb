"""`birthmark completion`: shell completion of commands, subcommands and options."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """Shells with command completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Shell.")]) -> None:
    """Print a shell's completion script."""
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="birthmark", complete_var="_BIRTHMARK_COMPLETE", shell=shell.value))
