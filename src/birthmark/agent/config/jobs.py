"""`[jobs]`: allowed job actions. aziot has no such table, so unknown keys are errors."""

import re
from pathlib import Path
from typing import Annotated

import msgspec

from birthmark.agent.config.key_and_file_uris import file_of
from birthmark.agent.config.toml_tables import FLAG, MistakeError, Read, Table, kind_of
from birthmark.agent.jobs.model import JobSettings, ReplaceableFile, RestartCommand, RestartProof, RunCommand
from birthmark.device_transports.urls import UrlInvalidError, parse_url, suggest_url

_NAME = re.compile("[A-Za-z0-9_.-]{1,64}")
_MAX_SECONDS = 7 * 24 * 3600
_MAX_BYTES = 2**40
_WORDS: Read[list[str]] = kind_of(list[str], "must be a list of texts", '`{name} = ["/usr/bin/program", "--option"]`')
_EXAMPLE = '`{name} = ["/usr/bin/systemctl", "reboot"]`'


def _number(at_least: int, at_most: int) -> Read[int]:
    shape = Annotated[int, msgspec.Meta(ge=at_least, le=at_most)]
    return kind_of(shape, f"must be an integer from {at_least} to {at_most}", f"`{{name}} = {at_least}`")


_SECONDS = _number(1, _MAX_SECONDS)


def parse_jobs(table: Table) -> JobSettings:
    """Return the allowed actions."""
    run, replace = table.table("run"), table.table("replace")
    restart = table.table("restart")
    found = JobSettings(
        {name: _command(run.table(name)) for name in _names(run)},
        {name: _place(replace.table(name)) for name in _names(replace)},
        _restart(restart) if "restart" in table else None,
        table.take("renew", FLAG) or False,
    )
    run.refuse_rest()
    replace.refuse_rest()
    table.refuse_rest()
    return found


def _names(table: Table) -> list[str]:
    for name in table.names:
        if _NAME.fullmatch(name) is None:
            table.wrong(name, "is not a valid name", "1 to 64 letters, digits and . _ -")
    return [name for name in table.names if _NAME.fullmatch(name)]


def _command(table: Table) -> RunCommand:
    usual = RunCommand(())
    again = table.take("run_again", FLAG)
    found = RunCommand(
        _program(table, '`command = ["/usr/local/bin/self-test"]`'),
        frozenset(table.take("arguments", _arguments_of) or ()),
        table.take("timeout_s", _SECONDS) or usual.timeout_s,
        bool(again),
    )
    table.refuse_rest()
    return found


def _place(table: Table) -> ReplaceableFile:
    path, urls = table.take("path", _path_of), table.take("urls", _urls_of)
    for name, example in (("path", '"file:///etc/pump.json"'), ("urls", '["https://files.example.com/pumps/"]')):
        if name not in table:
            table.wrong(name, "is missing", f"`{name} = {example}`")
    usual = ReplaceableFile(Path(), ())
    found = ReplaceableFile(
        path or Path(),
        urls or (),
        table.take("max_bytes", _number(1, _MAX_BYTES)) or usual.max_bytes,
        table.take("timeout_s", _SECONDS) or usual.timeout_s,
    )
    table.refuse_rest()
    return found


def _restart(table: Table) -> RestartCommand:
    usual = RestartCommand(())
    found = RestartCommand(
        _program(table, '`command = ["/usr/bin/systemctl", "reboot"]`'),
        table.take("within_s", _SECONDS) or usual.within_s,
        table.take("proof", _proof_of) or usual.proof,
    )
    table.refuse_rest()
    return found


def _program(table: Table, example: str) -> tuple[str, ...]:
    if "command" not in table:
        table.wrong("command", "is missing", example)
    return table.take("command", _words_of) or ()


def _words_of(value: object) -> tuple[str, ...]:
    words = tuple(_WORDS(value))
    if not words or not _is_straight(words[0]):
        raise MistakeError("must start with the absolute path of a program", _EXAMPLE)
    return _without_nul(words)


def _arguments_of(value: object) -> tuple[str, ...]:
    return _without_nul(tuple(_WORDS(value)))


def _without_nul(words: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in word for word in words):
        raise MistakeError("contains a NUL character, which arguments cannot contain", _EXAMPLE)
    return words


def _path_of(value: object) -> Path:
    path = file_of(value)
    if not _is_straight(str(path)):
        raise MistakeError("must not contain ..", '`{name} = "file:///etc/pump.json"`')
    return path


def _urls_of(value: object) -> tuple[str, ...]:
    urls = tuple(_WORDS(value))
    for url in urls:
        try:
            parse_url(url)
        except UrlInvalidError:
            meant = suggest_url(url, "/") or "https://files.example.com/pumps/"
            raise MistakeError("must be https URLs", f'`{{name}} = ["{meant}"]`') from None
    if not urls:
        raise MistakeError("must be https URLs", '`{name} = ["https://files.example.com/pumps/"]`')
    return urls


def _proof_of(value: object) -> RestartProof:
    try:
        return RestartProof(str(value))
    except ValueError:
        accepted = " or ".join(f'`{{name}} = "{one}"`' for one in RestartProof)
        raise MistakeError("is not known", accepted) from None


def _is_straight(path: str) -> bool:
    return path.startswith("/") and ".." not in Path(path).parts
