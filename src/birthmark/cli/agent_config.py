"""`birthmark agent config`: what is set, and what could be."""

from typing import Annotated

import typer

from birthmark.agent.config.effective import effective
from birthmark.agent.config.settings import every_setting
from birthmark.cli.agent_options import AgentOptions
from birthmark.cli.common import say
from birthmark.text import printable


def list_settings(
    options: AgentOptions,
    doc: Annotated[bool, typer.Option("--doc", help="Every setting there is, with default and meaning.")] = False,
) -> None:
    """List what the configuration sets, where it stands, and with --doc what it could set. Secrets are not shown."""
    if doc:
        for one in every_setting():
            default = f" [default: {one.default}]" if one.default else ""
            known = {"key": one.key, "takes": one.takes, "default": one.default or None, "meaning": one.means}
            say(options.as_json, known, f"{one.key} ({one.takes}){default}")
            if not options.as_json:
                typer.echo(f"    {printable(one.means)}")
        return
    config, _ = options.place.read()
    for found in effective(config.texts):
        row: dict[str, str | int | None] = {
            "key": found.key,
            "value": found.value,
            "file": str(found.file),
            "line": found.line,
        }
        say(options.as_json, row, f"{found.key} = {found.value}  ({found.file}:{found.line})")
