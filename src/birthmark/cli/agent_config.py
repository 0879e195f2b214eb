"""`birthmark agent config`: current and available settings."""

from typing import Annotated

import typer

from birthmark.agent.config.effective_settings import EffectiveSetting, effective
from birthmark.agent.config.setting_catalog import AgentSetting, every_setting
from birthmark.cli.options.agent import AgentOptions
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.output.command_output import say
from birthmark.untrusted_json_and_text import printable


def list_settings(
    options: AgentOptions,
    pick: PickOptions,
    doc: Annotated[
        bool, typer.Option("--doc", help="Include every available setting with its default and meaning.")
    ] = False,
) -> None:
    """List the agent's configured settings and their sources.

    With --doc, also list the available settings. Secrets are not shown.
    """
    if doc:
        for one in pick.filter_rows(every_setting(), _known):
            default = f" [default: {one.default}]" if one.default else ""
            say(options.as_json, _known(one), f"{one.key} ({one.takes}){default}")
            if not options.as_json:
                typer.echo(f"    {printable(one.means)}")
        return
    config, _ = options.place.read()
    for found in pick.filter_rows(effective(config.texts), _found):
        say(options.as_json, _found(found), f"{found.key} = {found.value}  ({found.file}:{found.line})")


def _known(setting: AgentSetting) -> dict[str, str | None]:
    return {"key": setting.key, "takes": setting.takes, "default": setting.default or None, "meaning": setting.means}


def _found(setting: EffectiveSetting) -> dict[str, str | int | None]:
    return {"key": setting.key, "value": setting.value, "file": str(setting.file), "line": setting.line}
