"""`birthmark device rights`: print the cloud permissions that a command needs."""

import json
from typing import Annotated

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.options.device_enrollment import (
    CloudName,
)
from birthmark.cli.output.command_output import emit
from birthmark.fleet.required_permissions import FleetTask, azure_rights, iam_policy


def rights(
    work: Annotated[FleetTask, typer.Argument(help="Operation.")],
    to: Annotated[CloudName, typer.Option(help="Cloud.")] = CloudName.AZURE,
    as_json: JsonOption = False,
) -> None:
    """Print the minimum cloud permissions for a command.

    For AWS, this is an IAM policy, ready to attach.

    `dry-run` covers `device enroll-list --dry-run`; `undo` covers `device enroll-list --undo`.
    """
    if to is CloudName.AWS:
        typer.echo(json.dumps(iam_policy(work), indent=None if as_json else 2))
        return
    emit(as_json, {place: ", ".join(rights) for place, rights in azure_rights(work).items()})
