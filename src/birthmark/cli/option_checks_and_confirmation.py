"""Checks before a write: inapplicable options, confirmation, and records that cannot work."""

import sys
from typing import TYPE_CHECKING

import typer

from birthmark.cli.output.command_output import ActionNeededError, UsageError, again, without

if TYPE_CHECKING:
    pass


class OptionNotApplicableError(UsageError):
    """An option has no effect here."""

    code = "cli.option_not_applicable"
    message = "{option} does not apply"
    cause = "{option} has no effect here: the option applies {when}."
    fix = "Run the command without this option: `{without}`"
    option: str
    when: str
    without: str


def only(applies: bool, when: str, **options: object) -> None:
    """Raise `OptionNotApplicableError` for the first of `options` that was given although it does not apply."""
    for name, value in options.items():
        if not applies and value not in (None, False, "", []):
            option = f"--{name.rstrip('_').replace('_', '-')}"
            rest = without(option, takes_value=value is not True)
            raise OptionNotApplicableError(option=option, when=when, without=rest)


def only_typed(applies: bool, when: str, *options: str) -> None:
    """Check options as `only` does, but ignore values from the environment."""
    for option in options:
        if not applies and any(word == option or word.startswith(f"{option}=") for word in sys.argv):
            rest = without(option, takes_value=True)
            raise OptionNotApplicableError(option=option, when=when, without=rest)


def confirm(question: str, *, yes: bool) -> None:
    """Return if the user confirms at the terminal or with --yes; otherwise, exit without changes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ActionNeededError(question=question, again=again())
    typer.confirm(question, abort=True, err=True)
